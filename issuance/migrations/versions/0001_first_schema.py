"""The first schema.

Revision: 0001, the beginning.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite makes a column the row's own key only when its type is spelled INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "epoch",
        sa.Column("epoch", sa.LargeBinary(length=16), nullable=False),
        sa.Column("base_seq", _NUMBER, nullable=False),
        sa.Column("started_ms", _NUMBER, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_epoch")),
    )
    op.create_table(
        "issuer",
        sa.Column("issuer_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("key_algorithm", sa.Text(), nullable=False),
        sa.Column("name_der", sa.LargeBinary(), nullable=False),
        sa.Column("spki_der", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.LargeBinary(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("created_seq", _NUMBER, nullable=False),
        sa.Column("key_event_seq", _NUMBER, nullable=True),
        sa.Column("key_event_ms", _NUMBER, nullable=True),
        sa.PrimaryKeyConstraint("issuer_id", name=op.f("pk_issuer")),
        sa.UniqueConstraint("service", "generation", name=op.f("uq_issuer_service_generation")),
        sa.UniqueConstraint("spki_der", name=op.f("uq_issuer_spki_der")),
    )
    op.create_table(
        "provision",
        sa.Column("file_uuid", sa.Text(), nullable=False),
        sa.Column("cell", sa.Integer(), nullable=False),
        sa.Column("verifier_id", sa.Integer(), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("jst_hour_s", _NUMBER, nullable=False),
        sa.Column("value", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("file_uuid", "cell", name=op.f("pk_provision")),
    )
    op.create_table(
        "publication",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("generation", _NUMBER, nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_publication")),
    )
    op.create_table(
        "publisher_lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fence", _NUMBER, nullable=False),
        sa.Column("until_ms", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_publisher_lease")),
    )
    op.create_table(
        "responder_host",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("enrolled_ms", _NUMBER, nullable=False),
        sa.Column("ended_ms", _NUMBER, nullable=True),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_responder_host")),
    )
    op.create_table(
        "store_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.LargeBinary(length=16), nullable=False),
        sa.Column("base_seq", _NUMBER, nullable=False),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("time_ms", _NUMBER, nullable=False),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_state")),
    )
    op.create_table(
        "verifier",
        sa.Column("verifier_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("networks", sa.Text(), nullable=False),
        sa.Column("grants", sa.Text(), nullable=False),
        sa.Column("from_day", sa.Integer(), nullable=True),
        sa.Column("until_day", sa.Integer(), nullable=True),
        sa.Column("registered_seq", _NUMBER, nullable=False),
        sa.Column("ended_seq", _NUMBER, nullable=True),
        sa.PrimaryKeyConstraint("verifier_id", name=op.f("pk_verifier")),
    )
    op.create_table(
        "worker_lease",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("lease_until_ms", _NUMBER, nullable=False),
        sa.Column("applied_seq", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("host", "slot", name=op.f("pk_worker_lease")),
    )
    op.create_table(
        "certificate",
        sa.Column("issued_seq", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=12), nullable=False),
        sa.Column("spki_sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("not_before_s", _NUMBER, nullable=True),
        sa.Column("not_after_s", _NUMBER, nullable=False),
        sa.Column("not_after_day", sa.Integer(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.Column("revoked_at_ms", _NUMBER, nullable=True),
        sa.Column("revoked_seq", _NUMBER, nullable=True),
        sa.Column("invalidity_s", _NUMBER, nullable=False),
        sa.Column("lapsed_seq", _NUMBER, nullable=True),
        sa.Column("changed_seq", _NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_certificate_issuer_id")),
        sa.PrimaryKeyConstraint("issued_seq", name=op.f("pk_certificate")),
        sa.UniqueConstraint("issuer_id", "fingerprint", name=op.f("uq_certificate_issuer_id_fingerprint")),
        sa.UniqueConstraint("service", "serial", name=op.f("uq_certificate_service_serial")),
        sa.UniqueConstraint("spki_sha256", name=op.f("uq_certificate_spki_sha256")),
    )
    op.create_index(
        "ix_certificate_listed",
        "certificate",
        ["issuer_id", "not_after_s"],
        unique=False,
        sqlite_where=sa.text("state <> 1 AND lapsed_seq IS NULL"),
        postgresql_where=sa.text("state <> 1 AND lapsed_seq IS NULL"),
    )
    op.create_table(
        "crl",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("base_number", _NUMBER, nullable=True),
        sa.Column("this_update_s", _NUMBER, nullable=False),
        sa.Column("next_update_s", _NUMBER, nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("bytes", _NUMBER, nullable=True),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_crl_issuer_id")),
        sa.PrimaryKeyConstraint("issuer_id", "scope", "number", "kind", name=op.f("pk_crl")),
    )
    op.create_table(
        "crl_scope",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("last_number", _NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_crl_scope_issuer_id")),
        sa.PrimaryKeyConstraint("issuer_id", "scope", name=op.f("pk_crl_scope")),
    )
    op.create_table(
        "issuer_certificate",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("certificate_der", sa.LargeBinary(), nullable=False),
        sa.Column("added_seq", _NUMBER, nullable=False),
        sa.ForeignKeyConstraint(
            ["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_issuer_certificate_issuer_id")
        ),
        sa.PrimaryKeyConstraint("issuer_id", "sha256", name=op.f("pk_issuer_certificate")),
    )
    op.create_table(
        "issuer_name",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("name_der", sa.LargeBinary(), nullable=False),
        sa.Column("added_seq", _NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_issuer_name_issuer_id")),
        sa.PrimaryKeyConstraint("issuer_id", "sha256", name=op.f("pk_issuer_name")),
    )
    op.create_table(
        "responder_certificate",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("certificate_der", sa.LargeBinary(), nullable=False),
        sa.Column("not_before_s", _NUMBER, nullable=False),
        sa.Column("not_after_s", _NUMBER, nullable=False),
        sa.Column("signed_ms", _NUMBER, nullable=False),
        sa.Column("dropped_seq", _NUMBER, nullable=True),
        sa.ForeignKeyConstraint(
            ["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_responder_certificate_issuer_id")
        ),
        sa.PrimaryKeyConstraint("issuer_id", "serial", name=op.f("pk_responder_certificate")),
        sa.UniqueConstraint("request_sha256", name=op.f("uq_responder_certificate_request_sha256")),
    )
    op.create_table(
        "change",
        sa.Column("seq", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=True),
        sa.Column("certificate_seq", _NUMBER, nullable=True),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.Column("recorded_ms", _NUMBER, nullable=False),
        sa.Column("invalidity_s", _NUMBER, nullable=False),
        sa.Column("ground", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("packed", sa.LargeBinary(length=40), nullable=False),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["certificate_seq"], ["certificate.issued_seq"], name=op.f("fk_change_certificate_seq")
        ),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_change_issuer_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_change")),
    )
    op.create_index("ix_change_certificate_seq", "change", ["certificate_seq", "seq"], unique=False)
    op.create_index(
        "ix_change_revocation",
        "change",
        ["issuer_id", "seq"],
        unique=False,
        sqlite_where=sa.text("kind IN (2, 3, 4, 5, 6, 9)"),
        postgresql_where=sa.text("kind IN (2, 3, 4, 5, 6, 9)"),
    )
    op.create_table(
        "issue_record",
        sa.Column("issued_seq", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("certificate_der", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["issued_seq"], ["certificate.issued_seq"], name=op.f("fk_issue_record_issued_seq")
        ),
        sa.PrimaryKeyConstraint("issued_seq", name=op.f("pk_issue_record")),
    )
