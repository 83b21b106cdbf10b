"""What making a CRL costs, against hashing and writing its bytes, and against `cryptography`.

    python -m bench.crl_steps [--entries 10000000] [--scopes 2000] [--scopes-entries 16000000] [--rounds 5]
                              [--folder /tmp] [--out FILE]

A list of random serial numbers (16 octets, a reason: 49 octets each) and the same after a day's changes are
written as files of rows.  Then, in turn and in one process: SHA-256 of as many bytes as the CRL has, written
and fsynced; the CRL of the file, signed with P-256 and fsynced; its check from its bytes (decoded, verified,
compared with the file; its predecessor, decoded and merged with the changes, compared with the same).
Ratios are of CPU time, medians of the rounds.

Last the publisher itself (``crl_publisher``): a delta of 1,000 changes over as long a list, until it is
registered; all partitions of a nation, and one revocation published on request, until the catalogue names
them; times by the clock on the wall.

Knows: the steps, what must hold, the record.  Does not know: how lists are drawn (``crl_lists``).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from bench.crl_lists import THIS_UPDATE_S, Changes, draw_changes, draw_rows, write_list, write_next
from bench.crl_publisher import long_delta, nation
from bench.own_process import measured
from bench.under_load import what, write_record
from certstatus import oid
from certstatus.crl import CRLFields
from certstatus.crl_entry import CRLEntry
from certstatus.crl_lint import lint_facts
from certstatus.crl_row_facts import RowFacts
from certstatus.crl_rows import DIGEST_END, Rows, digest_of, empty_rows, entries_of, keys, rows_of
from certstatus.crl_rows_file import RowsFile
from certstatus.crl_rows_merge import merged, same_rows
from certstatus.crl_stream_decode import CRLFile, is_signed_by
from certstatus.crl_stream_encode import write_crl

ENTRIES = 10_000_000
SMALL_ENTRIES = 100_000
DELTA_CHANGES = 1000
NATION_SCOPES, NATION_ENTRIES = 2000, 16_000_000
# Of a day, for so many entries.
CHANGED_ONE_IN = 500
# (step, figure, at most or at least, what must hold, what is aimed at)
BOUNDS = (
    ("complete", "build_ratio", "<=", 3.0, 1.5),
    ("complete", "check_ratio", "<=", 6.0, 3.0),
    ("complete", "own_mb_max", "<=", 300.0, 100.0),
    ("builder", "times_faster", ">=", 20.0, 50.0),
    ("delta", "beside_signature_ms", "<=", 50.0, 10.0),
    ("publisher_delta", "first_ms", "<=", 50.0, 10.0),
    ("nation", "publish_s", "<=", 60.0, 20.0),
    ("nation", "on_request_ms", "<=", 200.0, 50.0),
)
_AT_ONCE = 1 << 20
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench CA")])
_REASONS = {
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
}


class Signer:
    """A CA's P-256 key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._algorithm = ec.ECDSA(Prehashed(hashes.SHA256()))
        self.signed_s = 0.0
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.spki_der = self._key.public_key().public_bytes(serialization.Encoding.DER, form)

    def sign(self, digest: bytes) -> bytes:
        """Sign, and note how long it took."""
        began_s = time.perf_counter()
        signature = self._key.sign(digest, self._algorithm)
        self.signed_s = time.perf_counter() - began_s
        return signature

    def write(self, path: Path, rows: RowsFile | Rows, base_number: int | None = None) -> int:
        """Write a linted and signed CRL; return how many bytes it has."""
        fields = CRLFields(
            _NAME.public_bytes(),
            oid.ECDSA_WITH_SHA256_DER,
            THIS_UPDATE_S,
            THIS_UPDATE_S + 86_400,
            5,
            bytes(20),
            base_number,
        )

        def lint(facts: RowFacts) -> list[str]:
            return lint_facts(
                facts,
                delta=base_number is not None,
                hold_allowed=True,
                this_update_s=THIS_UPDATE_S,
            )

        return write_crl(path, fields, rows, sign=self.sign, hash_name="sha256", lint=lint).size

    def build_elsewhere(self, given: list[tuple[int, datetime, x509.ReasonFlags]]) -> bytes:
        """Return the CRL of a list, made by `cryptography`'s builder."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(_NAME)
        builder = builder.last_update(_moment(THIS_UPDATE_S)).next_update(_moment(THIS_UPDATE_S + 86_400))
        builder = builder.add_extension(x509.CRLNumber(5), critical=False)
        for serial, moment, reason in given:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment)
            builder = builder.add_revoked_certificate(
                entry.add_extension(x509.CRLReason(reason), critical=False).build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


class Times:
    """CPU and wall time of what was done several times."""

    def __init__(self) -> None:
        self._cpu_s: list[float] = []
        self._wall_s: list[float] = []

    def take(self, step: Callable[[], Any]) -> Any:  # noqa: ANN401 — whatever the step gives
        """Do it once more; return what it gives."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = step()
        self._cpu_s.append(time.process_time() - cpu_s)
        self._wall_s.append(time.perf_counter() - wall_s)
        return found

    @property
    def cpu_s(self) -> float:
        """Median."""
        return statistics.median(self._cpu_s)

    @property
    def wall_s(self) -> float:
        """Median."""
        return statistics.median(self._wall_s)


def hash_and_write(path: Path, size: int) -> None:
    """The yardstick: SHA-256 of *size* bytes, written to a new file and fsynced."""
    content = memoryview(os.urandom(_AT_ONCE))
    hashed = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, _AT_ONCE):
            piece = content[: size - start]
            hashed.update(piece)
            file.write(piece)
        os.fsync(file.fileno())


def check(path: Path, signer: Signer, listed: RowsFile, previous: Path, changes: Changes) -> None:
    """Check a CRL from its bytes: signed, the list, and so is its predecessor with the changes."""
    with CRLFile(path) as crl, CRLFile(previous) as before:
        reading, facts = crl.reading(), RowFacts()
        right = same_rows(reading.rows(facts), listed.checked_blocks())
        right = right and is_signed_by(crl.head, reading.digests().signed, signer.spki_der)
        right = right and not lint_facts(facts, delta=False, hold_allowed=True, this_update_s=THIS_UPDATE_S)
        if not (right and same_rows(merged(before.rows(), *changes), listed.blocks())):
            raise ValueError(f"{path} is not what it was to be")


def complete(folder: Path, rounds: int) -> dict[str, Any]:
    """A complete CRL and its check, against hashing and writing its bytes."""
    signer = Signer()
    path, yardstick = folder / "new.crl", folder / "yardstick"
    plain, build, checked = Times(), Times(), Times()
    with RowsFile(folder / "old.cse") as old, RowsFile(folder / "new.cse") as new:
        signer.write(folder / "old.crl", old)
        changes = draw_changes(old, old.head.rows // CHANGED_ONE_IN)
        for _ in range(rounds):
            path.unlink(missing_ok=True)
            size = build.take(partial(signer.write, path, new))
            yardstick.unlink(missing_ok=True)
            plain.take(partial(hash_and_write, yardstick, size))
            checked.take(partial(check, path, signer, new, folder / "old.crl", changes))
        yardstick.unlink()
        entries = new.head.rows
    return {
        "entries": entries,
        "bytes": size,
        "hash_and_write_cpu_s": plain.cpu_s,
        "build_cpu_s": build.cpu_s,
        "build_ratio": build.cpu_s / plain.cpu_s,
        "check_cpu_s": checked.cpu_s,
        "check_ratio": checked.cpu_s / plain.cpu_s,
        "hash_and_write_wall_s": plain.wall_s,
        "build_wall_s": build.wall_s,
        "check_wall_s": checked.wall_s,
        "changes": len(changes.puts) + len(changes.drops),
    }


def mixed(folder: Path, rounds: int) -> dict[str, Any]:
    """The same without check where entries are of four lengths."""
    signer = Signer()
    path, yardstick = folder / "mixed.crl", folder / "yardstick"
    plain, build = Times(), Times()
    with RowsFile(folder / "mixed.cse") as rows:
        for _ in range(rounds):
            path.unlink(missing_ok=True)
            size = build.take(partial(signer.write, path, rows))
            yardstick.unlink(missing_ok=True)
            plain.take(partial(hash_and_write, yardstick, size))
    path.unlink()
    yardstick.unlink()
    return {"bytes": size, "build_cpu_s": build.cpu_s, "build_ratio": build.cpu_s / plain.cpu_s}


def builder(folder: Path, entries: int, rounds: int) -> dict[str, Any]:
    """A list of entries in memory, to a signed CRL in a file, against `cryptography`'s builder."""
    signer = Signer()
    ours, theirs = Times(), Times()
    (rows,) = draw_rows(entries) if entries <= 1 << 16 else (np.concatenate([*draw_rows(entries)]),)
    listed = entries_of(rows)
    given = [_as_given(entry) for entry in listed]
    for _ in range(rounds):
        ours.take(lambda: signer.write(folder / "small.crl", rows_of(listed)))
    # Seconds each, and as even as it is slow.
    for _ in range(min(rounds, 2)):
        crl_der = theirs.take(lambda: signer.build_elsewhere(given))
    with CRLFile(folder / "small.crl") as crl:
        ours_der = b"".join(block.tobytes() for block in crl.rows())
    (folder / "theirs.crl").write_bytes(crl_der)
    with CRLFile(folder / "theirs.crl") as crl:
        if b"".join(block.tobytes() for block in crl.rows()) != ours_der:
            raise ValueError("the two CRLs list not the same")
    return {
        "entries": entries,
        "cpu_s": ours.cpu_s,
        "builder_cpu_s": theirs.cpu_s,
        "times_faster": theirs.cpu_s / ours.cpu_s,
    }


def _as_given(entry: CRLEntry) -> tuple[int, datetime, x509.ReasonFlags]:
    assert entry.reason is not None
    return int.from_bytes(entry.serial, "big"), _moment(entry.revoked_at_s), _REASONS[entry.reason]


def _moment(posix_s: int) -> datetime:
    return datetime.fromtimestamp(posix_s, UTC)


def delta(folder: Path, changes: int, rounds: int) -> dict[str, Any]:
    """A delta over a large base: written, read back, verified, its digest joined with the base's."""
    signer = Signer()
    path = folder / "delta.crl"
    took_ms: list[float] = []
    signature_ms: list[float] = []
    cpu = Times()
    with RowsFile(folder / "old.cse") as base:
        drawn = draw_changes(base, changes)
        says = _delta_rows(drawn)
        digest = sum(map(digest_of, merged(base.blocks(), *drawn))) % DIGEST_END
        began_s = time.perf_counter()
        base.look_up(keys(says[:1]))
        first_look_up_ms = (time.perf_counter() - began_s) * 1000
        for _ in range(rounds):
            path.unlink(missing_ok=True)
            began_s = time.perf_counter()
            cpu.take(lambda: _make_delta(path, signer, base, says, digest))
            took_ms.append((time.perf_counter() - began_s) * 1000)
            signature_ms.append(signer.signed_s * 1000)
        fsync = Times()
        for _ in range(rounds):
            fsync.take(lambda: hash_and_write(folder / "yardstick", path.stat().st_size))
        entries = base.head.rows
    signature = statistics.median(signature_ms)
    return {
        "base_entries": entries,
        "changes": changes,
        "beside_signature_ms": statistics.median(took_ms) - signature,
        "signature_ms": signature,
        "cpu_ms": cpu.cpu_s * 1000,
        "hash_and_write_ms": fsync.wall_s * 1000,
        "first_look_up_ms": first_look_up_ms,
    }


def _delta_rows(changes: Changes) -> Rows:
    """Return what a delta says of changes: what is gone as removeFromCRL."""
    gone = empty_rows(len(changes.drops))
    gone["key"] = changes.drops.view(gone["key"].dtype)
    gone["revoked_at"], gone["reason"] = THIS_UPDATE_S, 8
    gone["serial_octets"], gone["der_len"] = 16, 49
    says = np.concatenate([changes.puts, gone])
    return says[np.argsort(keys(says), kind="stable")]


def _make_delta(path: Path, signer: Signer, base: RowsFile, says: Rows, digest: int) -> None:
    signer.write(path, says, base_number=4)
    with CRLFile(path) as crl:
        reading = crl.reading()
        found = np.concatenate([*reading.rows()])
        if not (
            same_rows([found], [says]) and is_signed_by(crl.head, reading.digests().signed, signer.spki_der)
        ):
            raise ValueError("the delta is not what it was to be")
        # What base and delta make, without reading the base: what it said of these keys, and what they say.
        before = digest_of(base.look_up(keys(found)))
        said = digest_of(found[found["reason"] != 8])
        if (base.head.digest - before + said) % DIGEST_END != digest:
            raise ValueError("base and delta do not make the list")


def verdicts(steps: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what must hold, and whether it does."""
    found = []
    for step, figure, comparison, must, aim in BOUNDS:
        value = steps[step][figure]
        held, reached = (value <= bound if comparison == "<=" else value >= bound for bound in (must, aim))
        found.append(
            {
                "figure": f"{step} {figure}",
                "value": value,
                "must": f"{comparison} {must:g}",
                "aim": f"{comparison} {aim:g}",
                "held": held,
                "aim_reached": reached,
            }
        )
    return found


def measure(
    entries: int,
    folder: Path,
    rounds: int,
    small_entries: int = SMALL_ENTRIES,
    scopes: int = NATION_SCOPES,
    scopes_entries: int = NATION_ENTRIES,
) -> dict[str, Any]:
    """Return the figures by step."""
    steps: dict[str, dict[str, Any]] = {}

    def note(name: str, figures: dict[str, Any]) -> None:
        steps[name] = {
            key: round(item, 4) if isinstance(item, float) else item for key, item in figures.items()
        }
        print(f"{name}: {steps[name]}", file=sys.stderr, flush=True)

    old, new = folder / "old.cse", folder / "new.cse"
    note("draw", measured(_draw, old, entries, False))
    note("merge", measured(_merge, new, old, entries // CHANGED_ONE_IN))
    note("complete", measured(complete, folder, rounds))
    for name in ("new.crl", "old.crl", "new.cse"):
        (folder / name).unlink()
    note("delta", measured(delta, folder, min(DELTA_CHANGES, entries), 4 * rounds))
    old.unlink()
    _draw(folder / "mixed.cse", entries, True)
    note("mixed", measured(mixed, folder, rounds))
    (folder / "mixed.cse").unlink()
    note("builder", measured(builder, folder, small_entries, rounds))
    # With all that the publisher does beside the file: register, catalogue, archive.
    changes = min(DELTA_CHANGES, entries)
    note("publisher_delta", measured(long_delta, folder / "long", entries, changes, rounds))
    shutil.rmtree(folder / "long")
    note("nation", measured(nation, folder / "nation", scopes, scopes_entries))
    shutil.rmtree(folder / "nation")
    return steps


def _draw(path: Path, entries: int, is_mixed: bool) -> dict[str, Any]:
    write_list(path, entries, mixed=is_mixed)
    return {"bytes": path.stat().st_size}


def _merge(path: Path, source: Path, changes: int) -> dict[str, Any]:
    write_next(path, source, changes)
    return {"changes": changes}


def main() -> int:
    """Measure, write the record, say what does not hold; exit with 1 then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--scopes", type=int, default=NATION_SCOPES)
    parser.add_argument("--scopes-entries", type=int, default=NATION_ENTRIES, help="of all scopes together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are made: 250 bytes an entry [/tmp]")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        steps = measure(
            chosen.entries,
            Path(folder),
            chosen.rounds,
            scopes=chosen.scopes,
            scopes_entries=chosen.scopes_entries,
        )
    judged = verdicts(steps)
    command = " ".join(["python -m bench.crl_steps", *sys.argv[1:]])
    record = {"what": what(command), "steps": steps, "verdicts": judged}
    print(write_record("crl", record, chosen.out))
    for item in judged:
        word = "pass" if item["held"] else "FAIL"
        aim = "reached" if item["aim_reached"] else f"not reached ({item['aim']})"
        print(f"{word}  {item['figure']}: {item['value']:g}, must be {item['must']}; aim {aim}")
    return 0 if all(item["held"] for item in judged) else 1


if __name__ == "__main__":
    raise SystemExit(main())
