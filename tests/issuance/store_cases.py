"""Small certificates and issuers for tests of the store alone."""

from __future__ import annotations

import sqlalchemy as sa

from certstatus.changes import ChangeKind, fingerprint
from issuance import schema
from issuance.act import Act, RecordedChange
from issuance.store import Store

START_MS = 1_800_000_000_000
NOT_AFTER_S = 1_900_000_000
INDEX_KEY = bytes(range(32))


def add_issuer(store: Store, issuer_id: int = 1, service: str = "SIGN", generation: int = 1) -> int:
    """Write an issuer's line without a key behind it: enough for the store."""
    with store.writing(START_MS) as act:
        act.connection.execute(
            sa.insert(schema.issuer).values(
                issuer_id=issuer_id,
                service=service,
                generation=generation,
                key_algorithm="p256",
                name_der=service.encode(),
                spki_der=f"{service} {generation}".encode(),
                key_id=bytes(20),
                policy="{}",
                created_seq=act.seq + 1,
            )
        )
        act.record(ChangeKind.ISSUERS)
    return issuer_id


def number(n: int) -> bytes:
    """The content octets of a test certificate's serial number."""
    return b"\x01" + n.to_bytes(7, "big")


def mark(n: int) -> bytes:
    """The fingerprint of test certificate *n*."""
    return fingerprint(number(n), INDEX_KEY)


def record_issued(act: Act, n: int, issuer_id: int = 1, not_after_s: int = NOT_AFTER_S) -> RecordedChange:
    """Record test certificate *n* as issued."""
    return act.record(
        ChangeKind.ISSUED,
        issuer_id=issuer_id,
        serial=number(n),
        fingerprint=mark(n),
        not_after_s=not_after_s,
    )


class Steady:
    """A monotonic clock that goes on by *step_s* whenever it is asked."""

    def __init__(self, step_s: float) -> None:
        self.passed_s = -step_s
        self._step_s = step_s

    def __call__(self) -> float:
        self.passed_s += self._step_s
        return 1000.0 + self.passed_s
