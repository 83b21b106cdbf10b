"""Responder hosts and the certificates their OCSP keys get.

Knows: which hosts are enrolled and under which key they sign their requests, signing a delegated
responder's certificate for such a request once, and dropping one that can no longer be trusted.
Does not know: any responder key; a host makes its own and only certificates travel.
Source: RFC 6960 §4.2.2.2 (delegation), §2.7 (compromise).
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certstatus.certificate_request import read_request
from certstatus.changes import ChangeKind
from certstatus.der import integer_content
from certstatus.errors import IllegalTransition, NotEntitled, PolicyViolation, UnknownCertificate
from certstatus.x509_reading import load_certificate, load_csr
from issuance import profiles, schema
from issuance.act import Act, RecordedChange
from issuance.ca_keys import CAKeyFolder
from issuance.issue import proven_key
from issuance.issuers import issuer_by_id, publish_issuers, read_issuers, require_here
from issuance.store import Now, Store, read_clock

# A request is signed for now, not for whenever somebody finds a copy of it.
REQUEST_AGE_MAX_S = 3600
_AHEAD_MAX_S = 300
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class ResponderHost(NamedTuple):
    """One line of the register of hosts; ``ended_ms`` None while it is enrolled."""

    host: str
    public_key: bytes
    enrolled_ms: int
    ended_ms: int | None


class ResponderCertificate(NamedTuple):
    """One signed responder certificate; ``dropped_seq``: the change that dropped it, or None."""

    issuer_id: int
    serial: str
    host: str
    certificate_der: bytes
    not_before_s: int
    not_after_s: int
    signed_ms: int
    dropped_seq: int | None


def enroll_host(store: Store, host: str, public_key: Ed25519PublicKey, now: Now) -> None:
    """Enroll a host, or give an enrolled one its new key; from now on its requests are signed for.

    Raises: PolicyViolation — a name that is no host name.
    """
    if not _HOST_NAME.fullmatch(host):
        raise PolicyViolation(f"host {host!r}: expected 1..64 letters, digits, dots, dashes")
    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    table = schema.responder_host
    with store.writing(now) as act:
        known = act.connection.execute(sa.select(table.c.host).where(table.c.host == host)).first()
        values = {"public_key": raw, "enrolled_ms": act.time_ms, "ended_ms": None}
        if known is None:
            act.connection.execute(sa.insert(table).values(host=host, **values))
        else:
            act.connection.execute(sa.update(table).where(table.c.host == host).values(**values))


def end_host(store: Store, host: str, now: Now) -> None:
    """End a host's enrolment: it gets no further certificate (drop those it has, if need be).

    Raises: UnknownCertificate — not enrolled.
    """
    table = schema.responder_host
    with store.writing(now) as act:
        ended = act.connection.execute(
            sa.update(table)
            .where(table.c.host == host, table.c.ended_ms.is_(None))
            .values(ended_ms=act.time_ms)
        )
        if ended.rowcount != 1:
            raise UnknownCertificate(f"host {host} is not enrolled")


def hosts(store: Store) -> list[ResponderHost]:
    """Return the register of hosts, by name."""
    with store.reading() as connection:
        rows = connection.execute(sa.select(schema.responder_host).order_by(schema.responder_host.c.host))
        return [ResponderHost(*row) for row in rows]


def sign_request(store: Store, keys: CAKeyFolder, request_text: bytes, now: Now, life_s: int) -> bytes:
    """Sign the certificate an enrolled host asks for.

    Takes:  a signed request (``certificate_request``); the same one gets the same certificate again.
    Gives:  the certificate, DER.
    Raises: MalformedRequest; NotEntitled — host not enrolled, not signed by its key, or too old;
            PolicyViolation — the CSR proves nothing, or its key is too weak or the issuer's own;
            UnknownCertificate — no such issuer; KeyFileError — the CA key is not at hand.
    """
    request, signature = read_request(request_text)
    digest = hashlib.sha256(request_text).digest()
    table = schema.responder_certificate
    with store.reading() as connection:
        host_key = connection.execute(
            sa.select(schema.responder_host.c.public_key).where(
                schema.responder_host.c.host == request.host, schema.responder_host.c.ended_ms.is_(None)
            )
        ).scalar()
        before = connection.execute(
            sa.select(table.c.certificate_der).where(table.c.request_sha256 == digest)
        ).scalar()
    if host_key is None:
        raise NotEntitled(f"host {request.host} is not enrolled")
    request.verify(signature, Ed25519PublicKey.from_public_bytes(host_key))
    if before is not None:
        return bytes(before)
    now_ms = read_clock(now)
    age_s = (now_ms - request.time_ms) // 1000
    if not -_AHEAD_MAX_S <= age_s <= REQUEST_AGE_MAX_S:
        raise NotEntitled(f"the request is {age_s} s old, at most {REQUEST_AGE_MAX_S} s is taken")
    issuer = issuer_by_id(store, request.issuer_id)
    require_here(issuer)
    try:
        public_key = proven_key(load_csr(request.csr_pem.encode()))
    except ValueError as exc:
        raise PolicyViolation("the request holds no certificate signing request") from exc
    certificate = profiles.sign_responder_certificate(
        keys.private_key(issuer.issuer_id),
        issuer.ca_certificate,
        request.host,
        public_key,
        now_ms // 1000,
        life_s,
    )
    if certificate.public_key() == issuer.ca_certificate.public_key():
        raise PolicyViolation("the CSR is over the issuer's own key")
    der = certificate.public_bytes(serialization.Encoding.DER)
    with store.writing(now) as act:
        # Two publishers may have signed at once: the first to get here is the one that counts.
        twin = act.connection.execute(
            sa.select(table.c.certificate_der).where(table.c.request_sha256 == digest)
        ).scalar()
        if twin is not None:
            return bytes(twin)
        act.connection.execute(
            sa.insert(table).values(
                issuer_id=issuer.issuer_id,
                serial=integer_content(certificate.serial_number).hex(),
                host=request.host,
                request_sha256=digest,
                certificate_der=der,
                not_before_s=int(certificate.not_valid_before_utc.timestamp()),
                not_after_s=int(certificate.not_valid_after_utc.timestamp()),
                signed_ms=act.time_ms,
            )
        )
        _tell_number(act, issuer.issuer_id, "responder certificate signed")
    return der


def record_adopted(store: Store, issuer_id: int, host: str, certificate_der: bytes, now: Now) -> None:
    """Record a responder certificate that a CA gave out elsewhere and *host* signs with; twice is once.

    Only what is recorded can be dropped, and is known not to be a number that was never issued.
    Raises: UnknownCertificate — no such issuer.
    """
    issuer_by_id(store, issuer_id)
    certificate = load_certificate(certificate_der)
    digest = hashlib.sha256(certificate_der).digest()
    serial = integer_content(certificate.serial_number).hex()
    table = schema.responder_certificate
    with store.writing(now) as act:
        known = act.connection.execute(
            sa.select(table.c.serial).where(table.c.issuer_id == issuer_id, table.c.serial == serial)
        ).first()
        if known is not None:
            return
        act.connection.execute(
            sa.insert(table).values(
                issuer_id=issuer_id,
                serial=serial,
                host=host,
                request_sha256=digest,
                certificate_der=certificate_der,
                not_before_s=int(certificate.not_valid_before_utc.timestamp()),
                not_after_s=int(certificate.not_valid_after_utc.timestamp()),
                signed_ms=act.time_ms,
            )
        )
        _tell_number(act, issuer_id, "responder certificate adopted")


def _tell_number(act: Act, issuer_id: int, ground: str) -> None:
    """Publish the table where the number, which is on no list, must not be called never issued."""
    # As the policy is within this act: one that changes at the same time is before it or after it.
    policy = next(item.policy for item in read_issuers(act.connection) if item.issuer_id == issuer_id)
    if policy.not_issued == "revoked":
        act.record(ChangeKind.ISSUERS, issuer_id=issuer_id, ground=ground)
        publish_issuers(act)


def responder_certificates(store: Store, issuer_id: int | None = None) -> list[ResponderCertificate]:
    """Return the signed responder certificates, of all issuers or of one, newest last."""
    table = schema.responder_certificate
    columns = [table.c[name] for name in ResponderCertificate._fields]
    query = sa.select(*columns).order_by(table.c.issuer_id, table.c.not_before_s, table.c.serial)
    if issuer_id is not None:
        query = query.where(table.c.issuer_id == issuer_id)
    with store.reading() as connection:
        return [ResponderCertificate(*row) for row in connection.execute(query)]


def drop_certificate(store: Store, issuer_id: int, serial: str, now: Now, ground: str) -> RecordedChange:
    """Drop a responder certificate: no worker signs with it or serves what it signed any more.

    Takes: ``serial`` in lower-case hex.
    Raises: UnknownCertificate — not signed here; IllegalTransition — dropped before.
    """
    table = schema.responder_certificate
    which = sa.and_(table.c.issuer_id == issuer_id, table.c.serial == serial)
    with store.writing(now) as act:
        row = act.connection.execute(sa.select(table.c.dropped_seq).where(which)).one_or_none()
        if row is None:
            raise UnknownCertificate(f"no responder certificate {serial} of issuer {issuer_id}")
        if row.dropped_seq is not None:
            raise IllegalTransition(
                f"responder certificate {serial} was dropped before, in change {row.dropped_seq}"
            )
        recorded = act.record(ChangeKind.ISSUERS, issuer_id=issuer_id, ground=ground, detail=serial)
        act.connection.execute(sa.update(table).where(which).values(dropped_seq=recorded.seq))
        publish_issuers(act)
    return recorded
