"""CRL scopes that were another installation's, and partitions whose last certificate has ended.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# SQLite makes a column the row's own key only when its type is spelled INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns; nothing is known of scopes that are there."""
    for name in ("taken_this_update_s", "last_end_s", "retired_seq"):
        op.add_column("crl_scope", sa.Column(name, _NUMBER, nullable=True))
