"""A responder host whose CRLs come through Valkey, over a link that can be held up, and who reads them there.

::

    publisher, SQLite ── Valkey ── link (a proxy) ── host: agent, worker ── reader, in the harness

Knows: setting the two up, beginning a transfer and holding it up while pieces of it lie in Valkey, every CRL
that the host has served, and when it is current.
Does not know: which fault comes when.
"""

from __future__ import annotations

import hashlib
import http.client
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from cryptography import x509
from fault_installation import HOST_CONFIG, FaultInstallation
from fault_load import authorities, histories
from fault_oracle import Histories
from fault_proxy import FaultProxy
from fault_scene import ALONE, Prepared
from fault_servers import ValkeyServer

from certstatus import clock
from certstatus.changes import ChangeKind, fingerprint
from certstatus.config import load_config
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.publisher_key import load_index_key
from issuance.crl_register import CRLRecord
from issuance.issuers import issuer_of
from issuance.store import Store

SERVICE = "CORP"
_PATHS = {kind: f"/crl/corp/g1/all/{kind}.crl" for kind in (COMPLETE, DELTA)}
_ASK_AGAIN_S = 0.02
_PATIENCE_S = 60.0
# So late everything comes over the link while a transfer is held up: long enough to find it so.
_LATE_S = 0.25
_CERTIFICATES = 2000


class Served(NamedTuple):
    """What the host gave for its newest CRL of a kind, and had not given just before."""

    kind: str
    content: bytes


class Reader(Thread):
    """Asks one host for its CRLs, over and over."""

    def __init__(self, port: int) -> None:
        super().__init__(name="reader", daemon=True)
        self._port = port
        self._over = Event()
        self._last: dict[str, bytes] = {}
        self.served: list[Served] = []
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        while not self._over.wait(_ASK_AGAIN_S):
            for kind, path in _PATHS.items():
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
                try:
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):
                    # Killed just now; half an answer is none, for its length is told before.
                    continue
                finally:
                    connection.close()
                self.statuses[answer.status] += 1
                if answer.status == http.HTTPStatus.OK and self._last.get(kind) != content:
                    self._last[kind] = content
                    self.served.append(Served(kind, content))

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        self.join(20)


class Fetching:
    """Publisher, Valkey and host, all running, with a reader."""

    def __init__(self, folder: Path, prepared: Prepared) -> None:
        self.valkey = ValkeyServer(folder / "valkey")
        self.link = FaultProxy(self.valkey.port)
        for name in ("kiyose", "osaka"):
            (folder / name).mkdir()
        url = "redis://127.0.0.1:{}"
        self.publisher = FaultInstallation(folder / "kiyose", valkey_url=url.format(self.valkey.port))
        self.host = FaultInstallation(
            folder / "osaka", valkey_url=url.format(self.link.port), config=HOST_CONFIG, workers=1
        )
        self.reader = Reader(self.host.port)
        self.publisher.adopt(prepared.state(ALONE))
        self._store = Store.open(load_config(self.publisher.config).store_url)
        try:
            self._start()
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        config = load_config(self.publisher.config)
        self._issuer_id = issuer_of(self._store, SERVICE).issuer_id
        self._serials = self._issue(load_index_key(config.state / "secrets" / "index.key"))
        self._revoke(_CERTIFICATES // 2)
        self.host.enroll_at(self.publisher)
        self.publisher.serve("--only", "publisher")
        self.host.serve("--only", "responder")
        self.host.wait_ready()
        self.reader.start()
        self.publish()
        self.wait_current()

    def _issue(self, index_key: bytes) -> list[bytes]:
        # In the register alone, at once: it is the CRLs that are to have some size.
        serials = [b"\x01" + number.to_bytes(15, "big") for number in range(_CERTIFICATES)]
        with self._store.writing(clock.now_ms()) as act:
            for serial in serials:
                act.record(
                    ChangeKind.ISSUED,
                    issuer_id=self._issuer_id,
                    serial=serial,
                    fingerprint=fingerprint(serial, index_key),
                    not_after_s=clock.now_s() + 1_000_000,
                )
        return serials

    def _revoke(self, count: int) -> None:
        with self._store.writing(clock.now_ms()) as act:
            for _ in range(count):
                act.record(
                    ChangeKind.REVOKED, issuer_id=self._issuer_id, serial=self._serials.pop(), reason=1
                )

    # --- transfers -------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Publish a complete CRL and a delta that nobody has yet."""
        self._revoke(2)
        self.publisher.run("publish", "now", "--all", "--service", SERVICE)

    @contextmanager
    def in_mid_transfer(self) -> Iterator[list[str]]:
        """Publish; within the block a complete CRL that the host has asked for lies in Valkey, on its way.

        Gives the keys of its pieces.
        """
        self.link.delay_s = _LATE_S
        try:
            self.publish()
            yield self._wait_for_pieces()
        finally:
            self.link.heal()

    def _wait_for_pieces(self) -> list[str]:
        sha256 = self._published(COMPLETE)[-1].sha256
        assert sha256 is not None
        until = time.monotonic() + _PATIENCE_S
        with self.valkey.client() as client:
            while not (found := client.keys(f"*:crls:file:{sha256.hex()}:*")):
                assert time.monotonic() < until, "the host does not ask for it"
                time.sleep(0.005)
        return [key.decode() for key in found]

    # --- what must hold --------------------------------------------------------------------------------

    def wait_current(self) -> None:
        """Wait until the host serves what is the newest of both kinds now, or newer ones."""
        newest = {kind: self._published(kind)[-1].number for kind in _PATHS}
        until = time.monotonic() + _PATIENCE_S
        while not all(self._number_served(kind) >= number for kind, number in newest.items()):
            assert time.monotonic() < until, self.host.troubles()
            time.sleep(0.05)

    def wait_for_answers(self, count: int) -> None:
        """Wait until the reader has been answered so many times more, whatever it was."""
        until = time.monotonic() + _PATIENCE_S
        wanted = self.reader.statuses.total() + count
        while self.reader.statuses.total() < wanted:
            assert time.monotonic() < until, "the host does not answer"
            time.sleep(0.02)

    def _number_served(self, kind: str) -> int:
        served = [item.content for item in list(self.reader.served) if item.kind == kind]
        return _number(x509.load_der_x509_crl(served[-1])) if served else -1

    def _published(self, kind: str | None = None) -> list[CRLRecord]:
        """Return the register's lines of what was out, the newest last."""
        records = self._store.crls(self._issuer_id, "all", kind=kind)
        return [record for record in records if record.published_ms is not None]

    def wrong(self) -> list[str]:
        """Return what was not right of all that was served so far.

        Each was published, octet for octet; of a kind none came after a newer one.
        """
        published = {(record.kind, record.number, record.sha256) for record in self._published()}
        found = []
        last = dict.fromkeys(_PATHS, -1)
        for kind, content in list(self.reader.served):
            crl = x509.load_der_x509_crl(content)
            number = _number(crl)
            if (kind, number, hashlib.sha256(content).digest()) not in published:
                found.append(f"{kind}: {number} was never published so")
            if number < last[kind]:
                found.append(f"{kind}: {number} after {last[kind]}")
            last[kind] = number
        return found

    def histories(self) -> Histories:
        """Return what the CRLs must say."""
        return histories(self.publisher)

    def authorities(self) -> dict[int, x509.Certificate]:
        """Return the CA certificate of each issuer."""
        return authorities(self.publisher)

    def end(self) -> None:
        """Take everything down."""
        if self.reader.is_alive():
            self.reader.end()
        self.host.end()
        self.publisher.end()
        self._store.close()
        self.link.end()
        self.valkey.kill()


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
