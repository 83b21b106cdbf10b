"""Issuers taken over from elsewhere, and revocations dated before they were recorded.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite makes a column the row's own key only when its type is spelled INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table and the column; what is there stays as it is."""
    op.create_table(
        "imported_issuer",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("revocations", sa.Text(), nullable=False),
        sa.Column("ready", sa.Integer(), nullable=False),
        sa.Column("crl_number", sa.Text(), nullable=True),
        sa.Column("crl_this_update_s", _NUMBER, nullable=True),
        sa.Column("crl_next_update_s", _NUMBER, nullable=True),
        sa.Column("crl_sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("crl_idp_der", sa.LargeBinary(), nullable=True),
        sa.Column("crl_url", sa.Text(), nullable=True),
        sa.Column("poll_period_s", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_imported_issuer_issuer_id")
        ),
        sa.PrimaryKeyConstraint("issuer_id", name=op.f("pk_imported_issuer")),
    )
    op.add_column("change", sa.Column("revoked_ms", _NUMBER, nullable=True))
