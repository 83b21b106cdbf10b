"""The schema's revisions, and running them: Alembic, without a configuration file.

Knows: bringing a database up to the newest revision inside one locked transaction, so that two
processes cannot do it at once and a killed one leaves nothing half done.
Does not know: the tables of today (``schema``); each revision writes down its own.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """Return the revision at the head of ``versions``."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def upgrade(connection: sa.Connection) -> None:
    """Run every revision that the database behind *connection* lacks, in its transaction."""
    command.upgrade(_config(connection), "head")
