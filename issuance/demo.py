"""A population to try things on: certificates of one service, some revoked on every ground.

Knows: issuing and revoking in pieces, in turn for some municipalities where CRLs are parted by them, going
on where a killed run stopped, and the files that
examples and benchmarks read: ``ca.pem``, ``good.pem``, ``revoked.pem``, ``population.csv``.
Does not know: real applicants; the keys of these certificates are thrown away at once.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certstatus.changes import ChangeKind
from certstatus.durable import write_durable
from issuance import schema
from issuance.crl_scopes import known_names
from issuance.issue import Issuing, record_many, sign
from issuance.partition import MUNICIPALITY, scheme_of
from issuance.revoke import Cause
from issuance.schema import CertificateState
from issuance.store import Now, Store, read_clock

POPULATION = 1000
_PER_CAUSE = 10
_LOT = 100
_PER_MUNICIPALITY = 40
_MARKER = "population.csv"

# Sapporo's central ward to Naha: wards of designated cities and of Tokyo, cities, a town and villages.
MUNICIPALITIES = (
    *("01101", "04101", "11103", "12204", "13101", "13104", "13113", "13221", "13361", "14104"),
    *("15103", "17201", "20304", "22138", "23106", "26104", "27127", "28110", "32201", "33101"),
    *("34101", "40132", "43101", "46505", "47201"),
)

Progress = Callable[[int, int], None]


class _Member(NamedTuple):
    serial: bytes
    state: CertificateState


def make_demo(
    store: Store,
    issuing: Issuing,
    index_key: bytes,
    folder: Path,
    now: Now,
    *,
    population: int = POPULATION,
    progress: Progress | None = None,
) -> None:
    """Fill an issuer with *population* certificates and write the demo files into *folder*.

    Does nothing where that is done already; goes on where it was stopped.  *progress* is called
    with (certificates issued so far, population).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _MARKER).exists():
        return
    _issue_missing(store, issuing, index_key, now, population, progress)
    _revoke_some(store, issuing, now, population)
    _write_files(store, issuing, folder, population)


def _issue_missing(
    store: Store,
    issuing: Issuing,
    index_key: bytes,
    now: Now,
    population: int,
    progress: Progress | None,
) -> None:
    issued = len(_members(store, issuing, population))
    known = partial(known_names, store, issuing.issuer.issuer_id)
    if progress is not None:
        progress(issued, population)
    while issued < population:
        now_s = read_clock(now) // 1000
        lot = [
            sign(
                issuing,
                ec.generate_private_key(ec.SECP256R1()).public_key(),
                now_s,
                partition=_municipality(issuing, number, population),
                known=known,
            )
            for number in range(issued, min(issued + _LOT, population))
        ]
        record_many(store, issuing, index_key, lot, now)
        issued += len(lot)
        if progress is not None:
            progress(issued, population)


def _municipality(issuing: Issuing, number: int, population: int) -> str | None:
    """Return a municipality for a certificate, in turn; a small population has few of them."""
    if scheme_of(issuing.issuer) != MUNICIPALITY:
        return None
    count = min(len(MUNICIPALITIES), max(2, population // _PER_MUNICIPALITY))
    return MUNICIPALITIES[number % count]


def _revoke_some(store: Store, issuing: Issuing, now: Now, population: int) -> None:
    """Revoke up to ten certificates on each ground that the service knows, always the same ones."""
    issuer = issuing.issuer
    causes = [cause for cause in Cause if issuer.service in cause.services] or list(Cause)
    members = _members(store, issuing, population)
    # Never more than half of a small population.
    per_cause = min(_PER_CAUSE, population // (2 * len(causes)))
    wanted = [
        (members[at * len(causes) + number], cause)
        for at in range(per_cause)
        for number, cause in enumerate(causes)
    ]
    left = [(member, cause) for member, cause in wanted if member.state is CertificateState.VALID]
    while left:
        with store.writing(now) as act:
            while left and not act.is_full:
                member, cause = left.pop()
                act.record(
                    ChangeKind.REVOKED,
                    issuer_id=issuer.issuer_id,
                    serial=member.serial,
                    reason=cause.reason,
                    ground=cause.label,
                )


def _write_files(store: Store, issuing: Issuing, folder: Path, population: int) -> None:
    members = _members(store, issuing, population)
    good = next(item for item in members if item.state is CertificateState.VALID)
    revoked = next(item for item in members if item.state is CertificateState.REVOKED)
    ca = issuing.issuer.ca_certificate
    write_durable(folder / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))
    for name, member in (("good.pem", good), ("revoked.pem", revoked)):
        write_durable(folder / name, _pem(store, issuing, member.serial))
    lines = [
        f"{item.serial.hex()},{'good' if item.state is CertificateState.VALID else 'revoked'}\n"
        for item in members
    ]
    # Last: its presence says that the rest is there.
    write_durable(folder / _MARKER, ("serial,status\n" + "".join(lines)).encode())


def _members(store: Store, issuing: Issuing, limit: int) -> list[_Member]:
    table = schema.certificate
    with store.reading() as connection:
        rows = connection.execute(
            sa.select(table.c.serial, table.c.state)
            .where(table.c.issuer_id == issuing.issuer.issuer_id)
            .order_by(table.c.issued_seq)
            .limit(limit)
        ).all()
    return [_Member(bytes.fromhex(row.serial), CertificateState(row.state)) for row in rows]


def _pem(store: Store, issuing: Issuing, serial: bytes) -> bytes:
    table, records = schema.certificate, schema.issue_record
    with store.reading() as connection:
        der = connection.execute(
            sa.select(records.c.certificate_der)
            .join(table, table.c.issued_seq == records.c.issued_seq)
            .where(table.c.service == issuing.issuer.service, table.c.serial == serial.hex())
        ).scalar_one()
    return ssl.DER_cert_to_PEM_cert(der).encode()
