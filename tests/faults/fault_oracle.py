"""The oracle of the fault harness: what every collected answer had to say.

An answer is right when it equals the state of the store of record at its thisUpdate.  Times on
the wire are whole seconds, so within that second any state the certificate had is right; before
and after it none other.  And from the moment ``revoke`` has returned, no question asked later may
be answered ``good``.
Knows: only what stands in the store's change log and in the answers' own bytes; uses
``cryptography`` to read and verify them, not our own encoder.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

# (status, revocation time in s, reason name), as an answer states it.
State = tuple[str, int | None, str | None]
GOOD: State = ("GOOD", None, None)
UNKNOWN: State = ("UNKNOWN", None, None)

ISSUED, REVOKED, HELD, RELEASED, LAPSED, REASON_CHANGED = 1, 2, 3, 4, 5, 6
_REASONS = {
    1: "keyCompromise",
    2: "cACompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    6: "certificateHold",
    9: "privilegeWithdrawn",
    10: "aACompromise",
}


@dataclass(slots=True)
class Histories:
    """For each (issuer_id, serial): the times (ms) at which its state changed, and the states; and the CRL
    partition that it is in, beside the whole list, if it is in any."""

    times: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    states: dict[tuple[int, int], list[State]] = field(default_factory=dict)
    partitions: dict[tuple[int, int], str] = field(default_factory=dict)

    def note(self, issuer_id: int, serial: int, kind: int, reason: int | None, recorded_ms: int) -> None:
        """Add one change of the log; call in order of the sequence."""
        if kind == LAPSED:
            return
        key = (issuer_id, serial)
        second = recorded_ms // 1000
        states = self.states.setdefault(key, [])
        if kind in (ISSUED, RELEASED):
            state = GOOD
        else:
            at = states[-1][1] if kind == REASON_CHANGED and states and states[-1][1] else second
            state = ("REVOKED", at, _REASONS.get(reason or 0))
        states.append(state)
        self.times.setdefault(key, []).append(recorded_ms)

    def allowed(self, issuer_id: int, serial: int, this_update_s: int) -> set[State]:
        """Return every state the certificate had at some moment of second *this_update_s*."""
        times = self.times.get((issuer_id, serial), [])
        states = self.states.get((issuer_id, serial), [])
        first = bisect_left(times, this_update_s * 1000)
        after = bisect_left(times, (this_update_s + 1) * 1000)
        before = states[first - 1] if first else UNKNOWN
        return {before, *states[first:after]}


def epochs_at(epochs: list[tuple[int, Histories]], second: int) -> list[Histories]:
    """Return the histories of every epoch that *second* may belong to.

    Two, when one ended and the next began within it: after a clock was set back, the store's time stands
    nearly still, so a restore may take no time at all.
    """
    return [
        histories
        for number, (first_s, histories) in enumerate(epochs)
        if first_s <= second and (number + 1 == len(epochs) or second <= epochs[number + 1][0])
    ]


@dataclass(slots=True)
class Report:
    """What the oracle found."""

    checked: int = 0
    crls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    given: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    # When each checked answer came, monotonic, not in order.
    answered_ns: list[int] = field(default_factory=list)

    def say_wrong(self, text: str) -> None:
        """Note a wrong answer; the first few are enough to understand."""
        if len(self.wrong) < 20:
            self.wrong.append(text)


@dataclass(frozen=True, slots=True)
class Body:
    """What one response says, its signature verified."""

    state: State
    this_update_s: int
    serial: int
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class _Delegate:
    """A responder certificate that its CA has issued for this: its key, and the times it is valid."""

    key: object
    from_at: datetime
    until_at: datetime


class _AskersLog:
    """What one asker has written down, read as it grows: only what is new, whole lines only."""

    def __init__(self, answers: Path) -> None:
        self._answers = _Growing(answers)
        self._bodies = _Growing(answers.with_name(answers.name.replace("answers", "bodies")))
        self._left: list[str] = []
        # Digest -> the answer's octets in hex, until somebody has read it.
        self.unread: dict[str, str] = {}
        self.read: dict[str, Body] = {}

    def upto(self, upto_ns: int) -> Iterator[str]:
        """Give each line once: those of answers that came up to then."""
        # Answers first: an asker that is still at it writes bodies before them.
        lines = self._left + self._answers.lines()
        for line in self._bodies.lines():
            digest, body = line.split()
            self.unread[digest] = body
        self._left = []
        for line in lines:
            if int(line.split(" ", 2)[1]) <= upto_ns:
                yield line
            else:
                self._left.append(line)


class _Growing:
    """The lines of a file that somebody appends to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def lines(self) -> list[str]:
        """Return those that have come since, without their ends."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole, end, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(end)
        return whole.decode().splitlines()


class Checker:
    """Verifies what the askers write into *folder*, each answer once, as often as it is asked.

    Answers are put before histories that were read after they came, so whatever they say is in those, and
    nothing that was right then is wrong later; only "good after revoke" looks back, for ``revoke`` may have
    been written down after the answer.
    """

    def __init__(self, folder: Path, authorities: dict[int, x509.Certificate]) -> None:
        self._folder = folder
        self._authorities = authorities
        self._logs: dict[Path, _AskersLog] = {}
        self._delegates: dict[tuple[int, bytes], _Delegate] = {}
        # Of each certificate, when the last question was sent that was answered good, and that answer.
        self._last_good: dict[tuple[int, int], tuple[int, str]] = {}

    def check(
        self,
        epochs: list[tuple[int, Histories]],
        revoked_ns: dict[tuple[int, int], int],
        upto_ns: int = 1 << 63,
    ) -> Report:
        """Check every answer that has come since the last call, up to *upto_ns*.

        *epochs*: (first thisUpdate in s that belongs to it, its histories), ascending, read after *upto_ns*;
        *revoked_ns*: for each certificate, the monotonic time at which ``revoke`` had returned.
        """
        report = Report()
        for path in sorted(self._folder.glob("answers-*.log")):
            log = self._logs.setdefault(path, _AskersLog(path))
            for line in log.upto(upto_ns):
                self._check_line(line, log, epochs, report)
        for key, returned_ns in revoked_ns.items():
            sent_ns, line = self._last_good.get(key, (0, ""))
            if sent_ns > returned_ns:
                late_ms = (sent_ns - returned_ns) / 1e6
                report.say_wrong(f"{line}: good, asked {late_ms:.1f} ms after revoke had returned")
        return report

    def _check_line(
        self, line: str, log: _AskersLog, epochs: list[tuple[int, Histories]], report: Report
    ) -> None:
        sent_ns, received_ns, issuer_text, serial_hex, outcome, nonce = line.split()
        issuer_id, serial = int(issuer_text), int(serial_hex, 16)
        if outcome == "LOST" or outcome.startswith("STATUS"):
            report.outcomes[outcome] += 1
            report.lost += outcome == "LOST"
            return
        if outcome not in log.read:
            try:
                log.read[outcome] = self._read(issuer_id, bytes.fromhex(log.unread[outcome]))
            except (ValueError, InvalidSignature) as exc:
                report.say_wrong(f"{line}: {exc!r}")
                return
            del log.unread[outcome]
        body = log.read[outcome]
        report.checked += 1
        report.answered_ns.append(int(received_ns))
        report.outcomes[body.state[0]] += 1
        report.given[f"{issuer_id} {body.state[0]}"] += 1
        if body.serial != serial:
            report.say_wrong(f"{line}: the answer is about {body.serial:x}")
        if nonce != "-" and (body.nonce is None or body.nonce.hex() != nonce):
            report.say_wrong(f"{line}: another nonce")
        allowed: set[State] = set()
        for histories in epochs_at(epochs, body.this_update_s):
            allowed |= histories.allowed(issuer_id, serial, body.this_update_s)
        if body.state not in allowed:
            report.say_wrong(f"{line}: says {body.state} at {body.this_update_s}, was {allowed}")
        if body.state == GOOD:
            before = self._last_good.get((issuer_id, serial), (0, ""))
            self._last_good[issuer_id, serial] = max(before, (int(sent_ns), line))

    def _read(self, issuer_id: int, body: bytes) -> Body:
        """Return what *body* says.  Raises: ValueError, InvalidSignature — it says nothing valid."""
        response = ocsp.load_der_ocsp_response(body)
        (certificate,) = response.certificates
        delegate = self._delegate(issuer_id, certificate)
        _verify(delegate.key, response.signature, response.tbs_response_bytes, response)
        if not delegate.from_at <= response.produced_at_utc <= delegate.until_at:
            raise ValueError("producedAt outside the responder certificate's validity")
        assert response.next_update_utc is not None
        if response.next_update_utc > delegate.until_at:
            raise ValueError("nextUpdate beyond the responder certificate")
        status = response.certificate_status.name
        revoked_at = response.revocation_time_utc
        reason = response.revocation_reason
        state: State = (
            status,
            None if revoked_at is None else int(revoked_at.timestamp()),
            None if reason is None else reason.value,
        )
        nonce = None
        for extension in response.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                nonce = extension.value.nonce
        return Body(state, int(response.this_update_utc.timestamp()), response.serial_number, nonce)

    def _delegate(self, issuer_id: int, certificate: x509.Certificate) -> _Delegate:
        key = (issuer_id, certificate.public_bytes(Encoding.DER))
        if key not in self._delegates:
            certificate.verify_directly_issued_by(self._authorities[issuer_id])
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            if list(usage) != [x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]:
                raise ValueError("the signer is no OCSP responder")
            self._delegates[key] = _Delegate(
                certificate.public_key(), certificate.not_valid_before_utc, certificate.not_valid_after_utc
            )
        return self._delegates[key]


def _verify(key: object, signature: bytes, content: bytes, response: ocsp.OCSPResponse) -> None:
    algorithm = response.signature_hash_algorithm
    assert algorithm is not None
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, content, ec.ECDSA(algorithm))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, content, padding.PKCS1v15(), algorithm)
    else:
        raise ValueError("a responder key of an unexpected kind")
