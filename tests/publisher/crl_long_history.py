"""A long random history of an installation with two services, and what every CRL of it must say.

Acts come from writers of their own, at the same time as a publisher process makes CRLs; that process is
killed at any moment, CAs get new keys, the installation is restored from backups, with the replaced store
at hand or lost.  Everything that was ever published is collected as it comes.

The oracle reads the change log alone, by rules of its own, and CRLs are read by `cryptography` and, for
a sample, by OpenSSL.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from crl_cases import COMPLETE, DELTA, short_periods
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus.changes import ChangeKind, fingerprint
from certstatus.crl import ParsedCRL, parse_certificate_list
from certstatus.crl_combine import combine
from certstatus.crl_entry import CRLEntry
from certstatus.crl_lint import lint
from certstatus.crl_reason import CRLReason
from certstatus.errors import IllegalTransition, PolicyViolation, UnknownCertificate
from issuance import schema
from issuance.backup import backup
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import IssuerRecord, create_issuer, issuers
from issuance.restore import restore
from issuance.store import Store
from publisher.crl_scopes import CRLScope

_HERE = Path(__file__).parent
_SERVICES = {"SIGN": False, "PARTNER": True}
_WRITERS = 2
_GENERATIONS_MAX = 3

# serial -> (revocationDate, reason)
Told = dict[int, tuple[int, int | None]]


class Published(NamedTuple):
    """A CRL that was out; ``key`` names the CA key."""

    key: bytes
    number: int
    kind: str
    seq: int
    der: bytes
    parsed: ParsedCRL
    told: Told


@dataclass
class Tally:
    """What a history has had of each, so that a test can say that it had enough."""

    acts: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    crls: int = 0
    by_openssl: int = 0
    removed_by_delta: int = 0


class LongHistory:
    """One installation and its past."""

    def __init__(self, folder: Path, url: str, seed: int) -> None:
        self.numbers = random.Random(seed)
        self.folder, self.url = folder, url
        self.state = folder / "state"
        self.tally = Tally()
        self.steps = 0
        self.clock = Clock()
        self.keys = CAKeyFolder(self.state / "ca", environment={})
        self.keys.make_passphrase()
        (self.state / "secrets").mkdir(mode=0o700)
        for name, content in (("index.key", INDEX_KEY), ("publisher.key", b"secret")):
            (self.state / "secrets" / name).write_bytes(content)
            (self.state / "secrets" / name).chmod(0o600)
        (self.state / "certstatus.toml").write_text("# configuration\n")
        self.store = Store.create(url, START_MS)
        self.writers = [Store.open(url) for _ in range(_WRITERS)]
        self.serials: dict[int, list[bytes]] = defaultdict(list)
        self.issued = 0
        # (number of the sequence, serial, kind): what the writers were told is recorded, in this epoch.
        self.acknowledged: list[tuple[int, bytes, ChangeKind]] = []
        # (CA key, number, kind) -> CRL; those not judged yet are in the other one.
        self.seen: dict[tuple[bytes, int, str], Published] = {}
        self.unjudged: list[Published] = []
        self.last_backup: Path | None = None
        self.publisher: subprocess.Popen[str] | None = None
        for service in _SERVICES:
            self._new_key(service)
        self._backup()

    def close(self) -> None:
        """End the publisher and close the store."""
        self._kill()
        for store in (self.store, *self.writers):
            store.close()

    # --- the history -----------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Do *steps* steps and judge everything published."""
        self.steps += steps
        # Each of these at least once, however short it is; the rest is chance.
        planned = {steps // 4: "crash", steps // 3: "new key", steps // 2: "restore", steps * 3 // 4: "crash"}
        with ThreadPoolExecutor(_WRITERS) as pool:
            for step in range(steps):
                self.clock.pass_s(self.numbers.choice((0.3, 5, 20, 60, 130, 400)))
                what = planned.get(step) or self._what_happens()
                if what == "crash":
                    self._crash(pool)
                elif what == "new key":
                    self._new_key(self.numbers.choice(list(_SERVICES)))
                elif what == "backup":
                    self._backup()
                elif what == "restore":
                    self._restore()
                else:
                    self._publish(pool)
                self._collect()
        self._judge()

    def _what_happens(self) -> str:
        """Return something at random, mostly that something is published."""
        chance = self.numbers.random()
        for what, below in (("crash", 0.008), ("new key", 0.012), ("backup", 0.016), ("restore", 0.0195)):
            if chance < below:
                return what
        return "publish"

    def _publish(self, pool: ThreadPoolExecutor) -> None:
        """Have the publisher do something while the writers do."""
        if self.publisher is None:
            self._start()
        self._tell()
        writing = self._write(pool)
        line = self._answer()
        for each in writing:
            each.result()
        assert not line["failed"], line["failed"]
        self.clock.ms = max(self.clock.ms, line["now_ms"])
        self.tally.acts["published"] += 1

    def _tell(self) -> None:
        order: dict[str, object] = {"now_ms": self.clock.ms, "steady_s": self.clock.steady_s, "do": "due"}
        if self.numbers.random() < 0.15:
            scope = CRLScope(self.numbers.choice(issuers(self.store)))
            order |= {"do": "issue", "path": scope.path, "complete": self.numbers.random() < 0.5}
        assert self.publisher is not None
        assert self.publisher.stdin is not None
        self.publisher.stdin.write(json.dumps(order) + "\n")
        self.publisher.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self.publisher is not None
        assert self.publisher.stdout is not None
        line = self.publisher.stdout.readline()
        assert line, "the publisher ended by itself"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _crash(self, pool: ThreadPoolExecutor) -> None:
        """Kill the publisher somewhere in its work, and begin another at the next step."""
        if self.publisher is None:
            self._start()
        self._tell()
        writing = self._write(pool)
        time.sleep(self.numbers.uniform(0, 0.06))
        self._kill()
        for each in writing:
            each.result()
        self.tally.acts["crash"] += 1

    def _start(self) -> None:
        self.publisher = subprocess.Popen(
            [sys.executable, str(_HERE / "crl_publisher_process.py"), str(self.state), self.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.publisher.stdout is not None
        assert self.publisher.stdout.readline() == "ready\n"

    def _kill(self) -> None:
        if self.publisher is not None:
            self.publisher.kill()
            self.publisher.wait()
            for pipe in (self.publisher.stdin, self.publisher.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
            self.publisher = None

    def _new_key(self, service: str) -> None:
        """Give a service another CA key, up to a few; a key that nobody has in a backup would be lost."""
        if sum(record.service == service for record in issuers(self.store)) >= _GENERATIONS_MAX:
            return
        create_issuer(self.store, self.keys, short_periods(service, _SERVICES[service]), self.clock.now_ms)
        self._backup()
        self.tally.acts["new key"] += 1

    def _backup(self) -> None:
        path = self.folder / f"{self.tally.acts['backup']}.tar"
        backup(self.store, self.state, path, self.clock.ms)
        self.last_backup = path
        self.tally.acts["backup"] += 1

    def _restore(self) -> None:
        """Judge what is out, for the log of it may be lost; then go back to the last backup."""
        assert self.last_backup is not None
        self._kill()
        self._collect()
        self._judge()
        for store in (self.store, *self.writers):
            store.close()
        if self.url.startswith("sqlite") and self.numbers.random() < 0.5:
            for path in self.state.glob("store.db*"):
                path.unlink()
            self.tally.acts["store lost"] += 1
        restore(self.last_backup, self.state, self.url, self.clock.ms)
        self.store = Store.open(self.url)
        self.writers = [Store.open(self.url) for _ in range(_WRITERS)]
        self.acknowledged.clear()
        self._backup()
        self.tally.acts["restore"] += 1

    # --- writers ---------------------------------------------------------------------------------------

    def _write(self, pool: ThreadPoolExecutor) -> list[Future[None]]:
        records = issuers(self.store)
        orders = [
            (store, [self._random_act(records) for _ in range(self.numbers.randrange(4))])
            for store in self.writers
        ]
        return [pool.submit(self._do, *order) for order in orders]

    def _random_act(self, records: list[IssuerRecord]) -> tuple[int, ChangeKind, bytes, int | None, int]:
        """Return (issuer, kind, serial, reason, life): an act at random, which may turn out impossible."""
        numbers = self.numbers
        issuer = numbers.choice(records)
        kinds = [ChangeKind.ISSUED, ChangeKind.REVOKED, ChangeKind.REVOKED, ChangeKind.REASON_CHANGED]
        if _SERVICES[issuer.service]:
            kinds += [ChangeKind.HELD, ChangeKind.HELD, ChangeKind.RELEASED, ChangeKind.RELEASED]
        kind = numbers.choice(kinds)
        known = self.serials[issuer.issuer_id]
        if numbers.random() < 0.0008 and issuer.generation < max(
            record.generation for record in records if record.service == issuer.service
        ):
            return issuer.issuer_id, ChangeKind.CA_KEY_EVENT, b"", 2, 0
        if kind is ChangeKind.ISSUED or not known:
            self.issued += 1
            serial = b"\x01" + self.issued.to_bytes(7, "big")
            known.append(serial)
            return issuer.issuer_id, ChangeKind.ISSUED, serial, None, numbers.choice((300, 3000, 10**7))
        reason = (
            None if kind in (ChangeKind.HELD, ChangeKind.RELEASED) else numbers.choice((None, 1, 3, 4, 5))
        )
        return issuer.issuer_id, kind, numbers.choice(known[-40:]), reason, 0

    def _do(self, store: Store, acts: list[tuple[int, ChangeKind, bytes, int | None, int]]) -> None:
        for issuer_id, kind, serial, reason, life_s in acts:
            try:
                with store.writing(self.clock.now_ms) as act:
                    if kind is ChangeKind.ISSUED:
                        recorded = act.record(
                            kind,
                            issuer_id=issuer_id,
                            serial=serial,
                            fingerprint=fingerprint(serial, INDEX_KEY),
                            not_after_s=self.clock.ms // 1000 + life_s,
                        )
                    else:
                        invalidity_s = self.clock.ms // 1000 - 50 if reason == 1 and serial else 0
                        if kind is not ChangeKind.REVOKED:
                            invalidity_s = 0
                        recorded = act.record(
                            kind, issuer_id=issuer_id, serial=serial, reason=reason, invalidity_s=invalidity_s
                        )
            except (IllegalTransition, PolicyViolation, UnknownCertificate):
                continue
            self.acknowledged.append((recorded.seq, serial, kind))
            self.tally.acts[kind.name] += 1

    # --- what was published ----------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take over what the register calls published and was not seen yet, with its file's bytes."""
        table = schema.crl
        keys = {record.issuer_id: record for record in issuers(self.store)}
        with self.store.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.issuer_id, table.c.scope, table.c.number, table.c.kind, table.c.seq)
                .where(table.c.state == "published", table.c.seq >= self._base_seq(connection))
                .order_by(table.c.number)
            ).all()
        for row in rows:
            issuer = keys[row.issuer_id]
            key = (issuer.key_id, row.number, row.kind)
            if key in self.seen:
                continue
            # These issuers have no partitions.
            assert row.scope == "all"
            path = self.state / "crl" / CRLScope(issuer).file(row.kind, row.number)
            der = path.read_bytes()
            parsed = parse_certificate_list(der)
            found = Published(issuer.key_id, row.number, row.kind, row.seq, der, parsed, _told(der, issuer))
            self.seen[key] = found
            self.unjudged.append(found)

    @staticmethod
    def _base_seq(connection: sa.Connection) -> int:
        return int(connection.execute(sa.select(schema.store_state.c.base_seq)).scalar_one())

    # --- judging ---------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Hold everything that is out against the log."""
        self._judge_log()
        for issuer in issuers(self.store):
            mine = [crl for crl in self.unjudged if crl.key == issuer.key_id]
            lists = self._lists(issuer, {crl.seq for crl in mine})
            completes = {
                crl.number: crl
                for crl in self.seen.values()
                if crl.key == issuer.key_id and crl.kind == COMPLETE
            }
            for crl in mine:
                assert lint(crl.parsed, hold_allowed=_SERVICES[issuer.service]) == []
                expected = lists[crl.seq]
                if crl.kind == COMPLETE:
                    assert {entry.serial: entry for entry in crl.parsed.entries} == expected
                    assert crl.told == _as_told(expected)
                else:
                    self._judge_delta(issuer, crl, completes, expected)
            for crl in self.numbers.sample(mine, min(2, len(mine))):
                self._judge_by_openssl(issuer, crl, completes, lists[crl.seq])
        self.tally.crls += len(self.unjudged)
        self.unjudged.clear()

    def _judge_log(self) -> None:
        """Nothing that a writer was told is recorded is missing from the log."""
        table, certificates = schema.change, schema.certificate
        with self.store.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.seq, certificates.c.serial, table.c.kind).select_from(
                    table.outerjoin(certificates, certificates.c.issued_seq == table.c.certificate_seq)
                )
            )
            log = {(row.seq, bytes.fromhex(row.serial or ""), ChangeKind(row.kind)) for row in rows}
        assert set(self.acknowledged) <= log
        self.tally.acts["LAPSED"] += sum(kind is ChangeKind.LAPSED for _, _, kind in log)

    def _judge_delta(
        self,
        issuer: IssuerRecord,
        delta: Published,
        completes: dict[int, Published],
        expected: dict[bytes, CRLEntry],
    ) -> None:
        base_number = delta.parsed.base_number
        assert base_number is not None
        assert base_number in completes
        removed = {
            entry.serial for entry in delta.parsed.entries if entry.reason == CRLReason.REMOVE_FROM_CRL
        }
        assert not removed & expected.keys()
        assert _SERVICES[issuer.service] or not removed
        self.tally.removed_by_delta += len(removed)
        for number, base in completes.items():
            if base_number <= number < delta.number:
                combined = combine(base.parsed, delta.parsed)
                assert {entry.serial: entry for entry in combined} == expected
                assert _joined(base.told, delta.told) == _as_told(expected)
                self.tally.pairs += 1

    def _judge_by_openssl(
        self,
        issuer: IssuerRecord,
        crl: Published,
        completes: dict[int, Published],
        expected: dict[bytes, CRLEntry],
    ) -> None:
        ca = self.folder / "ca.pem"
        ca.write_bytes(issuer.ca_certificate.public_bytes(serialization.Encoding.PEM))
        reasons = {serial: reason for serial, (_, reason) in _as_told(expected).items()}
        told = _by_openssl(crl.der, ca)
        if crl.kind == DELTA:
            base = _by_openssl(completes[crl.parsed.base_number or 0].der, ca)
            told = {serial: reason for serial, reason in (base | told).items() if reason != 8}
        assert told == reasons
        self.tally.by_openssl += 1

    def _lists(self, issuer: IssuerRecord, seqs: set[int]) -> dict[int, dict[bytes, CRLEntry]]:
        """The list at each of the numbers, told from the change log in one pass."""
        found: dict[int, dict[bytes, CRLEntry]] = {}
        waiting = sorted(seqs)
        entries: dict[bytes, CRLEntry] = {}
        upto = self.store.state().seq
        for change in self.store.revocation_changes(issuer.issuer_id, 0, upto):
            while waiting and waiting[0] < change.seq:
                found[waiting.pop(0)] = dict(entries)
            at_s, serial = change.recorded_ms // 1000, change.serial
            reason = change.reason or None
            if change.kind == 2:
                entries[serial] = CRLEntry(serial, at_s, reason, change.invalidity_s or None)
            elif change.kind == 3:
                entries[serial] = CRLEntry(serial, at_s, 6, None)
            elif change.kind == 6 and serial in entries:
                entries[serial] = entries[serial]._replace(reason=reason)
            elif change.kind in (4, 5):
                entries.pop(serial, None)
        for seq in waiting:
            found[seq] = dict(entries)
        return found


def _as_told(entries: dict[bytes, CRLEntry]) -> Told:
    return {
        int.from_bytes(entry.serial, "big", signed=True): (entry.revoked_at_s, entry.reason)
        for entry in entries.values()
    }


def _joined(base: Told, delta: Told) -> Told:
    return {serial: told for serial, told in (base | delta).items() if told[1] != 8}


_FLAGS = {
    x509.ReasonFlags.key_compromise: 1,
    x509.ReasonFlags.ca_compromise: 2,
    x509.ReasonFlags.affiliation_changed: 3,
    x509.ReasonFlags.superseded: 4,
    x509.ReasonFlags.cessation_of_operation: 5,
    x509.ReasonFlags.certificate_hold: 6,
    x509.ReasonFlags.remove_from_crl: 8,
}


def _told(der: bytes, issuer: IssuerRecord) -> Told:
    """What `cryptography` reads in a CRL that verifies under the issuer's key."""
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(issuer.ca_certificate.public_key())  # type: ignore[arg-type]
    found: Told = {}
    for entry in crl:
        try:
            reason = _FLAGS[entry.extensions.get_extension_for_class(x509.CRLReason).value.reason]
        except x509.ExtensionNotFound:
            reason = None
        assert entry.serial_number not in found
        found[entry.serial_number] = int(entry.revocation_date_utc.timestamp()), reason
    return found


_OPENSSL_REASONS = {
    "Key Compromise": 1,
    "CA Compromise": 2,
    "Affiliation Changed": 3,
    "Superseded": 4,
    "Cessation Of Operation": 5,
    "Certificate Hold": 6,
    "Remove From CRL": 8,
}


def _by_openssl(der: bytes, ca: Path) -> dict[int, int | None]:
    """What OpenSSL reads in a CRL that it verifies: serial -> reason."""
    done = subprocess.run(
        ["openssl", "crl", "-inform", "DER", "-noout", "-text", "-CAfile", str(ca)],
        input=der,
        capture_output=True,
        check=True,
    )
    assert b"verify OK" in done.stderr
    text = done.stdout.decode()
    found: dict[int, int | None] = {}
    for part in text.partition("Signature Algorithm")[2].split("Serial Number: ")[1:]:
        serial = int(part.split()[0], 16)
        reason = re.search(r"X509v3 CRL Reason Code:[^\n]*\n\s*([^\n]+)", part)
        found[serial] = None if reason is None else _OPENSSL_REASONS[reason[1].strip()]
    return found
