"""Writing the archive: every complete CRL that was out goes into its day's pack, and stays its time.

::

    octets into the pack ─▶ fsync ─▶ row into the index ─▶ fsync        the CRL is archived
    day over ─▶ rows in order, pack hashed ─▶ index renamed over        the pack is sealed
    last nextUpdate + crl_archive_days over ─▶ left out of the list ─▶ removed

Knows: that what stands behind the last whole row is what a killed or full write left, and goes with
the next one; that a sealed pack is never opened again: what comes late for its day begins another
part; and that a pack is left out of the list before its files go.
Does not know: SQL, nor when anything is to be done.
Source: Act arts. 16, 35 (the period for which the files are kept).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from certstatus import clock
from certstatus.crl_archive import INDEX_SUFFIX, CRLArchive
from certstatus.crl_pack import (
    HEADER_BYTES,
    ROW_BYTES,
    ArchiveMark,
    PackedCRL,
    PackHeader,
    PackLine,
    PackName,
    contents_file,
    encode_contents,
    encode_header,
    encode_row,
    key_of,
    parse_pack_name,
    read_header,
    read_rows,
    whole_octets,
)
from certstatus.durable import sync_folder, write_durable
from certstatus.errors import ArchiveDamaged, IntegrityError
from certstatus.file_identity import FileIdentity, identity_of
from publisher.crl_retention import RetentionTime

_BLOCK = 1 << 20
_DROPPED_SUFFIX = ".dropped"
# After its day a pack stays open for so long: what was published last may be archived a little later.
_SEAL_AFTER_S = 600
# Days whose packs are remembered between two looks.
_KNOWN_PACKS_MAX = 16


class _Seen(NamedTuple):
    """What a pack held when its index looked so."""

    identity: FileIdentity
    keys: frozenset[bytes]


class ArchiveWriter(CRLArchive):
    """The archive in *folder*, as its one writer sees it (a lock sees to it that there is one)."""

    def __init__(self, folder: Path, monotonic_s: Callable[[], float] = clock.monotonic_s) -> None:
        super().__init__(folder)
        self.retention = RetentionTime(self, monotonic_s)
        self._seen: dict[PackName, _Seen] = {}
        # Sealed packs do not change: name -> head, and until when each is kept under which periods.
        self._sealed: dict[PackName, PackHeader] = {}
        self._ends: dict[tuple[PackName, tuple[tuple[bytes, int], ...], int], int] = {}

    # --- adding ----------------------------------------------------------------------------------------

    def add(self, crl: PackedCRL, source: Path) -> bool:
        """Archive the CRL in *source* unless it is there; say whether it was not.  Durable on return.

        Takes:  *crl* with any offset.
        Raises: IntegrityError — *source* is not what *crl* says; OSError — disk full, or no such file:
                the archive is then as it was before.
        """
        (outcome,) = self.add_all([(crl, source)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def add_all(self, crls: Sequence[tuple[PackedCRL, Path]]) -> list[bool | Exception]:
        """Archive CRLs as ``add`` does, those of one day together: each file is synced once for all of them.

        Takes: each CRL once.
        Gives: in order, whether it was not there before, or what ``add`` would have raised.
        """
        outcomes: list[bool | Exception] = [False] * len(crls)
        days: dict[int, list[int]] = {}
        for place, (crl, _) in enumerate(crls):
            days.setdefault(day_of(crl), []).append(place)
        for day, places in days.items():
            try:
                found = self._add_of_day(day, [crls[place] for place in places])
            except (OSError, IntegrityError) as exc:
                found = [exc] * len(places)
            for place, outcome in zip(places, found, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _add_of_day(self, day: int, crls: Sequence[tuple[PackedCRL, Path]]) -> list[bool | Exception]:
        outcomes: list[bool | Exception] = [False] * len(crls)
        for place, (crl, source) in enumerate(crls):
            if not self._holds(day, crl):
                # Where there is no source, nothing need be made.
                outcomes[place] = _trouble_of(source) or True
        if True in outcomes:
            with self._alone():
                # Again: another process may have been here meanwhile.
                for place, (crl, _) in enumerate(crls):
                    outcomes[place] = outcomes[place] if not self._holds(day, crl) else False
                new = [place for place, outcome in enumerate(outcomes) if outcome is True]
                if new:
                    troubles = self._append(self._open_pack(day), [crls[place] for place in new])
                    for place, trouble in zip(new, troubles, strict=True):
                        outcomes[place] = trouble or True
        return outcomes

    def holds(self, crl: PackedCRL) -> bool:
        """Say whether the CRL is in a pack of its day."""
        return self._holds(day_of(crl), crl)

    def _holds(self, day: int, crl: PackedCRL) -> bool:
        key = key_of(crl)
        part = 1
        while True:
            keys = self._keys(PackName(day, part))
            if keys is None:
                return False
            if key in keys:
                return True
            part += 1

    def _keys(self, name: PackName) -> frozenset[bytes] | None:
        """Return what a pack holds, or None if there is no such pack."""
        try:
            identity = identity_of(self.index_path(name))
        except FileNotFoundError:
            # A pack without an index counts as one that holds nothing, so that its name is not used again.
            return frozenset() if self._is_taken(name) else None
        seen = self._seen.pop(name, None)
        if seen is None or seen.identity != identity:
            seen = _Seen(identity, self.keys(name))
        self._seen[name] = seen
        if len(self._seen) > _KNOWN_PACKS_MAX:
            self._seen.pop(next(iter(self._seen)))
        return seen.keys

    def _open_pack(self, day: int) -> PackName:
        """Return the pack that takes the day's next CRL, made if need be."""
        name = PackName(day)
        while self._is_taken(name):
            with suppress(OSError, ArchiveDamaged):
                if not self.header(name).sealed:
                    return name
            name = name._replace(part=name.part + 1)
        write_durable(self.index_path(name), encode_header(PackHeader(name)))
        return name

    def _is_taken(self, name: PackName) -> bool:
        index = self.index_path(name)
        dropped = index.with_name(f"{index.name}{_DROPPED_SUFFIX}")
        return index.exists() or self.pack_path(name).exists() or dropped.exists()

    def _append(self, name: PackName, crls: Sequence[tuple[PackedCRL, Path]]) -> list[Exception | None]:
        """Put CRLs behind each other into a pack; return, in order, what is wrong with those left out.

        Raises: OSError — nothing was put there.
        """
        troubles: list[Exception | None] = []
        with _opened(self.index_path(name)) as index:
            kept, known = _read_open_index(index)
            begin = end = _end_of(known)
            is_new = not self.pack_path(name).exists()
            with _opened(self.pack_path(name)) as pack:
                if is_new:
                    sync_folder(self.folder)
                try:
                    # What a write that was killed before its row has left there.
                    _cut(pack, end)
                    rows = []
                    for crl, source in crls:
                        trouble = _copy(crl, source, pack, end)
                        troubles.append(trouble)
                        if trouble is None:
                            rows.append(encode_row(crl._replace(offset=end)))
                            end += crl.size
                    _cut(pack, end)
                    os.fsync(pack)
                    os.ftruncate(index, HEADER_BYTES + kept)
                    _write_all(index, b"".join(rows), HEADER_BYTES + kept)
                    os.fsync(index)
                except BaseException:
                    os.ftruncate(index, HEADER_BYTES + kept)
                    _cut(pack, begin)
                    raise
        return troubles

    # --- sealing ---------------------------------------------------------------------------------------

    def seal(self, now_s: int) -> list[PackName]:
        """Seal every pack whose JST day is over; return which.  Raises: OSError."""
        today = clock.jst_day_number(now_s - _SEAL_AFTER_S)
        sealed = []
        for name in self.names():
            if name.day < today and self._sealed_header(name) is None:
                with self._alone(), suppress(ArchiveDamaged):
                    if not self.header(name).sealed:
                        self._seal(name)
                        sealed.append(name)
        return sealed

    def _seal(self, name: PackName) -> None:
        with _opened(self.index_path(name)) as index:
            _, rows = _read_open_index(index)
        end = _end_of(rows)
        with _opened(self.pack_path(name)) as pack:
            _cut(pack, end)
            os.fsync(pack)
            digest = _hash(pack)
        octets = b"".join(encode_row(row) for row in sorted(rows, key=lambda row: (row.path, row.number)))
        head = PackHeader(
            name,
            sealed=True,
            rows=len(rows),
            pack_bytes=end,
            last_next_update_s=max((row.next_update_s for row in rows), default=0),
            pack_sha256=digest,
            rows_sha256=hashlib.sha256(octets).digest(),
        )
        write_durable(self.index_path(name), encode_header(head) + octets)

    def _sealed_header(self, name: PackName) -> PackHeader | None:
        found = self._sealed.get(name)
        if found is None:
            with suppress(OSError, ArchiveDamaged):
                head = self.header(name)
                if head.sealed:
                    found = self._sealed[name] = head
        return found

    # --- what there is ---------------------------------------------------------------------------------

    def mark(self, without: Iterable[PackName] = ()) -> ArchiveMark:
        """Return what the catalogue is to say of the archive; the list that it names is on disk then.

        Takes:  packs to leave out, because their time is over.  Raises: OSError.
        """
        left_out = set(without)
        sealed, growing = [], []
        for name in self.names():
            if name in left_out:
                continue
            head = self._sealed_header(name)
            if head is not None:
                sealed.append(PackLine(str(name), head.rows, head.rows_sha256.hex()))
                continue
            octets = self.index_path(name).read_bytes()[HEADER_BYTES:]
            octets = octets[: whole_octets(octets)]
            if octets:
                growing.append(
                    PackLine(str(name), len(octets) // ROW_BYTES, hashlib.sha256(octets).hexdigest())
                )
        content = encode_contents(sealed)
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / contents_file(sha256)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durable(path, content)
        return ArchiveMark(sha256, tuple(growing))

    # --- dropping --------------------------------------------------------------------------------------

    def over(self, now_s: int, days: dict[bytes, int], other_days: int) -> list[PackName]:
        """Return the sealed packs of which nothing need be kept any more.

        Takes:  by issuer (its mark), for how many days after its nextUpdate a CRL is kept; and for how
                many one of a key that is not among them.
        A *now_s* that is ahead of what can have passed counts for less.
        """
        now_s = self.retention.limit(now_s)
        shortest_s = min([other_days, *days.values()]) * clock.DAY_S
        periods = tuple(sorted(days.items()))
        found = []
        for name in self.names():
            head = self._sealed_header(name)
            if head is None or head.last_next_update_s + shortest_s >= now_s:
                continue
            key = (name, periods, other_days)
            if key not in self._ends:
                self._ends[key] = max(
                    (
                        row.next_update_s + days.get(row.issuer, other_days) * clock.DAY_S
                        for row in self.rows(name)
                    ),
                    default=0,
                )
            if self._ends[key] < now_s:
                found.append(name)
        return found

    def remove(self, names: Iterable[PackName]) -> None:
        """Remove packs that no list names any more, and lists that no catalogue names.  Raises: OSError."""
        going = list(names)
        if not going and not list(self.folder.glob(f"*{_DROPPED_SUFFIX}")):
            return
        with self._alone():
            for name in going:
                index = self.index_path(name)
                # Nothing of it is to be found from here on, whatever is still there.
                with suppress(FileNotFoundError):
                    index.rename(index.with_name(f"{index.name}{_DROPPED_SUFFIX}"))
                self._sealed.pop(name, None)
            for path in self.folder.glob(f"*{INDEX_SUFFIX}{_DROPPED_SUFFIX}"):
                dropped = parse_pack_name(path.name.removesuffix(f"{INDEX_SUFFIX}{_DROPPED_SUFFIX}"))
                if dropped is not None:
                    self.pack_path(dropped).unlink(missing_ok=True)
                path.unlink()
            sync_folder(self.folder)

    def lists(self) -> list[Path]:
        """Return the lists of packs that are there."""
        return list(self.folder.glob("contents-*.json"))

    def remove_lists(self, lists: Iterable[Path], but: str) -> None:
        """Remove those of the *lists* of packs that do not have the hash *but*."""
        for path in lists:
            if path.name != contents_file(but):
                path.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only writer.  Raises: OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _opened(self.folder / ".lock") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield


def day_of(crl: PackedCRL) -> int:
    """Return the JST day in whose pack the CRL belongs, the same whenever it is asked."""
    return clock.jst_day_number(crl.published_ms // 1000 or crl.this_update_s)


def _read_open_index(descriptor: int) -> tuple[int, list[PackedCRL]]:
    """Return how many octets of rows are kept, and the rows.  Raises: ArchiveDamaged."""
    octets = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    read_header(octets)
    kept = whole_octets(octets[HEADER_BYTES:])
    return kept, read_rows(octets[HEADER_BYTES : HEADER_BYTES + kept])


def _end_of(rows: Iterable[PackedCRL]) -> int:
    return max((row.offset + row.size for row in rows), default=0)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _trouble_of(source: Path) -> OSError | None:
    try:
        source.stat()
    except OSError as exc:
        return exc
    return None


def _copy(crl: PackedCRL, source: Path, pack: int, end: int) -> Exception | None:
    """Write the octets of *source* into a pack at *end*; return what keeps them from being *crl*."""
    digest, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as file:
            while block := file.read(_BLOCK):
                _write_all(pack, block, end + size)
                digest.update(block)
                size += len(block)
    except OSError as exc:
        return exc
    if (size, digest.digest()) != (crl.size, crl.sha256):
        return IntegrityError(f"{source}: not the octets that the register names")
    return None


def _cut(descriptor: int, end: int) -> None:
    if os.fstat(descriptor).st_size > end:
        os.ftruncate(descriptor, end)


def _write_all(descriptor: int, octets: bytes, at: int) -> None:
    view = memoryview(octets)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _hash(descriptor: int) -> bytes:
    digest = hashlib.sha256()
    at = 0
    while block := os.pread(descriptor, _BLOCK, at):
        digest.update(block)
        at += len(block)
    return digest.digest()
