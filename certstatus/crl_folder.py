"""A folder of CRLs that somebody relies on: CAs, the newest verified CRL of each kind, and notes of them.

::

    DIR/ca/<key_id>.cer          CA certificates that are trusted; their holder put them there
    DIR/<scope>/complete.crl     verified before it got this name
    DIR/<scope>/delta.crl        the same; of use while it fits the complete one
    DIR/list.json                the server's list that was read last
    DIR/mirror.json              notes: what each file is, so that unchanged files are not read again
    DIR/.parts/<sha256>          transfers that have not ended

Knows: that layout, one writer at a time, and that a file under its name is always whole.
Does not know: servers, and which CRL should be there (``crl_mirror``).
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from certstatus.crl_catalogue import COMPLETE, DELTA, KINDS
from certstatus.crl_trust import SignedCRL, TrustedCA, read_signed_crl, read_trusted_ca
from certstatus.durable import write_durable
from certstatus.errors import CRLRefused, FolderBusy

FORMAT = 1
_CAS = "ca"
_PARTS = ".parts"
_NOTES = "mirror.json"
_LIST = "list.json"


@dataclasses.dataclass(frozen=True, slots=True)
class KeptCRL:
    """A verified CRL in the folder.

    ``idp`` and ``key_id`` in hex, ``idp`` None without one; times in POSIX seconds; ``size`` and
    ``modified_ns`` tell whether the file is still the one that was verified.
    """

    number: int
    base_number: int | None
    this_update_s: int
    next_update_s: int
    idp: str | None
    key_id: str
    sha256: str
    size: int
    modified_ns: int


class CRLFolder:
    """The folder.  Writing needs ``locked``; reading does not, since names change in one step only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # By file name below the folder, as ``auth/g1/all/complete.crl``.
        self._notes: dict[str, KeptCRL] = {}
        self.list_etag = ""
        self.list_url = ""
        # Scopes that no CRL follows in: when all in them had ended, as a server said.
        self.ended: dict[str, str] = {}
        # When the list came as a whole.
        self.list_whole_s = 0
        self._read_notes()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes.  Raises: FolderBusy — somebody else is."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise FolderBusy(f"{self.path}: another process keeps it current") from exc
            yield
        finally:
            os.close(descriptor)

    # --- CAs ---------------------------------------------------------------------------------------

    def cas(self) -> dict[str, TrustedCA]:
        """Return the CAs that are trusted, by key_id in hex.

        Raises: CRLRefused — a file among them is not one.
        """
        paths = sorted(path for path in (self.path / _CAS).glob("*.cer") if not path.is_dir())
        found = [read_trusted_ca(path.read_bytes(), path) for path in paths]
        return {ca.key_id.hex(): ca for ca in found}

    def trust(self, ca: TrustedCA) -> None:
        """Keep a CA's certificate."""
        (self.path / _CAS).mkdir(exist_ok=True)
        content = ca.certificate.public_bytes(Encoding.DER)
        path = self.path / _CAS / f"{ca.key_id.hex()}.cer"
        if not path.exists() or path.read_bytes() != content:
            write_durable(path, content)

    # --- CRLs --------------------------------------------------------------------------------------

    def file(self, scope: str, kind: str) -> Path:
        """Return where the CRL of a scope lies."""
        return self.path / scope / f"{kind}.crl"

    def files(self) -> list[tuple[str, str, Path]]:
        """Return (scope, kind, path) of all CRLs that are there."""
        return [
            (path.parent.relative_to(self.path).as_posix(), path.stem, path)
            for path in sorted(self.path.rglob("*.crl"))
            if path.stem in KINDS
        ]

    def noted(self, scope: str, kind: str) -> KeptCRL | None:
        """Return what was noted of the last verified CRL, whether its file is still there or not."""
        return self._notes.get(_name(scope, kind))

    def kept(self, scope: str, kind: str, ca: TrustedCA) -> KeptCRL | None:
        """Return what the file is; None if there is none, or not one that *ca* has signed.

        A file that is not the one noted is read and verified again.
        """
        path, noted = self.file(scope, kind), self.noted(scope, kind)
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        if (
            noted is not None
            and (noted.size, noted.modified_ns) == (found.st_size, found.st_mtime_ns)
            and noted.key_id == ca.key_id.hex()
        ):
            return noted
        try:
            kept = kept_crl(read_signed_crl(path, ca), ca, found.st_mtime_ns)
        except CRLRefused:
            return None
        if (kept.base_number is None) != (kind == COMPLETE) or (noted and kept.number < noted.number):
            return None
        self._notes[_name(scope, kind)] = kept
        return kept

    def same_point(self, kept: KeptCRL) -> dict[str, list[KeptCRL]]:
        """Return what was noted of the same key and distribution point, by scope, the one of *kept* too."""
        found: dict[str, list[KeptCRL]] = {}
        for name, other in self._notes.items():
            if (other.key_id, other.idp) == (kept.key_id, kept.idp):
                found.setdefault(name.rpartition("/")[0], []).append(other)
        return found

    def part(self, sha256: str) -> Path:
        """Return where a transfer is gathered."""
        (self.path / _PARTS).mkdir(exist_ok=True)
        return self.path / _PARTS / sha256

    def drop_parts(self, wanted: set[str]) -> None:
        """Remove transfers of files that nobody wants any more; *wanted*: their hashes."""
        if (self.path / _PARTS).is_dir():
            for path in (self.path / _PARTS).iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    def put(self, scope: str, kind: str, part: Path, kept: KeptCRL) -> None:
        """Give a verified file, whose octets are on the disk, its name in one step.

        A step that power loss takes back leaves the file of before, which the next round sees and renews;
        so thousands of small files need not wait for the disk twice each.
        Raises: CRLRefused — something else has the name; no other scope has to wait for that.
        """
        path = self.file(scope, kind)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.rename(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
            part.unlink()
            raise CRLRefused(f"{path}: something is in the way: {exc.strerror}") from exc
        self._notes[_name(scope, kind)] = kept
        delta = self.noted(scope, DELTA)
        if kind == COMPLETE and delta is not None and (delta.key_id, delta.idp) != (kept.key_id, kept.idp):
            # Of another series, which nothing here belongs to any more.
            self.file(scope, DELTA).unlink(missing_ok=True)
            del self._notes[_name(scope, DELTA)]

    # --- notes -------------------------------------------------------------------------------------

    def put_list(self, content: bytes, url: str, etag: str, whole_s: int | None = None) -> None:
        """Keep the server's list; it is gone on from once ``save`` has been called.

        Takes:  *whole_s*: when it came as a whole, POSIX seconds; None: it was joined to the one before.
        """
        write_durable(self.path / _LIST, content)
        self.list_url, self.list_etag = url, etag
        self.list_whole_s = self.list_whole_s if whole_s is None else whole_s

    def doubt_list(self) -> None:
        """Have the next round ask for the whole list, whatever the one that is here says."""
        self.list_url = self.list_etag = ""

    def read_list(self) -> bytes | None:
        """Return the list that was read last, None without one."""
        try:
            return (self.path / _LIST).read_bytes()
        except FileNotFoundError:
            return None

    def save(self) -> None:
        """Write the notes."""
        said = {
            "format": FORMAT,
            "list": {
                "url": self.list_url,
                "etag": self.list_etag,
                "whole_s": self.list_whole_s,
                "sha256": _sha256(self.read_list() or b""),
            },
            "ended": self.ended,
            "files": {name: dataclasses.asdict(kept) for name, kept in sorted(self._notes.items())},
        }
        write_durable(self.path / _NOTES, json.dumps(said, indent=1).encode())

    def _read_notes(self) -> None:
        try:
            said: dict[str, Any] = json.loads((self.path / _NOTES).read_bytes())
            if said["format"] == FORMAT:
                self._notes = {name: KeptCRL(**item) for name, item in said["files"].items()}
                self.ended = {str(scope): str(time) for scope, time in said.get("ended", {}).items()}
                listed = said["list"]
                # Written after the list: after a crash in between, the tag would be another list's.
                if listed["sha256"] == _sha256(self.read_list() or b""):
                    self.list_url, self.list_etag = listed["url"], listed["etag"]
                    self.list_whole_s = int(listed.get("whole_s", 0))
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            # They spare work, and are made again.
            self._notes, self.ended = {}, {}


def kept_crl(crl: SignedCRL, ca: TrustedCA, modified_ns: int) -> KeptCRL:
    """Return what is noted of a verified CRL."""
    return KeptCRL(
        number=crl.number,
        base_number=crl.base_number,
        this_update_s=crl.this_update_s,
        next_update_s=crl.next_update_s,
        idp=None if crl.idp_der is None else crl.idp_der.hex(),
        key_id=ca.key_id.hex(),
        sha256=crl.sha256.hex(),
        size=crl.size,
        modified_ns=modified_ns,
    )


def _name(scope: str, kind: str) -> str:
    return f"{scope}/{kind}.crl"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
