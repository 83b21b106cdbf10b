"""An answer path with everything under it, its follower played by hand."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography.x509 import ocsp
from responder_cases import CA, FAR_DAY, INDEX_KEY, SHA1, Clock, everybody, serial_of

from certstatus.changes import NO_REASON, Change, ChangeKind, fingerprint
from certstatus.counters import Provision, read_counters
from certstatus.crl_catalogue import Catalogue, CatalogueEntry
from certstatus.entitlements import Verifier, read_entitlements
from certstatus.entitlements import entitlements_content as content_of
from certstatus.errors import CertStatusError
from certstatus.index import View
from certstatus.issuer_table import Issuer
from responder.answer import AnswerPath, How, Limits
from responder.answers import Answer, Flight
from responder.asker import Asker, Askers
from responder.counting import Counting
from responder.keys import HostKeys, Signer, SignerSet
from responder.signing import SigningDesk
from responder.standing import Access, Standing, nothing_believed

NOW_S = 1_900_000_000
AGE_MAX_S = 60
STAY = How(keep_alive=True)

UNAUTHORIZED = b"\x30\x03\x0a\x01\x06"
TRY_LATER = b"\x30\x03\x0a\x01\x03"
MALFORMED = b"\x30\x03\x0a\x01\x01"
INTERNAL_ERROR = b"\x30\x03\x0a\x01\x02"


class Somebody:
    """A connection from *address*."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.asker: Asker | None = None
        self.is_last = False


class Ground:
    """What a follower gives, set by hand: a standing, and the lock under which it changes."""

    def __init__(self, clock: Clock) -> None:
        self.settled = threading.Lock()
        self.standing: Standing = nothing_believed()
        self.clock = clock
        self.issuers: list[Issuer] = []
        self.verifiers: list[Verifier] = []

    def beat(self, *changes: Change) -> None:
        """What a beat brings: changes in the overlay, a new time, freshness."""
        before = self.standing
        with self.settled:
            for change in changes:
                before.view.apply(change)
            event = any(change.kind == ChangeKind.CA_KEY_EVENT for change in changes)
            self.standing = replace(
                before,
                epoch=b"e" * 16,
                seq=before.seq + len(changes),
                time_ms=self.clock.ms,
                mark=before.mark + bool(changes),
                era=before.era + event,
                fresh_until_s=self.clock.steady_s + AGE_MAX_S,
                wall_from_ms=self.clock.ms - 5000,
                wall_until_ms=self.clock.ms + AGE_MAX_S * 1000,
            )

    def grant(self, *verifiers: Verifier) -> None:
        """New entitlements."""
        self.verifiers = list(verifiers)
        self._swap(0)

    def serve(self, *issuers: Issuer) -> None:
        """A new issuer table."""
        self.issuers = list(issuers)
        self._swap(1)

    def publish(self, *entries: CatalogueEntry) -> None:
        """A new CRL catalogue."""
        with self.settled:
            self.standing = replace(self.standing, catalogue=Catalogue(entries))

    def fold(self) -> None:
        """What a new snapshot does to numbers: rows stay, the changes that made them are forgotten."""
        before = self.standing
        folded = View(None)
        # As if each had been made by a change before all others.
        folded.overlay = {key: (row, 0) for key, (row, _) in before.view.overlay.items()}
        folded.events = before.view.events
        self.standing = replace(before, view=folded, mark=before.mark + 1, era=before.era + 1)

    def _swap(self, era: int) -> None:
        now_s = self.clock.ms // 1000
        entitlements = read_entitlements(content_of(1, self.verifiers), now_s)
        before = self.standing
        with self.settled:
            self.standing = replace(
                before,
                access=Access(entitlements, self.issuers),
                mark=before.mark + era,
                era=before.era + era,
            )

    def change(
        self,
        kind: ChangeKind,
        n: int,
        issuer_id: int = 1,
        reason: int | None = None,
        day: int = FAR_DAY,
        invalidity_s: int = 0,
        sha256: bytes = b"",
    ) -> None:
        """One change and its beat."""
        reason_number = NO_REASON if reason is None else reason
        self.beat(
            Change(
                kind,
                reason_number,
                issuer_id,
                day,
                fingerprint(serial_of(n), INDEX_KEY),
                invalidity_s,
                self.clock.ms,
                self.standing.seq + 1,
                sha256,
            )
        )


class Scene:
    """An answer path with everything under it."""

    def __init__(self, folder: Path, cache_bytes: int = 1 << 22) -> None:
        self.folder = folder
        self.limits = Limits(20, cache_bytes)
        (folder / "counters").mkdir()
        self.clock = Clock(NOW_S * 1000)
        self.ground = Ground(self.clock)
        self.sign, self.auth = CA(1, "SIGN", NOW_S), CA(2, "AUTH", NOW_S)
        for ca in (self.sign, self.auth):
            ca.install_responder(folder / "keys", NOW_S)
        self.ground.serve(self.sign.issuer, self.auth.issuer)
        self.ground.grant(everybody())
        self.ground.beat()
        self.loop = asyncio.new_event_loop()
        self.desk = SigningDesk(self.loop, 10, 10_000_000, 2)
        self.counting = Counting(folder / "counters", "h", 0, 64)
        self.keys = HostKeys(folder)
        self.path = AnswerPath(
            self.ground,
            self.keys.load(),
            Askers(self.counting),
            self.desk,
            INDEX_KEY,
            self.limits,
            self.clock.now_ms,
        )
        self.peer = Somebody()

    def forget(self) -> None:
        """Go on with an answer path over the same ground that remembers nothing."""
        self.path = AnswerPath(
            self.ground,
            self.path.signers,
            Askers(self.counting),
            self.desk,
            INDEX_KEY,
            self.limits,
            self.clock.now_ms,
        )

    def ask_anew(self, der: bytes, peer: Somebody | None = None) -> bytes:
        """The whole HTTP answer of an answer path that remembers nothing."""
        path = self.path
        self.forget()
        try:
            return self.ask(der, peer=peer)
        finally:
            self.path = path
            self.desk.attend(path._fly_here)

    def close(self) -> None:
        """Let go of threads, files and the loop."""
        self.desk.close()
        self.counting.close()
        self.loop.close()

    # --- asking --------------------------------------------------------------------------------------

    def ask(self, der: bytes, how: How = STAY, peer: Somebody | None = None) -> bytes:
        """The whole HTTP answer, however long it takes."""
        peer = peer or self.peer
        reply: bytes | Flight | None = self._answer(der, how, peer)
        while not isinstance(reply, bytes):
            if reply is None:
                reply = self._answer(der, how, peer)
            else:
                landed: list[object] = []
                reply.add(landed.append)
                self.run_until(lambda landed=landed: landed)  # type: ignore[misc]
                result = landed[0]
                reply = self.provide(result, how, peer)
        return reply

    def provide(self, result: object, how: How = STAY, peer: Somebody | None = None) -> bytes | None:
        """The whole HTTP answer for what a flight brought; None if it has to be asked anew."""
        assert isinstance(result, (Answer, CertStatusError))
        return self.path.provide(
            peer or self.peer, result, how, self.clock.now_ms(), self.clock.monotonic_s()
        )

    def keep(self, der: bytes, how: How, peer: Somebody | None = None) -> bytes:
        """The whole HTTP answer to what is asked a third time, from when on it is known byte for byte."""
        for _ in range(2):
            self.ask(der, how, peer)
        return self.ask(der, how, peer)

    def _answer(self, der: bytes, how: How, peer: Somebody) -> bytes | Flight:
        return self.path.answer(peer, der, how, self.clock.now_ms(), self.clock.monotonic_s())

    def again(self, message: bytes, peer: Somebody | None = None) -> bytes | None:
        """What the memo knows; it keeps what was asked three times."""
        return self.path.repeat(peer or self.peer, message, self.clock.now_ms(), self.clock.monotonic_s())

    def run_until(self, holds: Callable[[], object]) -> None:
        """Let the loop turn until *holds*."""

        async def turn() -> None:
            for _ in range(5000):
                if holds():
                    return
                await asyncio.sleep(0.001)
            raise AssertionError("waited in vain")

        self.loop.run_until_complete(turn())

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def ocsp(self, der: bytes, peer: Somebody | None = None) -> ocsp.OCSPResponse:
        """The OCSP response to *der*."""
        return ocsp.load_der_ocsp_response(body(self.ask(der, peer=peer)))

    def status(self, n: int, ca: CA | None = None, alg: int = SHA1) -> str:
        """What is said of test certificate *n*."""
        return self.ocsp((ca or self.sign).request(n, alg=alg)).certificate_status.name

    def counted(self) -> dict[str, int]:
        """What stands in the counter files, by kind."""
        totals: dict[str, int] = {}
        for path in (self.folder / "counters").glob("*.counters"):
            for cell in read_counters(path).cells:
                name = Provision(cell.kind).name
                totals[name] = totals.get(name, 0) + cell.value
        return totals

    def cells(self) -> set[tuple[int, int, str, int]]:
        """Everything counted: (verifier, issuer, kind, value)."""
        return {
            (cell.verifier_id, cell.issuer_id, Provision(cell.kind).name, cell.value)
            for path in (self.folder / "counters").glob("*.counters")
            for cell in read_counters(path).cells
        }

    def tamper(self, act: Callable[[], object], times: int = 1) -> None:
        """Have *act* happen while the next *times* signatures are made."""
        left = [times]

        def wrapped(signer: Signer) -> Signer:
            def sign(tbs: bytes) -> bytes:
                signature = signer.sign(tbs)
                if left[0]:
                    left[0] -= 1
                    act()
                return signature

            return replace(signer, sign=sign)

        self.path.signers = SignerSet([wrapped(signer) for signer in self.path.signers.signers])


def body(answer: bytes) -> bytes:
    """The body of an HTTP answer."""
    return answer.partition(b"\r\n\r\n")[2]


def header(answer: bytes, name: str) -> str | None:
    """One header of an HTTP answer."""
    found = re.search(
        rb"\r\n" + name.encode() + rb": ([^\r]*)\r\n", answer.partition(b"\r\n\r\n")[0] + b"\r\n"
    )
    return None if found is None else found[1].decode()
