"""The register of verifiers: who may learn a certificate's status, and which way.

Knows: a verifier's networks, its agreement's scope (service, kinds) and days, that one network
belongs to one verifier at a time, and publishing the entitlements within the act that changes them.
Does not know: accreditation or categories; how a request's address is found out (``responder``).
Source: Act arts. 17, 18, 36, 37 (notification and agreement come before provision).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from certstatus.documents import encode_document
from certstatus.entitlements import KINDS, Network, Verifier, entitlements_content, parse_network
from certstatus.errors import IllegalTransition, PolicyViolation
from issuance import schema
from issuance.act import Act, RecordedChange
from issuance.store import Now, Store

DOCUMENT = "entitlements"
_NAME_MAX = 200
_DAY_MAX = 0xFFFF


class VerifierRecord(NamedTuple):
    """One line of the register; ``ended_seq``: the change that ended it, None while it stands."""

    verifier: Verifier
    registered_seq: int
    ended_seq: int | None


class RegisteredVerifier(NamedTuple):
    """A verifier's number, and the change that made it."""

    verifier_id: int
    change: RecordedChange


def add_verifier(
    store: Store,
    name: str,
    networks: Sequence[str],
    grants: Mapping[str, Sequence[str]],
    now: Now,
    *,
    from_day: int | None = None,
    until_day: int | None = None,
) -> RegisteredVerifier:
    """Register a verifier.

    Takes:  ``networks`` as text, IPv4 or IPv6, an IPv4-mapped one means the IPv4 network;
            ``grants``: service -> kinds ("ocsp", "crl"); days as JST days since 1970-01-01, both included.
    Raises: PolicyViolation — no or bad network, a network of another verifier in the same days, a
            service that no issuer has, a kind that does not exist, days the wrong way round.
    """
    if not 0 < len(name) <= _NAME_MAX:
        raise PolicyViolation(f"a verifier's name has 1..{_NAME_MAX} characters")
    parsed = _networks(networks)
    scope = _grants(grants)
    _check_days(from_day, until_day)
    table = schema.verifier
    with store.writing(now) as act:
        _check_services(act.connection, scope)
        _refuse_taken(act.connection, parsed, from_day, until_day)
        highest = act.connection.execute(sa.select(sa.func.max(table.c.verifier_id))).scalar()
        # Never given out again, not even after the end: provisions are kept under this number.
        verifier_id = (highest or 0) + 1
        recorded = act.record(ChangeKind.ENTITLEMENTS, ground="verifier registered", detail=str(verifier_id))
        act.connection.execute(
            sa.insert(table).values(
                verifier_id=verifier_id,
                name=name,
                networks=json.dumps([str(network) for network in parsed]),
                grants=json.dumps(scope, sort_keys=True),
                from_day=from_day,
                until_day=until_day,
                registered_seq=recorded.seq,
            )
        )
        publish_entitlements(act)
    return RegisteredVerifier(verifier_id, recorded)


def end_verifier(store: Store, verifier_id: int, now: Now, *, until_day: int | None = None) -> RecordedChange:
    """End a verifier's right: at once, or with the end of JST day *until_day*.

    Raises: IllegalTransition — not registered, or ended before.
    """
    table = schema.verifier
    which = sa.and_(table.c.verifier_id == verifier_id, table.c.ended_seq.is_(None))
    with store.writing(now) as act:
        row = act.connection.execute(sa.select(table.c.from_day).where(which)).one_or_none()
        if row is None:
            raise IllegalTransition(f"verifier {verifier_id} is not registered, or was ended before")
        recorded = act.record(ChangeKind.ENTITLEMENTS, ground="verifier ended", detail=str(verifier_id))
        if until_day is None:
            act.connection.execute(sa.update(table).where(which).values(ended_seq=recorded.seq))
        else:
            _check_days(row.from_day, until_day)
            act.connection.execute(sa.update(table).where(which).values(until_day=until_day))
        publish_entitlements(act)
    return recorded


def verifiers(store: Store, *, ended: bool = False) -> list[VerifierRecord]:
    """Return the register by number; with *ended*, those that were ended too."""
    with store.reading() as connection:
        return [record for record in _read(connection) if ended or record.ended_seq is None]


def publish_entitlements(act: Act) -> None:
    """Publish the entitlements as they stand within *act*, under the number of its last change."""
    act.flush()
    standing = [record.verifier for record in _read(act.connection) if record.ended_seq is None]
    act.publish(DOCUMENT, act.seq, encode_document(entitlements_content(act.seq, standing)))


def entitlement_document(store: Store) -> bytes | None:
    """Return the entitlements that are published now, None if nobody was ever registered."""
    found = store.publication(DOCUMENT)
    return None if found is None else found.body


def _read(connection: sa.Connection) -> list[VerifierRecord]:
    table = schema.verifier
    return [
        VerifierRecord(
            Verifier(
                verifier_id=row.verifier_id,
                name=row.name,
                networks=tuple(parse_network(text) for text in json.loads(row.networks)),
                grants={service: tuple(kinds) for service, kinds in json.loads(row.grants).items()},
                from_day=row.from_day,
                until_day=row.until_day,
            ),
            row.registered_seq,
            row.ended_seq,
        )
        for row in connection.execute(sa.select(table).order_by(table.c.verifier_id))
    ]


def _networks(texts: Sequence[str]) -> list[Network]:
    if not texts:
        raise PolicyViolation("a verifier is known by its networks: none given")
    parsed = []
    for text in texts:
        try:
            parsed.append(parse_network(text))
        except ValueError as exc:
            raise PolicyViolation(f"network {text!r}: {exc}") from exc
    return list(dict.fromkeys(parsed))


def _grants(grants: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    if not grants or not all(grants.values()):
        raise PolicyViolation("an agreement's scope names at least one service, each with its kinds")
    for kinds in grants.values():
        for kind in kinds:
            if kind not in KINDS:
                raise PolicyViolation(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    return {service: list(dict.fromkeys(kinds)) for service, kinds in grants.items()}


def _check_days(from_day: int | None, until_day: int | None) -> None:
    for day in (from_day, until_day):
        if day is not None and not 0 <= day <= _DAY_MAX:
            raise PolicyViolation(f"a day is counted from 1970-01-01, 0..{_DAY_MAX}; found {day}")
    if from_day is not None and until_day is not None and until_day < from_day:
        raise PolicyViolation(f"the agreement ends on day {until_day}, before it starts on {from_day}")


def _check_services(connection: sa.Connection, grants: Mapping[str, Sequence[str]]) -> None:
    known = set(connection.execute(sa.select(schema.issuer.c.service).distinct()).scalars())
    for service in grants:
        if service not in known:
            raise PolicyViolation(f"no issuer of {service}")


def _refuse_taken(
    connection: sa.Connection, networks: Sequence[Network], from_day: int | None, until_day: int | None
) -> None:
    for record in _read(connection):
        other = record.verifier
        if record.ended_seq is not None or not _overlap(other, from_day, until_day):
            continue
        for network in networks:
            if network in other.networks:
                raise PolicyViolation(
                    f"network {network} is that of verifier {other.verifier_id}, {other.name}"
                )


def _overlap(other: Verifier, from_day: int | None, until_day: int | None) -> bool:
    starts_in_time = from_day is None or other.until_day is None or from_day <= other.until_day
    ends_in_time = until_day is None or other.from_day is None or other.from_day <= until_day
    return starts_in_time and ends_in_time
