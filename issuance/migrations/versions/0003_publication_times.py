"""When each CRL was out: the moment at which the catalogue first named it.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# SQLite makes a column the row's own key only when its type is spelled INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_IS_UNSHOWN = sa.text("state = 'published' AND published_ms IS NULL")


def upgrade() -> None:
    """Add the column; of CRLs that are out already it is 0, which says that nobody wrote it down."""
    op.add_column("crl", sa.Column("published_ms", _NUMBER, nullable=True))
    op.execute(sa.text("UPDATE crl SET published_ms = 0 WHERE state = 'published'"))
    op.create_index(
        op.f("ix_crl_unshown"),
        "crl",
        ["issuer_id", "scope"],
        sqlite_where=_IS_UNSHOWN,
        postgresql_where=_IS_UNSHOWN,
    )
