"""A backup: one tar with all tables, the CA keys, the secrets and the published CRLs.

::

    manifest.json            format, when, where the sequence stood, size and SHA-256 of all others, and
                             the archive's sealed packs with their hashes
    tables/<table>.jsonl     one JSON object per row, octets in base64, all from one moment
    ca/*, secrets/*          key files as they are (the CA keys stay encrypted)
    crl/...                  published CRLs; of the archive the packs that are still open
    crl-last/...             last CRLs that are prepared
    certstatus.toml          the configuration, if there is one

Knows: writing that, and reading it back with every hash checked.
Does not know: what a restored installation must do differently (``restore``).
Source: Act arts. 44 (loss and damage), 8, 16, 27, 35 (what is to be kept).

Sealed packs never change, and ten years of them are terabytes: they are named, so that what is missing
later shows, and copied only on request.

Whoever has the file can sign as the CA if it holds the passphrase too: it is readable by its
owner only, and belongs under lock and key.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import sqlalchemy as sa

from certstatus import __version__
from certstatus.crl_archive import INDEX_SUFFIX, PACK_SUFFIX, CRLArchive
from certstatus.crl_pack import HEADER_BYTES, parse_pack_name, read_rows, whole_octets
from certstatus.durable import sync_folder
from certstatus.errors import ArchiveDamaged, BackupDamaged, StoreError
from issuance import schema
from issuance.published_crls import PREPARED_FOLDER
from issuance.store import Store, StoreState

FORMAT = 1
_MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_ROWS_AT_ONCE = 1000
# Folders of an installation that belong in a backup, and single files.
_FOLDERS = ("ca", "secrets", "crl", PREPARED_FOLDER)
_FILES = ("certstatus.toml",)
# What of the archive is not copied like any other file; lists of packs are made anew.
_ARCHIVE_SUFFIXES = (INDEX_SUFFIX, PACK_SUFFIX, ".json", ".dropped")

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds; ``packs_named``: sealed packs that are not in it but belong to it."""

    path: Path
    bytes: int
    seq: int
    rows: dict[str, int]
    files: int
    packs_named: int = 0


class Member(NamedTuple):
    """Size and SHA-256 (hex) of one file in the tar."""

    bytes: int
    sha256: str


class OpenedBackup:
    """A backup unpacked into a folder, every file checked against the manifest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.schema_revision: str = manifest["schema_revision"]
        self.made_ms: int = manifest["made_ms"]
        state = manifest["state"]
        self.state = StoreState(
            bytes.fromhex(state["epoch"]),
            state["base_seq"],
            state["seq"],
            state["time_ms"],
            bytes.fromhex(state["chain"]),
        )
        self.files = [PurePosixPath(name) for name in manifest["files"]]
        # Sealed packs of the archive: name -> what the head of its index says.
        self.packs: dict[str, dict[str, Any]] = manifest.get("packs", {})

    def below(self, top: str) -> list[Path]:
        """Return the files under a folder of the tar, relative to it."""
        return [Path(*name.parts[1:]) for name in self.files if name.parts[0] == top and len(name.parts) > 1]

    def rows(self, table: sa.Table) -> Iterator[list[dict[str, Any]]]:
        """Yield a table's rows in lists, ready to be inserted."""
        octets = {column.name for column in table.columns if isinstance(column.type, sa.LargeBinary)}
        lot: list[dict[str, Any]] = []
        with (self.folder / "tables" / f"{table.name}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                row: dict[str, Any] = json.loads(line)
                for name in octets:
                    if row[name] is not None:
                        row[name] = base64.b64decode(row[name])
                lot.append(row)
                if len(lot) == _ROWS_AT_ONCE:
                    yield lot
                    lot = []
        if lot:
            yield lot


def backup(
    store: Store,
    state: Path,
    destination: Path,
    now_ms: int,
    progress: Progress | None = None,
    *,
    with_archive: bool = False,
) -> BackupReport:
    """Write a backup of the installation in *state* to *destination*; the service may go on meanwhile.

    Takes:  *with_archive*: copy the archive's sealed packs, too.
    Raises: StoreError — the store cannot be read; OSError — disk full: nothing is left then.
    """
    members: dict[str, Member] = {}
    rows: dict[str, int] = {}
    neighbour = destination.with_name(f".{destination.name}.{os.getpid()}.new")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=destination.parent) as name:
            folder = Path(name)
            store_state = _dump(store, folder, members, rows, progress)
            sources = {f"tables/{table.name}.jsonl": folder / f"{table.name}.jsonl" for table in _tables()}
            for source, path in _installation_files(state):
                members[source], sources[source] = _member(path), path
            packs = _add_archive(state, folder, members, sources, with_archive=with_archive)
            manifest = {
                "format": FORMAT,
                "made_ms": now_ms,
                "version": __version__,
                "schema_revision": schema.SCHEMA_REVISION,
                "state": {
                    "epoch": store_state.epoch.hex(),
                    "base_seq": store_state.base_seq,
                    "seq": store_state.seq,
                    "time_ms": store_state.time_ms,
                    "chain": store_state.chain.hex(),
                },
                "rows": rows,
                "packs": packs,
                "files": {source: member._asdict() for source, member in members.items()},
            }
            _write_tar(neighbour, manifest, sources, members)
        neighbour.rename(destination)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise
    sync_folder(destination.parent)
    named = 0 if with_archive else len(packs)
    return BackupReport(destination, destination.stat().st_size, store_state.seq, rows, len(members), named)


def _dump(
    store: Store,
    folder: Path,
    members: dict[str, Member],
    rows: dict[str, int],
    progress: Progress | None,
) -> StoreState:
    with store.reading(repeatable=True) as connection:
        row = connection.execute(sa.select(schema.store_state)).one()
        for table in _tables():
            path = folder / f"{table.name}.jsonl"
            rows[table.name] = _dump_table(connection, table, path)
            members[f"tables/{table.name}.jsonl"] = _member(path)
            if progress is not None:
                progress(table.name, rows[table.name])
    return StoreState(row.epoch, row.base_seq, row.seq, row.time_ms, row.chain)


def _dump_table(connection: sa.Connection, table: sa.Table, path: Path) -> int:
    octets = [column.name for column in table.columns if isinstance(column.type, sa.LargeBinary)]
    count = 0
    query = sa.select(table).order_by(*table.primary_key.columns)
    with path.open("w", encoding="utf-8") as file:
        # Streamed: no table need fit into memory.
        for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
            values = dict(row._mapping)
            for name in octets:
                if values[name] is not None:
                    values[name] = base64.b64encode(values[name]).decode()
            file.write(json.dumps(values, separators=(",", ":")) + "\n")
            count += 1
    return count


def _tables() -> list[sa.Table]:
    """Return all tables, each after those it refers to."""
    return list(schema.metadata.sorted_tables)


def _installation_files(state: Path) -> Iterator[tuple[str, Path]]:
    for name in _FILES:
        if (state / name).is_file():
            yield name, state / name
    for top in _FOLDERS:
        for path in sorted((state / top).rglob("*")):
            is_packed = path.parent == state / "crl" / "archive" and path.suffix in _ARCHIVE_SUFFIXES
            # A leading dot marks what somebody is still writing.
            if path.is_file() and not path.name.startswith(".") and not is_packed:
                yield f"{top}/{path.relative_to(state / top).as_posix()}", path


def _add_archive(
    state: Path, folder: Path, members: dict[str, Member], sources: dict[str, Path], *, with_archive: bool
) -> dict[str, dict[str, Any]]:
    """Add open packs, on request the sealed ones; return what all sealed ones must be.

    An open pack grows meanwhile: its index is copied to *folder* first, and of the pack as much as that
    speaks of.
    """
    archive = CRLArchive(state / "crl" / "archive")
    sealed: dict[str, dict[str, Any]] = {}
    for name in archive.names():
        try:
            head = archive.header(name)
            octets = archive.index_path(name).read_bytes()
        except (ArchiveDamaged, FileNotFoundError):
            # It says nothing, or its time was just over.
            continue
        if head.sealed:
            sealed[str(name)] = {
                "rows": head.rows,
                "bytes": head.pack_bytes,
                "sha256": head.pack_sha256.hex(),
                "rows_sha256": head.rows_sha256.hex(),
            }
            if not with_archive:
                continue
        octets = octets[: HEADER_BYTES + whole_octets(octets[HEADER_BYTES:])]
        end = max((row.offset + row.size for row in read_rows(octets[HEADER_BYTES:])), default=0)
        index, pack = archive.index_path(name), archive.pack_path(name)
        copy = folder / index.name
        copy.write_bytes(octets)
        if end:
            members[f"crl/archive/{pack.name}"] = _member(pack, end)
            sources[f"crl/archive/{pack.name}"] = pack
        members[f"crl/archive/{index.name}"], sources[f"crl/archive/{index.name}"] = _member(copy), copy
    return sealed


def missing_packs(opened: OpenedBackup, state: Path) -> list[str]:
    """Return the sealed packs that the backup names and that are not in *state* as they were.

    By their indexes and sizes: reading terabytes is for whoever asks for what is in them.
    """
    archive = CRLArchive(state / "crl" / "archive")
    missing = []
    for text, expected in sorted(opened.packs.items()):
        name = parse_pack_name(text)
        try:
            if name is None:
                continue
            head = archive.header(name)
            size = archive.pack_path(name).stat().st_size
        except (ArchiveDamaged, OSError):
            missing.append(text)
            continue
        if (head.rows_sha256.hex(), size) != (expected["rows_sha256"], expected["bytes"]):
            missing.append(text)
    return missing


def _write_tar(
    path: Path, manifest: dict[str, Any], sources: dict[str, Path], members: dict[str, Member]
) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w") as tar:
            text = json.dumps(manifest, sort_keys=True, indent=1).encode()
            _add(tar, _MANIFEST, io.BytesIO(text), len(text), 0o600)
            for name, source in sources.items():
                with source.open("rb") as file:
                    # No CRL or key file changes under its name, so as many octets are still what was hashed.
                    _add(tar, name, file, members[name].bytes, source.stat().st_mode & 0o777)
        raw.flush()
        os.fsync(raw.fileno())


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = mode
    tar.addfile(member, content)


def _member(path: Path, limit: int | None = None) -> Member:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK if limit is None else min(_BLOCK, limit - size)):
            digest.update(block)
            size += len(block)
    return Member(size, digest.hexdigest())


@contextmanager
def opened(path: Path, work_folder: Path) -> Iterator[OpenedBackup]:
    """Unpack the backup at *path* below *work_folder* and check it; removed again at the end.

    Raises: BackupDamaged — not a backup, cut short, or a file in it is missing, too much or not what
            the manifest says; StoreError — it cannot be read, or another version made it.
    """
    folder = Path(tempfile.mkdtemp(prefix=".restore-", dir=work_folder))
    try:
        _unpack(path, folder)
        manifest = _read_manifest(path, folder)
        try:
            found = OpenedBackup(folder, manifest)
            _check_files(folder, manifest["files"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise BackupDamaged(f"{path}: not a backup: its manifest lacks something") from exc
        yield found
    finally:
        shutil.rmtree(folder)


def _unpack(path: Path, folder: Path) -> None:
    """Messages never name *folder*: it means nothing to whoever reads them, and is gone by then."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as exc:
        raise BackupDamaged(f"{path}: not a backup: {exc.tarinfo.name} leads out of it") from exc
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as exc:
        raise BackupDamaged(f"{path}: not a backup: {exc}") from exc
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as exc:
        raise BackupDamaged(f"{path}: not a backup: two of its members have one name") from exc
    except OSError as exc:
        raise StoreError(f"{path}: not a backup that can be read: {exc.strerror}") from exc


def _read_manifest(path: Path, folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise BackupDamaged(f"{path}: not a backup: no readable {_MANIFEST} in it") from exc
    if not isinstance(manifest, dict):
        raise BackupDamaged(f"{path}: not a backup: {_MANIFEST} is no object")
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{path}: backup format {manifest.get('format')}, this version reads {FORMAT}")
    if manifest.get("schema_revision") != schema.SCHEMA_REVISION:
        raise StoreError(
            f"{path}: schema revision {manifest.get('schema_revision')}, this version restores"
            f" {schema.SCHEMA_REVISION}; restore it with the version that made it"
        )
    return manifest


def _check_files(folder: Path, expected: dict[str, dict[str, Any]]) -> None:
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() != _MANIFEST
    }
    for name in sorted(found ^ expected.keys()):
        raise BackupDamaged(f"backup: {name} is {'not in the manifest' if name in found else 'missing'}")
    for name, member in expected.items():
        if _member(folder / name) != Member(**member):
            raise BackupDamaged(f"backup: {name} is not what the manifest says")
