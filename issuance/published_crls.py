"""What published CRLs say was revoked: the memory that outlives a lost database.

Knows: reading CRL files and archives, telling by signature which issuer made each, and following
complete and delta CRLs, scope by scope, in order of their numbers to who is revoked or held at the end.
Of an archive only the indexes are read for numbers, and only the CRLs asked for.
Does not know: the register; ``restore`` compares the two.
Source: RFC 5280 §5.2.3, §5.2.4 (numbers, deltas), §5.3.1 (removeFromCRL, certificateHold).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certstatus.crl import parse_certificate_list
from certstatus.crl_archive import INDEX_SUFFIX, CRLArchive
from certstatus.crl_catalogue import UNPARTITIONED
from certstatus.crl_entry import CRLEntry
from certstatus.crl_pack import issuer_mark
from certstatus.crl_reason import CRLReason
from certstatus.crl_rows import entries_of
from certstatus.crl_signature import is_signed
from certstatus.crl_stream_decode import CRLFile
from certstatus.errors import CRLRefused, DERError, IntegrityError
from certstatus.x509_reading import UNREADABLE, load_crl
from issuance.crl_register import LAST_NUMBER_MIN
from issuance.issuers import IssuerRecord
from issuance.profiles import scope_of_point

log = logging.getLogger(__name__)

# The folder of an installation in which last CRLs lie ready.
PREPARED_FOLDER = "crl-last"


# (issuer_id, serial numbers) -> those among them of which the caller knows all that CRLs could say.
Known = Callable[[int, Sequence[bytes]], Collection[bytes]]


def _nothing_known(_issuer_id: int, _serials: Sequence[bytes]) -> Collection[bytes]:
    return ()


class PublishedEntry(NamedTuple):
    """A revocation or hold as a CRL gives it."""

    reason: int | None
    revoked_at_s: int
    invalidity_s: int
    crl_number: int


class _Place(NamedTuple):
    """Where a CRL lies: in a file of its own, or in a pack."""

    file: Path
    offset: int = 0
    size: int | None = None

    @property
    def is_packed(self) -> bool:
        """Whether it lies in a pack, whose index says that a CRL is there."""
        return self.size is not None

    def open(self) -> CRLFile:
        """Raises: DERError, OSError — it is none, or gone."""
        return CRLFile(*self)


class _Later(NamedTuple):
    issuer_id: int
    scope: str
    number: int
    is_delta: bool
    this_update_s: int
    place: _Place

    @property
    def order(self) -> tuple[int, str, int, bool]:
        # A complete CRL before the delta of the same number: they say the same.
        return self.issuer_id, self.scope, self.number, self.is_delta


@dataclass(slots=True)
class _ScopeHolds:
    """Who is held by the CRLs of one scope that were followed; ``newest_s``: the newest one's thisUpdate."""

    entries: dict[bytes, PublishedEntry] = field(default_factory=dict)
    newest_s: int = 0


class LastCRL(NamedTuple):
    """A scope's last CRL as it was published; ``published_ms`` 0 where nothing says when.

    ``file``, ``offset``, ``size``, ``sha256``: where its octets lie, and which they are.
    """

    number: int
    this_update_s: int
    next_update_s: int
    published_ms: int
    file: Path
    offset: int
    size: int
    sha256: bytes


@dataclass(slots=True)
class PublishedState:
    """What all CRLs of one issuer together say.

    ``revoked`` and ``held`` by serial (content octets); ``numbers``: the highest number by scope;
    ``this_update_s``: of the newest; ``last``: by scope, the last CRL, if it was out.  ``points``: the
    IssuingDistributionPoint of a partition's CRLs, by scope; ``partitions``: the partition on whose CRL a
    serial has stood.
    """

    revoked: dict[bytes, PublishedEntry] = field(default_factory=dict)
    held: dict[bytes, PublishedEntry] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    points: dict[str, bytes] = field(default_factory=dict)
    partitions: dict[bytes, str] = field(default_factory=dict)
    this_update_s: int = 0
    crls: int = 0
    last: dict[str, LastCRL] = field(default_factory=dict)


def read_published(
    folders: Iterable[Path],
    issuers: list[IssuerRecord],
    after_s: int,
    archives: Iterable[Path] = (),
    known: Known = _nothing_known,
) -> dict[int, PublishedState]:
    """Return, by issuer_id, what the CRL files under *folders* say, and the packs there and in *archives*.

    Numbers count from every CRL; entries from those made at *after_s* or later, since the register
    holds what was published before.  Files that are no CRL, or not signed by one of *issuers*, are
    passed over.
    Takes:  *known*: whose entries are passed over, asked for many serial numbers at a time.
    Memory: what all CRLs list of certificates that are not *known*.
    """
    states = {issuer.issuer_id: PublishedState() for issuer in issuers}
    later: list[_Later] = []
    places = list(folders)
    for path in _crl_files(places):
        found = _read(_Place(path), issuers)
        if found is None:
            continue
        crl, issuer = found.head, found.issuer
        scope = _scope(crl, issuer, path)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        this_update_s = int(crl.last_update_utc.timestamp())
        state = states[issuer.issuer_id]
        state.numbers[scope] = max(number, state.numbers.get(scope, 0))
        state.this_update_s = max(state.this_update_s, this_update_s)
        state.crls += 1
        if number >= LAST_NUMBER_MIN and not _is_delta(crl):
            until_s = int(crl.next_update_utc.timestamp()) if crl.next_update_utc else this_update_s
            state.last[scope] = LastCRL(number, this_update_s, until_s, 0, path, 0, found.size, found.sha256)
        if scope != UNPARTITIONED and (point := _point_der(crl)) is not None:
            state.points[scope] = point
        if this_update_s >= after_s:
            later.append(_Later(issuer.issuer_id, scope, number, _is_delta(crl), this_update_s, _Place(path)))
    later += _archived(places, archives, issuers, after_s, states)
    holds: dict[int, dict[str, _ScopeHolds]] = {issuer_id: {} for issuer_id in states}
    for item in sorted(later, key=lambda found: found.order):
        checked = _read(item.place, issuers)
        if checked is not None:
            of_scope = holds[item.issuer_id].setdefault(item.scope, _ScopeHolds())
            _follow(states[item.issuer_id], of_scope, item, checked.sha256, known)
    for issuer_id, state in states.items():
        state.held = _held(holds[issuer_id], state.partitions)
    return states


def _held(holds: dict[str, _ScopeHolds], partitions: dict[bytes, str]) -> dict[bytes, PublishedEntry]:
    """Return who is held: of the two lists that a certificate is on, what the newer one says.

    Of one age they say the same, unless one was cut between the other's second and its end: then who is on
    either is held.
    """
    held: dict[bytes, PublishedEntry] = {}
    for of_scope in holds.values():
        for serial, entry in of_scope.entries.items():
            lists = [
                holds[name]
                for name in {UNPARTITIONED, partitions.get(serial, UNPARTITIONED)}
                if name in holds
            ]
            newest_s = max((other.newest_s for other in lists), default=0)
            if of_scope.newest_s >= newest_s:
                held[serial] = entry
    return held


def _archived(
    folders: Iterable[Path],
    archives: Iterable[Path],
    issuers: list[IssuerRecord],
    after_s: int,
    states: dict[int, PublishedState],
) -> Iterator[_Later]:
    """Yield the archived CRLs made at *after_s* or later; *states* get the numbers of all."""
    ids = {issuer_mark(issuer.spki_der): issuer.issuer_id for issuer in issuers}
    found = {index.parent for folder in folders for index in folder.rglob(f"*{INDEX_SUFFIX}")}
    for folder in sorted(found | set(archives)):
        for item in CRLArchive(folder).everything():
            issuer_id = ids.get(item.crl.issuer)
            # service, generation, scope
            words = item.crl.path.split("/", 2)
            if issuer_id is None or len(words) != 3:
                continue
            state = states[issuer_id]
            place = _Place(item.pack, item.crl.offset, item.crl.size)
            if item.crl.number >= LAST_NUMBER_MIN:
                # It ends a scope, so a line in an index is not enough.
                last = _read(place, issuers)
                if last is None or last.sha256 != item.crl.sha256:
                    continue
                state.last[words[2]] = LastCRL(
                    item.crl.number,
                    item.crl.this_update_s,
                    item.crl.next_update_s,
                    item.crl.published_ms,
                    item.pack,
                    item.crl.offset,
                    item.crl.size,
                    item.crl.sha256,
                )
            state.numbers[words[2]] = max(item.crl.number, state.numbers.get(words[2], 0))
            state.this_update_s = max(state.this_update_s, item.crl.this_update_s)
            state.crls += 1
            if item.crl.this_update_s >= after_s:
                yield _Later(issuer_id, words[2], item.crl.number, False, item.crl.this_update_s, place)


def _crl_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted(folder.rglob("*.crl")):
            # What is prepared and kept back was never published.
            if path.is_file() and PREPARED_FOLDER not in path.parts:
                yield path


class _Read(NamedTuple):
    """A CRL whose signature holds: what it says besides its entries, whose it is, which octets were read."""

    head: x509.CertificateRevocationList
    issuer: IssuerRecord
    size: int
    sha256: bytes


def _read(place: _Place, issuers: list[IssuerRecord]) -> _Read | None:
    """Read all of a CRL, its entries passed over; None if it is none, or of none of *issuers*.

    Raises: OSError — a file that is there cannot be read.  A pack that cannot is only said.
    """
    trouble = "not signed by the issuer that it is archived for"
    try:
        with place.open() as file:
            head = load_crl(file.head_der)
            head.extensions.get_extension_for_class(x509.CRLNumber)
            digests = file.digests()
            name_der = head.issuer.public_bytes()
            for issuer in issuers:
                key = serialization.load_der_public_key(issuer.spki_der)
                assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
                if name_der in issuer.names_der and is_signed(file, digests, key):
                    return _Read(head, issuer, file.size, digests.whole)
    except OSError as exc:
        if not place.is_packed:
            raise
        trouble = str(exc)
    except (*UNREADABLE, DERError, CRLRefused, x509.ExtensionNotFound, UnsupportedAlgorithm) as exc:
        trouble = str(exc)
    if place.is_packed:
        log.error("%s, CRL at octet %d: %s", place.file, place.offset, trouble)
    return None


def _scope(crl: x509.CertificateRevocationList, issuer: IssuerRecord, path: Path) -> str:
    """Return the scope: from the name of the CRL's own distribution point, else from its place.

    A CA that was taken over keeps the point of its last CRL, which has no name of ours or none at all, or
    that of another installation like this one; there the folders say which scope the file was published in.
    """
    if issuer.imported is not None and (found_here := _scope_of_place(path, issuer, "")):
        return found_here
    try:
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return _scope_of_place(path, issuer)
    before = f"/crl/{issuer.service.lower()}/g{issuer.generation}/"
    for name in point.full_name or ():
        if isinstance(name, x509.DirectoryName) and (found := scope_of_point(name.value)) is not None:
            return found[1]
        if isinstance(name, x509.UniformResourceIdentifier) and before in name.value:
            return name.value.partition(before)[2].rpartition("/")[0]
    return _scope_of_place(path, issuer)


def _scope_of_place(path: Path, issuer: IssuerRecord, elsewhere: str = UNPARTITIONED) -> str:
    """Return the scope of a file below ``<service>/g<generation>/``, *elsewhere* of one that is not."""
    folders = path.parent.parts
    for at in range(len(folders) - 2, 0, -1):
        if folders[at - 1] == issuer.service.lower() and re.fullmatch("g[0-9]+", folders[at]):
            return "/".join(folders[at + 1 :])
    return elsewhere


def _point_der(crl: x509.CertificateRevocationList) -> bytes | None:
    try:
        found = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value.public_bytes()
    except x509.ExtensionNotFound:
        return None
    if found in crl.tbs_certlist_bytes:
        return found
    # Encoded in another way by whoever made it, and to be kept as it is.
    return parse_certificate_list(crl.public_bytes(serialization.Encoding.DER)).idp_der


def _is_delta(crl: x509.CertificateRevocationList) -> bool:
    try:
        crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    except x509.ExtensionNotFound:
        return False
    return True


def _follow(state: PublishedState, holds: _ScopeHolds, which: _Later, sha256: bytes, known: Known) -> None:
    """Take over what a CRL lists.

    Takes:  *sha256*: of the octets whose signature was verified.
    Raises: IntegrityError — others were read now, or an entry in it cannot be read.
    """
    if not which.is_delta:
        # A complete CRL lists all holds of its scope; revocations stay whatever later lists say.
        holds.entries.clear()
    holds.newest_s = max(holds.newest_s, which.this_update_s)
    with which.place.open() as file:
        reading = file.reading()
        try:
            for rows in reading.rows():
                _follow_entries(state, holds, entries_of(rows), which, known)
            read = reading.digests().whole
        except DERError:
            # An old CA's may have entries that no row has room for; to follow some twice changes nothing.
            read = _follow_whole(state, holds, which, file, known)
        if read != sha256:
            raise IntegrityError(f"{which.place.file}: it changed while it was read")


def _follow_whole(
    state: PublishedState, holds: _ScopeHolds, which: _Later, file: CRLFile, known: Known
) -> bytes:
    """Take over what a CRL lists that is read at once; return the SHA-256 of what was read."""
    content = file.read()
    try:
        entries = parse_certificate_list(content).entries
    except DERError as exc:
        raise IntegrityError(f"{which.place.file}: what it lists cannot be read: {exc}") from exc
    _follow_entries(state, holds, entries, which, known)
    return hashlib.sha256(content).digest()


def _follow_entries(
    state: PublishedState, holds: _ScopeHolds, entries: list[CRLEntry], which: _Later, known: Known
) -> None:
    passed_over = known(which.issuer_id, [entry.serial for entry in entries])
    for entry in entries:
        if entry.serial not in passed_over:
            _follow_entry(state, holds, entry, which)


def _follow_entry(state: PublishedState, holds: _ScopeHolds, entry: CRLEntry, which: _Later) -> None:
    serial = entry.serial
    if which.scope != UNPARTITIONED:
        state.partitions[serial] = which.scope
    if entry.reason == CRLReason.REMOVE_FROM_CRL:
        holds.entries.pop(serial, None)
        return
    found = PublishedEntry(entry.reason or None, entry.revoked_at_s, entry.invalidity_at_s or 0, which.number)
    if entry.reason == CRLReason.CERTIFICATE_HOLD:
        holds.entries[serial] = found
    else:
        holds.entries.pop(serial, None)
        state.revoked.setdefault(serial, found)
