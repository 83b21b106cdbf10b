"""What happens to a worker's world while it answers, each kind by itself and on purpose.

Every act returns how much of it there was, and raises ``NotExercised`` if it did not come about, or not
as fast as it was to: what is measured meanwhile would be of another world.
Knows: making revocations, CRLs, snapshots and keys come to the workers, and seeing that they came.
Does not know: what is measured meanwhile.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from cryptography.hazmat.primitives.serialization import Encoding

from bench.population import GOOD, Population
from bench.under_load import Demo
from certstatus import clock
from certstatus.changes import ChangeKind
from certstatus.cli.context import Installation
from certstatus.cli.waiting import wait
from issuance.issuers import issuer_by_id, issuer_of

SERVICE = "AUTH"
# Revocations come in lots, each one act: a commit for each would bound them by the disk, at some hundred.
_LOTS_PER_S = 20
_RATE_KEPT = 0.95
# Whoever applies the last one this long after it was recorded has not kept up with the others.
_BEHIND_S = 1.0
_FEW_PER_S = 5
_PATIENCE_S = 30.0
_SNAPSHOT = ".idx"

Figures = dict[str, Any]


class NotExercised(Exception):
    """What was to happen did not."""


class World:
    """The world of the workers of *demo*; each certificate of its ``SERVICE`` is revoked once at most."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._installation = Installation(demo.state / "certstatus.toml", as_json=True)
        members = Population.load(demo.state / "demo" / SERVICE.lower()).members
        found = map(members.member, range(len(members)))
        self._good: Iterator[bytes] = (serial for serial, status in found if status == GOOD)

    def close(self) -> None:
        """Let go of the store."""
        self._installation.close()

    def rest(self, seconds: float) -> Figures:
        """Nothing happens."""
        time.sleep(seconds)
        return {}

    def revoke(self, seconds: float, per_s: int) -> Figures:
        """Revoke *per_s* certificates a second, and wait until every worker has applied the last.

        Raises: NotExercised — not so many were recorded in this time, or a worker fell behind.
        """
        issuer_id = issuer_of(self._installation.store, SERVICE).issuer_id
        begun_s, done, seq = time.monotonic(), 0, 0
        while (passed_s := time.monotonic() - begun_s) < seconds:
            due = int((passed_s + 1 / _LOTS_PER_S) * per_s) - done
            lot = list(itertools.islice(self._good, due))
            if len(lot) < due:
                raise NotExercised(f"nobody is left to be revoked after {done} revocations")
            while lot:
                with self._installation.store.writing(clock.now_ms) as act:
                    while lot and not act.is_full:
                        seq = act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=lot.pop()).seq
                        done += 1
            time.sleep(max(0.0, begun_s + done / per_s - time.monotonic()))
        recorded_s = time.monotonic()
        if not wait(self._installation, seq, _BEHIND_S).is_complete:
            raise NotExercised(f"change {seq} was not applied within {_BEHIND_S:g} s")
        behind_s, per_s_done = time.monotonic() - recorded_s, done / (recorded_s - begun_s)
        if per_s_done < _RATE_KEPT * per_s:
            raise NotExercised(f"{per_s_done:.0f} revocations a second were recorded, not {per_s}")
        return {"revoked": done, "per_s": round(per_s_done), "applied_after_ms": round(behind_s * 1000)}

    def publish(self, seconds: float) -> Figures:
        """Publish all CRLs again and again.

        Raises: NotExercised — a worker goes on handing out the one before.
        """
        before = self._delta_crl()
        times = _again(seconds, lambda: self._demo.run("publish", "now", "--all"))
        _until(lambda: self._delta_crl() != before, "no new CRL was handed out")
        return {"times": times}

    def swap_snapshots(self, seconds: float) -> Figures:
        """Change something all the time, so that a new snapshot is always due.

        Raises: NotExercised — none was swapped in.
        """
        before = self._mapped()
        self.revoke(seconds, _FEW_PER_S)
        _until(lambda: bool(self._mapped() - before), "no snapshot was swapped in")
        return {"last": max(self._mapped() - before)}

    def renew_keys(self, seconds: float) -> Figures:
        """Give each issuer another responder key, while the one before stays good, again and again.

        Raises: NotExercised — a worker goes on signing with the one before.
        """
        return {"times": _again(seconds, lambda: self._for_each_issuer(self._renew))}

    def drop_keys(self, seconds: float) -> Figures:
        """Drop the responder certificates in use, and with them every answer that they signed.

        The one before takes its place; where there is none it is ``tryLater`` until the agent brings another.

        Raises: NotExercised — nothing came in place of one.
        """
        return {"times": _again(seconds, lambda: self._for_each_issuer(self._drop))}

    def _for_each_issuer(self, act: Callable[[int, str], None]) -> None:
        for issuer in self._demo.status()["issuers"]:
            issuer_id, old = issuer["issuer_id"], issuer["signer_serial"]
            act(issuer_id, old)
            _until(
                lambda issuer_id=issuer_id, old=old: self._signer(issuer_id) not in (old, None),  # type: ignore[misc]
                f"issuer {issuer_id}: nothing came in place of responder certificate {old}",
            )

    def _renew(self, issuer_id: int, _old: str) -> None:
        with tempfile.TemporaryDirectory(dir=self._demo.state) as name:
            request, certificate, ca = (Path(name) / file for file in ("request", "certificate", "ca.pem"))
            issuer = issuer_by_id(self._installation.store, issuer_id)
            ca.write_bytes(issuer.ca_certificate.public_bytes(Encoding.PEM))
            request.write_text(self._demo.run("responder-cert", "request", str(issuer_id), "--new"))
            certificate.write_text(self._demo.run("responder-cert", "issue", str(request)))
            words = ("install", str(certificate), "--ca", str(ca), "--issuer-id", str(issuer_id))
            self._demo.run("responder-cert", *words)

    def _drop(self, issuer_id: int, old: str) -> None:
        self._demo.run("responder-cert", "drop", str(issuer_id), old)

    def _signer(self, issuer_id: int) -> str | None:
        """The serial number of the responder certificate that the worker signs with now."""
        issuers = self._demo.status()["issuers"]
        found: list[str | None] = [
            item["signer_serial"] for item in issuers if item["issuer_id"] == issuer_id
        ]
        return found[0]

    def _mapped(self) -> set[str]:
        """The snapshot files that the worker has mapped now."""
        lines = Path(f"/proc/{self._demo.worker_pids[0]}/maps").read_text().splitlines()
        return {Path(line.split()[-1]).name for line in lines if line.endswith(_SNAPSHOT)}

    def _delta_crl(self) -> bytes:
        """The delta CRL that is handed out, nothing where the first one is yet to be made."""
        try:
            return self._demo.fetch(f"/crl/{SERVICE.lower()}/g1/all/delta.crl")
        except HTTPError:
            return b""


def _again(seconds: float, act: Callable[[], object]) -> int:
    """Act until *seconds* are over, once at least; return how often."""
    until_s, times = time.monotonic() + seconds, 0
    while times == 0 or time.monotonic() < until_s:
        act()
        times += 1
    return times


def _until(is_so: Callable[[], bool], complaint: str) -> None:
    give_up_s = time.monotonic() + _PATIENCE_S
    while not is_so():
        if time.monotonic() > give_up_s:
            raise NotExercised(complaint)
        time.sleep(0.2)
