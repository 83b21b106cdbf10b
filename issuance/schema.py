"""The tables of the store of record.

Knows: columns, keys and indexes, the same on SQLite and PostgreSQL.  ``certificate`` holds the
current state of every certificate; ``change`` holds every step that led there, numbered by the
store's one sequence.  A certificate's key is the number of its ISSUED change, so both tables
grow at their ends and a certificate's history is one index range.
Does not know: what an act means or when it is allowed (``transitions``), nor how to lock (``store``).
Source: Act arts. 8, 11-14, 27, 30-33 (records), 16, 35 (files), 40 (ledger).

Units: ``*_ms`` POSIX milliseconds, ``*_s`` POSIX seconds, ``*_day`` JST days since 1970-01-01.
Serials are lower-case hex of the INTEGER content octets.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypedDict, Unpack

import sqlalchemy as sa

# The newest revision in ``migrations/versions``; a test holds the two together, so that opening
# a store need not load Alembic.
SCHEMA_REVISION = "0005"


class CertificateState(IntEnum):
    """Where a certificate stands; each number is that of the change that leads there."""

    VALID = 1
    REVOKED = 2
    HELD = 3


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes a column the row's own key only when its type is spelled INTEGER; BIGINT elsewhere.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class _More(TypedDict, total=False):
    """What a column may say beyond its type."""

    primary_key: bool
    autoincrement: bool


def _number(name: str, *, optional: bool = False, **more: Unpack[_More]) -> sa.Column[int]:
    return sa.Column(name, _Number, nullable=optional, **more)


def _small(name: str, *, optional: bool = False, **more: Unpack[_More]) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=optional, **more)


def _octets(
    name: str, length: int | None = None, *, optional: bool = False, **more: Unpack[_More]
) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(length), nullable=optional, **more)


def _text(name: str, *, optional: bool = False, **more: Unpack[_More]) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=optional, **more)


def _issuer_reference(*, optional: bool = False) -> sa.Column[int]:
    return sa.Column("issuer_id", sa.Integer, sa.ForeignKey("issuer.issuer_id"), nullable=optional)


def _certificate_reference(name: str, *, optional: bool = False, **more: Unpack[_More]) -> sa.Column[int]:
    return sa.Column(name, _Number, sa.ForeignKey("certificate.issued_seq"), nullable=optional, **more)


# The one counter row.  ``base_seq`` is where the epoch began: the running hash there is that of
# the epoch alone, and no change at or before it belongs to the feed of this epoch.
store_state = sa.Table(
    "store_state",
    metadata,
    _small("id", primary_key=True, autoincrement=False),
    _octets("epoch", 16),
    _number("base_seq"),
    _number("seq"),
    _number("time_ms"),
    _octets("chain", 32),
)

# One line per epoch: the first at creation, another at each restore.
epoch = sa.Table(
    "epoch",
    metadata,
    _octets("epoch", 16, primary_key=True),
    _number("base_seq"),
    _number("started_ms"),
    _text("cause"),
)

issuer = sa.Table(
    "issuer",
    metadata,
    _small("issuer_id", primary_key=True, autoincrement=False),
    _text("service"),
    _small("generation"),
    _text("key_algorithm"),
    _octets("name_der"),
    _octets("spki_der"),
    _octets("key_id"),
    _text("policy"),
    _number("created_seq"),
    _number("key_event_seq", optional=True),
    _number("key_event_ms", optional=True),
    sa.UniqueConstraint("service", "generation"),
    sa.UniqueConstraint("spki_der"),
)

issuer_certificate = sa.Table(
    "issuer_certificate",
    metadata,
    _issuer_reference(),
    _octets("sha256", 32),
    _octets("certificate_der"),
    _number("added_seq"),
    sa.PrimaryKeyConstraint("issuer_id", "sha256"),
)

# Every DER encoding of the issuer's name seen in what it issued: CertIDs are hashes of those bytes.
issuer_name = sa.Table(
    "issuer_name",
    metadata,
    _issuer_reference(),
    _octets("sha256", 32),
    _octets("name_der"),
    _number("added_seq"),
    sa.PrimaryKeyConstraint("issuer_id", "sha256"),
)

# Issuers that were another installation's before.  ``revocations``: "here" once this one revokes,
# "elsewhere" while the CA goes on revoking by itself; ``ready``: 0 until an import has ended, and
# until then nobody is told anything; ``crl_*``: the newest CRL taken over from the CA (the number
# in decimal, for it may have 20 octets); ``crl_url``: where newer ones are fetched.
imported_issuer = sa.Table(
    "imported_issuer",
    metadata,
    sa.Column(
        "issuer_id", sa.Integer, sa.ForeignKey("issuer.issuer_id"), primary_key=True, autoincrement=False
    ),
    _text("revocations"),
    _small("ready"),
    _text("crl_number", optional=True),
    _number("crl_this_update_s", optional=True),
    _number("crl_next_update_s", optional=True),
    _octets("crl_sha256", 32, optional=True),
    _octets("crl_idp_der", optional=True),
    _text("crl_url", optional=True),
    _small("poll_period_s", optional=True),
)

certificate = sa.Table(
    "certificate",
    metadata,
    _number("issued_seq", primary_key=True, autoincrement=False),
    _issuer_reference(),
    _text("service"),
    _text("serial"),
    _octets("fingerprint", 12),
    _octets("spki_sha256", 32, optional=True),
    _number("not_before_s", optional=True),
    _number("not_after_s"),
    _small("not_after_day"),
    _text("origin"),
    _small("state"),
    _small("reason", optional=True),
    _number("revoked_at_ms", optional=True),
    _number("revoked_seq", optional=True),
    _number("invalidity_s"),
    _number("lapsed_seq", optional=True),
    _number("changed_seq"),
    # The partition it was issued into, beside ``all``; NULL: none.  Never worked out anew.
    _small("scope_id", optional=True),
    # Serials are unique per CA name, and all generations of a service share one name.
    sa.UniqueConstraint("service", "serial"),
    sa.UniqueConstraint("issuer_id", "fingerprint"),
    sa.UniqueConstraint("spki_sha256"),
)
# As text, in the index and in queries: a partial index serves a query only if the same words stand there.
IS_LISTED = sa.text("state <> 1 AND lapsed_seq IS NULL")
sa.Index(
    "ix_certificate_listed",
    certificate.c.issuer_id,
    certificate.c.not_after_s,
    sqlite_where=IS_LISTED,
    postgresql_where=IS_LISTED,
)

# The issue record proper: the certificate with the CA's signature (Act arts. 8, 27).  Apart from
# ``certificate`` so that walking over all states does not read it.
issue_record = sa.Table(
    "issue_record",
    metadata,
    _certificate_reference("issued_seq", primary_key=True, autoincrement=False),
    _octets("certificate_der"),
)

change = sa.Table(
    "change",
    metadata,
    _number("seq", primary_key=True, autoincrement=False),
    _small("kind"),
    _issuer_reference(optional=True),
    _certificate_reference("certificate_seq", optional=True),
    _small("reason", optional=True),
    _number("recorded_ms"),
    _number("invalidity_s"),
    _text("ground", optional=True),
    _text("detail", optional=True),
    # 40, or 72 where it tells a certificate's hash; neither database holds a column to its length.
    _octets("packed", 72),
    _octets("chain", 32),
    # When the certificate was revoked, if that was before it was recorded here: an import's.
    _number("revoked_ms", optional=True),
)
sa.Index("ix_change_certificate_seq", change.c.certificate_seq, change.c.seq)
# What a CRL reads: everything about an issuer but the issuing itself.
IS_REVOCATION = sa.text("kind IN (2, 3, 4, 5, 6, 9)")
sa.Index(
    "ix_change_revocation",
    change.c.issuer_id,
    change.c.seq,
    sqlite_where=IS_REVOCATION,
    postgresql_where=IS_REVOCATION,
)

# What is published of a kind now.  A page of one has a line of its own: of kind ``<kind>/<SHA-256 in hex>``,
# and of generation 0, for a page never becomes another one.
publication = sa.Table(
    "publication",
    metadata,
    _text("kind", primary_key=True),
    _number("generation"),
    _octets("sha256", 32),
    _octets("body", optional=True),
)

worker_lease = sa.Table(
    "worker_lease",
    metadata,
    _text("host"),
    _small("slot"),
    _text("incarnation"),
    _number("lease_until_ms"),
    _number("applied_seq"),
    sa.PrimaryKeyConstraint("host", "slot"),
)

publisher_lease = sa.Table(
    "publisher_lease",
    metadata,
    _text("name", primary_key=True),
    _text("holder"),
    _number("fence"),
    _number("until_ms"),
)

# CRL scopes, and the last CRL number given out in each.  Apart from ``crl`` so that a number once given
# stays given, whatever becomes of the rows there.  ``*_der``: the names of a partition as they were when it
# was opened, IssuingDistributionPoint of its CRLs, and cRLDistributionPoints and freshestCRL of its
# certificates; NULL of ``all``, whose names follow from its issuer.  ``closed_seq``: nothing is issued into
# it from then on; its CRLs go on until ``retired_seq``, and ``last_end_s`` is when the last certificate of a
# closed one ends, once somebody has looked.  ``taken_this_update_s``: of one that was a CA's own before it
# was taken over, the thisUpdate of the old CRL that was read last.
crl_scope = sa.Table(
    "crl_scope",
    metadata,
    _issuer_reference(),
    _text("scope"),
    _number("last_number"),
    _small("scope_id"),
    _text("title", optional=True),
    _octets("idp_der", optional=True),
    _octets("crldp_der", optional=True),
    _octets("freshest_der", optional=True),
    _number("opened_seq", optional=True),
    _number("closed_seq", optional=True),
    _number("taken_this_update_s", optional=True),
    _number("last_end_s", optional=True),
    _number("retired_seq", optional=True),
    sa.PrimaryKeyConstraint("issuer_id", "scope"),
)
sa.Index("ix_crl_scope_scope_id", crl_scope.c.scope_id, unique=True)

# A complete and a delta CRL made at the same cut share a number (RFC 5280 §5.2.3), hence the key.
# ``published_ms``: when the catalogue first named it, by the store's time; NULL while it never has,
# 0 where an earlier version published it without writing that down.
crl = sa.Table(
    "crl",
    metadata,
    _issuer_reference(),
    _text("scope"),
    _number("number"),
    _text("kind"),
    _text("state"),
    _number("seq"),
    _number("base_number", optional=True),
    _number("this_update_s"),
    _number("next_update_s", optional=True),
    _octets("sha256", 32, optional=True),
    _number("bytes", optional=True),
    _number("published_ms", optional=True),
    sa.PrimaryKeyConstraint("issuer_id", "scope", "number", "kind"),
)
# Recorded, and not yet named by a catalogue: few, for a moment each.
IS_UNSHOWN = sa.text("state = 'published' AND published_ms IS NULL")
sa.Index(
    "ix_crl_unshown",
    crl.c.issuer_id,
    crl.c.scope,
    sqlite_where=IS_UNSHOWN,
    postgresql_where=IS_UNSHOWN,
)

# Status given to verifiers, as counted by the workers: one line per cell of a counter file.
provision = sa.Table(
    "provision",
    metadata,
    _text("file_uuid"),
    _small("cell"),
    _small("verifier_id"),
    _small("issuer_id"),
    _text("kind"),
    _number("jst_hour_s"),
    _number("value"),
    sa.PrimaryKeyConstraint("file_uuid", "cell"),
)

# Registered verifiers (Act arts. 17, 36): networks and grants are JSON, read and written whole.
verifier = sa.Table(
    "verifier",
    metadata,
    _small("verifier_id", primary_key=True, autoincrement=False),
    _text("name"),
    _text("networks"),
    _text("grants"),
    _small("from_day", optional=True),
    _small("until_day", optional=True),
    _number("registered_seq"),
    _number("ended_seq", optional=True),
)

responder_host = sa.Table(
    "responder_host",
    metadata,
    _text("host", primary_key=True),
    _octets("public_key", 32),
    _number("enrolled_ms"),
    _number("ended_ms", optional=True),
)

responder_certificate = sa.Table(
    "responder_certificate",
    metadata,
    _issuer_reference(),
    _text("serial"),
    _text("host"),
    _octets("request_sha256", 32),
    _octets("certificate_der"),
    _number("not_before_s"),
    _number("not_after_s"),
    _number("signed_ms"),
    _number("dropped_seq", optional=True),
    sa.PrimaryKeyConstraint("issuer_id", "serial"),
    sa.UniqueConstraint("request_sha256"),
)
