"""A running installation whose second issuer holds and releases, and what the lists of a scope must say.

What happens to its certificates, and when CRLs are made, is written down here; what each CRL must
then list is told from the log of changes by rules of its own.  The CRLs themselves are fetched.
Knows: the acts, the numbers of the CRLs made after them.  Does not know: how a CRL is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

import sqlalchemy as sa
from cryptography import x509
from demo_service import Service, service_of
from served_installation import Served

from certstatus import clock
from certstatus.changes import ChangeKind, fingerprint
from certstatus.config import load_config
from certstatus.publisher_key import load_index_key
from issuance import revoke, schema
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import IssuerRecord, issuers
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_scopes import CRLScope
from publisher.lease import held

SERVICE = "CORP"
ALL = "all"
# One of two buckets: others' entries must not be on its lists.
PARTITION = "n2/b0"
# Not localhost, which a linter takes for no name that could be in a URI.
BASE_URL = "http://status.example:8080"
CONFIG = f"""
[installation]
state = "."

[[issuer]]
service = "AUTH"
base_url = "{BASE_URL}"
partition_buckets = 4

[[issuer]]
service = "CORP"
base_url = "{BASE_URL}"
access = "public"
hold = true
lapse_period_s = 2
partition = "hash"
partition_buckets = 2
"""
SHORT_LIFE_S = 4
_PATIENCE_S = 20.0


class Entry(NamedTuple):
    """What a list must say of one certificate; times in POSIX seconds."""

    revoked_at_s: int
    reason: int | None
    invalidity_at_s: int | None


class History:
    """Acts and CRLs of CORP, as they are in one scope: ``all`` or ``PARTITION``.

    place               where the scope's CRLs are served
    completes, deltas   numbers of the CRLs made, rising; the first complete one is the builder's
    named               serial numbers by the part they play
    """

    def __init__(self, installation: Served, store: Store, scope: str = ALL) -> None:
        self.installation = installation
        self.scope = scope
        self.place = f"/crl/{SERVICE.lower()}/g1/{scope}"
        self.corp: Service = service_of(installation.state, SERVICE)
        self.named: dict[str, int] = {}
        self._store = store
        self._index_key = load_index_key(installation.state / "secrets" / "index.key")
        self._publisher = CRLPublisher(store, CAKeyFolder(installation.state / "ca"), installation.state)
        self._partition_id = self._scope().partition_id
        self._unused = [serial for serial in self.corp.good if self.is_mine(serial)]

    # --- what happened -----------------------------------------------------------------------------

    @property
    def issuer(self) -> IssuerRecord:
        """CORP as the store knows it."""
        return next(record for record in issuers(self._store) if record.service == SERVICE)

    def is_mine(self, serial: int) -> bool:
        """Say whether a certificate is in the scope, as the register has it."""
        if self.scope == ALL:
            return True
        table = schema.certificate
        with self._store.reading() as connection:
            found = connection.execute(
                sa.select(table.c.scope_id).where(
                    table.c.service == SERVICE, table.c.serial == f"{serial:032x}"
                )
            ).scalar()
        return found == self._partition_id

    def certificate(self) -> x509.Certificate:
        """A certificate that is in the scope."""
        serial = next(serial for serial in self.corp.good if self.is_mine(serial))
        pem = self.installation.run("show", f"{serial:032x}", "--pem").stdout
        return x509.load_pem_x509_certificate(pem.encode())

    def _scopes(self) -> list[CRLScope]:
        return [scope for scope in self._publisher.scopes() if scope.issuer.service == SERVICE]

    def _scope(self) -> CRLScope:
        return next(scope for scope in self._scopes() if scope.name == self.scope)

    @property
    def completes(self) -> list[int]:
        """Numbers of the complete CRLs, rising."""
        return [record.number for record in self._records() if record.kind == "complete"]

    @property
    def deltas(self) -> list[int]:
        """Numbers of the deltas, rising."""
        return [record.number for record in self._records() if record.kind == "delta"]

    def listed_at(self, number: int) -> dict[int, Entry]:
        """What the complete list is at the cut of CRL *number*, by serial number."""
        upto = next(record.seq for record in self._records() if record.number == number)
        found: dict[int, Entry] = {}
        for change in self._store.revocation_changes(self.issuer.issuer_id, 0, upto):
            if not self.is_mine(int.from_bytes(change.serial, "big")):
                continue
            serial, at_s = int.from_bytes(change.serial, "big"), change.recorded_ms // 1000
            if change.kind is ChangeKind.REVOKED:
                found[serial] = Entry(at_s, change.reason or None, change.invalidity_s or None)
            elif change.kind is ChangeKind.HELD:
                found[serial] = Entry(at_s, 6, None)
            elif change.kind is ChangeKind.REASON_CHANGED and serial in found:
                found[serial] = found[serial]._replace(reason=change.reason or None)
            elif change.kind in (ChangeKind.RELEASED, ChangeKind.LAPSED):
                found.pop(serial, None)
        return found

    # --- making it happen --------------------------------------------------------------------------

    def take(self, name: str) -> int:
        """Give a good certificate of the demo a part to play."""
        self.named[name] = self._unused.pop(0)
        return self.named[name]

    def issue_short(self, name: str) -> int:
        """Put a certificate on record that ends in ``SHORT_LIFE_S`` seconds."""
        serial = (1 << 126) + len(self.named)
        octets = serial.to_bytes(16, "big")
        with self._store.writing(clock.now_ms) as act:
            act.record(
                ChangeKind.ISSUED,
                issuer_id=self.issuer.issuer_id,
                serial=octets,
                fingerprint=fingerprint(octets, self._index_key),
                not_after_s=clock.now_s() + SHORT_LIFE_S,
                scope_id=self._partition_id,
            )
        self.named[name] = serial
        return serial

    def found(self, serial: int) -> revoke.FoundCertificate:
        """The store's name for a certificate."""
        return revoke.FoundCertificate(self.issuer.issuer_id, SERVICE, serial.to_bytes(16, "big"))

    def revoke(self, serial: int, reason: int | None = None, invalidity_s: int = 0) -> None:
        """Revoke a certificate."""
        revoke.revoke(self._store, self.found(serial), clock.now_ms, reason=reason, invalidity_s=invalidity_s)

    def hold(self, *serials: int) -> None:
        """Hold certificates."""
        for serial in serials:
            revoke.hold(self._store, self.found(serial), clock.now_ms)

    def release(self, *serials: int) -> None:
        """Release held certificates."""
        for serial in serials:
            revoke.release(self._store, self.found(serial), clock.now_ms)

    def change_reason(self, serial: int, reason: int) -> None:
        """Correct a reason."""
        revoke.change_reason(self._store, self.found(serial), clock.now_ms, reason=reason)

    def publish(self, *, complete: bool = True) -> int:
        """Make a complete CRL and a delta, or a delta alone; wait until they are served.

        Complete ones of the issuer's other scopes too: what has ended leaves once all have listed it.
        """
        with held(crl_lease(self._store), _PATIENCE_S) as fence:
            for scope in self._scopes():
                if scope.name == self.scope:
                    made = self._publisher.issue(scope, Due(complete, True), fence)
                elif complete:
                    self._publisher.issue(scope, Due(True, False), fence)
        for item in made:
            self.wait_for(f"{item.number}.crl" if item.kind == "complete" else f"{item.number}.delta.crl")
        return made[-1].number

    def wait_for(self, name: str) -> None:
        """Wait until a file is served."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self._is_served(name):
            assert time.monotonic() < deadline_s, name
            time.sleep(0.02)

    def _is_served(self, name: str) -> bool:
        try:
            return bool(self.installation.get(f"{self.place}/{name}"))
        except HTTPError as error:
            # Not in the catalogue yet, or beyond what the worker has applied.
            if error.code in (404, 503):
                return False
            raise

    def _records(self) -> list[_Record]:
        return [
            _Record(record.number, record.kind, record.seq)
            for record in self._store.crls(self.issuer.issuer_id, self.scope, state="published")
        ]


class _Record(NamedTuple):
    number: int
    kind: str
    seq: int


def _happen(history: History) -> None:
    """The acts; every rule on deltas has somebody to whom it applies."""
    # The builder's own, of the time before anything happened.
    history.wait_for("1.crl")
    history.wait_for("2.delta.crl")
    now_s = clock.now_s()
    leaked, plain, kept = (history.take(name) for name in ("leaked", "plain", "kept"))
    released, both, again, ended = (history.take(name) for name in ("released", "both", "again", "ended"))
    history.revoke(leaked, 1, now_s - 86_400)
    history.revoke(plain)
    history.hold(released, again, ended, kept)
    history.publish()

    # Seen on a complete CRL, then released; revoked after all; another reason; and one never seen.
    history.release(released, again)
    history.revoke(ended, 4)
    history.change_reason(plain, 5)
    unseen = history.take("unseen")
    history.hold(unseen)
    history.release(unseen)
    history.hold(both)
    history.publish(complete=False)

    # Held on a delta only, released before the next complete CRL; held a second time; and one that ends.
    history.release(both)
    history.hold(again)
    short, long = history.issue_short("short"), history.take("long")
    until_s = clock.now_s() + SHORT_LIFE_S
    history.revoke(short, 3)
    history.revoke(long, 9)
    history.publish(complete=False)
    while clock.now_s() <= until_s + 1:
        time.sleep(0.1)
    history.publish(complete=False)
    # The first complete CRL after its end lists it; the next one need not.
    history.publish()
    history.publish()


@contextmanager
def happened(folder: Path, scope: str) -> Iterator[History]:
    """Make the installation, serve it, and let everything happen in a scope of CORP."""
    installation = Served(folder)
    with ExitStack() as stack:
        stack.callback(installation.clean_up)
        installation.state.mkdir()
        installation.config.write_text(CONFIG)
        installation.run("init")
        installation.run("demo", "--population", "120")
        installation.serve(workers=1)
        store = stack.enter_context(Store.open(load_config(installation.config).store_url))
        history = History(installation, store, scope)
        _happen(history)
        yield history
