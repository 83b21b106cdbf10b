"""What each step of the answer path costs: the table at the head of ``responder/answer.py``.

    python -m bench.steps [--certificates 1000000] [--repeats 15] [--out FILE]

The real path over real parts in this process: a mapped index, a responder key and its certificate,
entitlements, a counter file; one certificate, everything warm, nothing on the network, and all within
one second, as nearly all requests are.  CPU time of the least of many repeats, automatic collection
off as in a worker, less what calling nothing costs.  A step that cannot be called by itself is the
difference of two that can.  A whole answer costs more than its steps, which by themselves have the
processor's nearest caches to themselves.

Knows: which calls make up a step.  Does not know: what a step should cost.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.generated_rows import sorted_blocks
from bench.population import Generated
from bench.prepared import Form, Preparer
from bench.under_load import what, write_record
from certstatus import clock
from certstatus.counters import Provision
from certstatus.crl_catalogue import Catalogue
from certstatus.entitlements import KINDS, Entitlements, Verifier, parse_network
from certstatus.errors import CertStatusError
from certstatus.index import Snapshot, View
from certstatus.issuer_table import Issuer
from certstatus.key_kinds import generate_key
from certstatus.ocsp_request import read_usual_request
from certstatus.snapshot_writer import IssuerHead, new_snapshot
from responder.answer import AnswerPath, How, Limits
from responder.answers import Answer, Flight, Query
from responder.asker import Asker, Askers
from responder.counting import Counting
from responder.keys import HostKeys
from responder.nonce_budget import NonceBudget
from responder.plain import Plain, decode_path, recognise
from responder.signing import LOT, SigningDesk
from responder.standing import Access, Standing
from responder.status import look_up
from responder.terms import issuer_of

_ADDRESS = "127.0.0.1"
_ISSUER_ID, _VERIFIER_ID = 1, 7
_INDEX_KEY = bytes(range(32))
_LIFE_DAYS = 365
_FOR_EVER = 1 << 60
# How long one repeat takes, about: far above the clock's own cost, far below a second.
_REPEAT_S = 0.02
_HEAD_MAX, _BODY_MAX = 16_384, 65_536
# The third certificate that was generated; the first is revoked.
_MEMBER = 3


class _Peer:
    """A connection."""

    def __init__(self) -> None:
        self.address = _ADDRESS
        self.asker: Asker | None = None
        self.is_last = False


class _Follower:
    """A follower of nothing: what it believes stands."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.settled = Lock()


class Setting:
    """An answer path with everything under it; close ``stack`` when done.

    Takes: *folder*, empty; so many *certificates* in the index; the responder key's *algorithm*.
    """

    def __init__(self, folder: Path, certificates: int, algorithm: str) -> None:
        self.stack = ExitStack()
        self.now_ms, self.monotonic_s = clock.now_ms(), clock.monotonic_s()
        now_s = self.now_ms // 1000
        self.people = Generated(certificates, bytes(16), 10)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        self.ca = _certificate("BENCH CA", ca_key.public_key(), ca_key, now_s, is_ca=True)
        issuer = _issuer(self.ca)
        self.keys = HostKeys(folder / "host")
        key = generate_key(algorithm)
        delegate = _certificate("OCSP responder", key.public_key(), ca_key, now_s, is_ca=False)
        der = delegate.public_bytes(serialization.Encoding.DER)
        self.signer = self.keys.adopt(issuer, der, key, now_s)
        networks = (parse_network("127.0.0.0/8"),)
        verifier = Verifier(_VERIFIER_ID, "bench", networks, {issuer.service: KINDS})
        self.standing = Standing(
            epoch=bytes(16),
            seq=1,
            time_ms=self.now_ms,
            mark=1,
            era=1,
            view=View(self._snapshot(folder, now_s)),
            access=Access(Entitlements(1, [verifier], now_s), [issuer]),
            catalogue=Catalogue(),
            fresh_until_s=_FOR_EVER,
            wall_from_ms=0,
            wall_until_ms=_FOR_EVER,
        )
        self.loop = asyncio.new_event_loop()
        self.stack.callback(self.loop.close)
        self.desk = SigningDesk(self.loop, 100, _FOR_EVER, 1)
        self.stack.callback(self.desk.close)
        (folder / "counters").mkdir()
        counting = Counting(folder / "counters", "bench", 0, 64)
        self.stack.callback(counting.close)
        self.askers = Askers(counting)
        self.peer = _Peer()
        self.path = AnswerPath(
            _Follower(self.standing),
            self.keys.load(),
            self.askers,
            self.desk,
            _INDEX_KEY,
            Limits(20, 1 << 26),
            lambda: self.now_ms,
        )

    def _snapshot(self, folder: Path, now_s: int) -> Snapshot:
        path = folder / "index.idx"
        ends_day = clock.jst_day_number(now_s) + _LIFE_DAYS
        with new_snapshot(path, bytes(16), 1, now_s * 1000, bytes(32), [IssuerHead(_ISSUER_ID)]) as writer:
            for block in sorted_blocks(self.people, _INDEX_KEY, ends_day, now_s - 86_400, (), folder):
                writer.add(block)
            writer.end_issuer()
        return Snapshot(path)

    def ask(self, der: bytes, how: How, times: int = 1) -> list[bytes]:
        """Return the HTTP answers to *der*, asked so many times before the loop turns, once."""
        given: list[bytes] = []

        def take(result: Answer | CertStatusError) -> None:
            given.append(_whole(self.path.provide(self.peer, result, how, self.now_ms, self.monotonic_s)))

        for _ in range(times):
            reply = self.path.answer(self.peer, der, how, self.now_ms, self.monotonic_s)
            if isinstance(reply, Flight):
                reply.add(take)
            else:
                given.append(_whole(reply))
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        return given

    def question(self, *, nonce: bool = False) -> tuple[bytes, bytes]:
        """Return (HTTP request, OCSP request) about one certificate that is good."""
        preparer = Preparer(Form("GET", nonce=nonce), self.ca, "ocsp.example")
        message = preparer.http([self.people.member(_MEMBER)[0]])
        plain = recognise(message, _HEAD_MAX, _BODY_MAX)
        assert isinstance(plain, Plain)
        assert plain.path is not None
        return message, decode_path(plain.path)


def _certificate(
    name: str,
    public_key: CertificatePublicKeyTypes,
    ca_key: ec.EllipticCurvePrivateKey,
    now_s: int,
    *,
    is_ca: bool,
) -> x509.Certificate:
    subject, ca_name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, "BENCH CA")
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca_name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now_s - 86_400, UTC))
        .not_valid_after(datetime.fromtimestamp(now_s + _LIFE_DAYS * 86_400, UTC))
    )
    if is_ca:
        builder = builder.add_extension(x509.BasicConstraints(True, 0), True)
    else:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        builder = builder.add_extension(usage, False).add_extension(x509.OCSPNoCheck(), False)
    return builder.sign(ca_key, hashes.SHA256())


def _issuer(ca: x509.Certificate) -> Issuer:
    spki_der = ca.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Issuer(
        issuer_id=_ISSUER_ID,
        service="BENCH",
        generation=1,
        names_der=(ca.subject.public_bytes(),),
        spki_der=spki_der,
        key_id=hashlib.sha1(spki_der).digest(),
        certificates_der=(ca.public_bytes(serialization.Encoding.DER),),
    )


class Stopwatch:
    """Takes the CPU time of a call, microseconds: the least of *repeats*, less what calling nothing takes."""

    def __init__(self, repeats: int, repeat_s: float = _REPEAT_S) -> None:
        self._repeats = repeats
        self._repeat_s = repeat_s
        self._nothing_us = 0.0
        self._nothing_us = self.us(lambda: None)

    def us(self, call: Callable[[], object]) -> float:
        """Return what one *call* takes."""
        count = max(1, int(self._repeat_s / max(1e-8, _passes_s(call, 100) / 100)))
        least_s = min(_passes_s(call, count) for _ in range(self._repeats))
        return max(0.0, least_s / count * 1e6 - self._nothing_us)


def _passes_s(call: Callable[[], object], count: int) -> float:
    passes = itertools.repeat(None, count)
    begun_s = time.process_time()
    for _ in passes:
        call()
    return time.process_time() - begun_s


def steps(setting: Setting, watch: Stopwatch) -> dict[str, float]:
    """Return what each step costs by the name that it has in the table, then what several cost together."""
    path, peer, standing, askers = setting.path, setting.peer, setting.standing, setting.askers
    now_ms, monotonic_s = setting.now_ms, setting.monotonic_s
    now_s = now_ms // 1000
    message, der = setting.question()
    _, nonce_der = setting.question(nonce=True)
    keep, forget = How(keep_alive=True, message=message), How(keep_alive=True)
    # The first signs, the second is met in the second cache and kept under its octets.
    for _ in range(3):
        setting.ask(der, keep)
    asker, request = peer.asker, read_usual_request(der)
    assert asker is not None
    assert request is not None
    served = standing.access.by_id[_ISSUER_ID]
    row = askers.row(asker, _ISSUER_ID, standing, now_s)
    assert row is not None
    serial = request.cert_ids[0].serial
    query = Query(der, request, _ISSUER_ID, request.cacheable)
    draft, answer = path._draft(query, standing, now_s), path._known(der, standing, now_s)
    assert answer is not None
    tbs, signature, budget = draft.tbs, setting.signer.sign(draft.tbs), NonceBudget()
    cells = asker.cells

    def count() -> None:
        cells[row + Provision.GOOD] += 1

    def finished() -> Answer:
        made = path._draft(query, standing, now_s)
        path._finish(query, made, signature, now_s)
        return made

    def repeated() -> bytes | None:
        return path.repeat(peer, message, now_ms, monotonic_s)

    assert repeated() is not None
    us = watch.us
    fresh = us(lambda: standing.is_fresh(now_ms, monotonic_s))
    found = us(lambda: look_up(standing.view, served, path._fingerprint(serial)))
    drafted, counted = us(lambda: path._draft(query, standing, now_s)), us(count)
    return {
        "fresh?": fresh,
        "who is asking": us(lambda: path._admit(peer, standing, now_ms, monotonic_s)) - fresh,
        "entitled?": us(lambda: askers.row(asker, _ISSUER_ID, standing, now_s)),
        "seen verbatim?": us(repeated),
        "known?": us(lambda: path._known(der, standing, now_s)),
        "parse": us(lambda: read_usual_request(der)),
        "which issuer": us(lambda: issuer_of(request, standing.access)),
        # So large a budget that a clock standing still never spends it.
        "own signature?": us(lambda: budget.take(_VERIFIER_ID, _FOR_EVER, monotonic_s)),
        "look up": found,
        "say": drafted - found,
        "sign": us(lambda: setting.desk.sign_lot([(setting.signer, tbs)])),
        "look up again": us(finished) - drafted,
        "count": counted,
        "write": us(lambda: path._give(asker, row, answer, forget, now_s)) - counted,
        "recognise HTTP": us(lambda: recognise(message, _HEAD_MAX, _BODY_MAX)),
        "a known answer": us(lambda: path.answer(peer, der, forget, now_ms, monotonic_s)),
        "a signed answer": us(lambda: setting.ask(nonce_der, forget, LOT)) / LOT,
    }


def _whole(answer: bytes | None) -> bytes:
    if answer is None or b"200 OK" not in answer[:20] or len(answer) < 500:
        raise RuntimeError(f"no answer was given: {answer!r}")
    return answer


def measure(certificates: int, algorithm: str, repeats: int, repeat_s: float = _REPEAT_S) -> dict[str, Any]:
    """Return the record of a whole run, without ``what``."""
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        setting = Setting(Path(name), certificates, algorithm)
        if not setting.signer.is_fast:
            raise ValueError(f"{algorithm}: signs on a thread, whose steps are others")
        with setting.stack:
            gc.collect()
            gc.freeze()
            gc.disable()
            try:
                found = steps(setting, Stopwatch(repeats, repeat_s))
            finally:
                gc.enable()
                gc.unfreeze()
    return {
        "certificates": certificates,
        "algorithm": algorithm,
        "unit": "CPU microseconds, least of the repeats",
        "steps": {step: round(us, 2) for step, us in found.items()},
    }


def main() -> None:
    """Measure, write the record, print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--certificates", type=int, default=1_000_000, help="in the index")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = f"python -m bench.steps --certificates {arguments.certificates} --repeats {arguments.repeats}"
    record = {"what": what(command), **measure(arguments.certificates, "p256", arguments.repeats)}
    for step, us in record["steps"].items():
        print(f"{step:18}{us:6.2f} µs")
    print(f"record: {write_record('steps', record, arguments.out)}", file=sys.stderr)


if __name__ == "__main__":
    main()
