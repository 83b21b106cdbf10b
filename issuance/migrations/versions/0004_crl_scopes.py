"""CRL scopes with names of their own, and the partition that each certificate is in.

Revision: 0004, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# SQLite makes a column the row's own key only when its type is spelled INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns; scopes that are there are numbered, and certificates are in no partition."""
    op.add_column("certificate", sa.Column("scope_id", sa.Integer(), nullable=True))
    op.add_column("crl_scope", sa.Column("scope_id", sa.Integer(), nullable=True))
    op.execute(
        sa.text(
            "UPDATE crl_scope SET scope_id = (SELECT count(*) FROM crl_scope AS other WHERE"
            " other.issuer_id < crl_scope.issuer_id"
            " OR (other.issuer_id = crl_scope.issuer_id AND other.scope <= crl_scope.scope))"
        )
    )
    with op.batch_alter_table("crl_scope") as table:
        table.alter_column("scope_id", existing_type=sa.Integer(), nullable=False)
        table.add_column(sa.Column("title", sa.Text(), nullable=True))
        table.add_column(sa.Column("idp_der", sa.LargeBinary(), nullable=True))
        table.add_column(sa.Column("crldp_der", sa.LargeBinary(), nullable=True))
        table.add_column(sa.Column("freshest_der", sa.LargeBinary(), nullable=True))
        table.add_column(sa.Column("opened_seq", _NUMBER, nullable=True))
        table.add_column(sa.Column("closed_seq", _NUMBER, nullable=True))
    op.create_index(op.f("ix_crl_scope_scope_id"), "crl_scope", ["scope_id"], unique=True)
