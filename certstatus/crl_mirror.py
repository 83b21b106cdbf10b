"""Keeping a folder of CRLs current: one round over a server's list, fetching only what changed.

::

    what changed in the list ─▶ what is wanted ─▶ deltas that fit what is here ─▶ complete CRLs, their deltas
                               each: fetched ─▶ hash ─▶ signature, scope, number, dates ─▶ renamed

A delta is fetched where its base is not newer than the complete CRL that is here; a complete one only where
no delta leads on from that.  Nothing replaces a good file but a better one.

Under which name a series of CRLs is listed nobody signs: only its distribution point is in the CRLs.  So a
name belongs to the point that it was met with first, for as long as what is there is in force and no other
name is known to be that point's.  Whoever lists wrong names for a while delays what is right, and ends with
its own CRLs.
Knows: those rules.  Does not know: HTTP (``crl_server``), the layout (``crl_folder``), signatures
(``crl_trust``).
Source: RFC 5280 §5.2.3 (numbers), §5.2.4 (which base a delta fits), §6.3.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from certstatus import clock
from certstatus.crl import NO_END_S
from certstatus.crl_catalogue import COMPLETE, DELTA, KINDS
from certstatus.crl_folder import CRLFolder, KeptCRL, kept_crl
from certstatus.crl_listing import (
    ListedCRL,
    ListedScope,
    join_listing,
    next_since,
    read_ended,
    read_listing,
)
from certstatus.crl_server import CRLServer
from certstatus.crl_trust import TrustedCA, check_dates, fits, read_signed_crl
from certstatus.errors import (
    EXIT_DATA,
    EXIT_NO_INPUT,
    EXIT_TEMPORARY,
    CRLRefused,
    FetchFailed,
    NotEntitled,
)

BYTES_MAX = 1 << 30
# A list is nobody's word: what one of a wrong server says is joined to no later differences for longer.
WHOLE_LIST_S = 3600


@dataclass(slots=True)
class MirrorReport:
    """What a round did.

    ``fetched``: "<scope> <kind> <number>" of what came; ``current``: scopes that are now as listed;
    ``refused`` and ``missed``: what was wrong, and what could not be had, a line each; ``ended``: scopes that
    have no CRLs any more, a line each, the first time and whenever one is asked for by name; ``has_ended``:
    whether of something that was asked for by name nothing is left.
    """

    fetched: list[str] = field(default_factory=list)
    current: int = 0
    octets: int = 0
    refused: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    has_ended: bool = False

    @property
    def exit_code(self) -> int:
        """0 all current; 65 something was refused; 75 something could not be fetched; 66 neither, but what
        was asked for by name has ended, and there is no use in coming again (sysexits)."""
        if self.refused:
            return EXIT_DATA
        if self.missed:
            return EXIT_TEMPORARY
        return EXIT_NO_INPUT if self.has_ended else 0

    @property
    def is_final(self) -> bool:
        """Say whether another round would find nothing to keep current."""
        return self.exit_code == EXIT_NO_INPUT and not self.current


class _Kept:
    """What is here of a scope, as the round goes on."""

    def __init__(self, complete: KeptCRL | None, delta: KeptCRL | None) -> None:
        self.of: dict[str, KeptCRL | None] = {COMPLETE: complete, DELTA: delta}


def mirror_round(
    server: CRLServer,
    folder: CRLFolder,
    now_s: int,
    patterns: Sequence[str] = (),
    bytes_max: int = BYTES_MAX,
) -> MirrorReport:
    """Bring the folder, which is locked, up to the server's list.

    Takes:   *patterns*: only scopes that match one of them, ``auth/*``; none: all.
    Raises:  FetchFailed, NotEntitled, CRLRefused — there is no list to go by; OSError — the folder.
    """
    report = MirrorReport()
    try:
        listed, ended = _listed(server, folder, now_s)
        cas = folder.cas()
        chosen = [item for item in listed if not patterns or _matches(item.scope, patterns)]
        _note_ended(folder, listed, ended, patterns, now_s, report)
        later = []
        names = _Names(folder, {item.scope: item for item in listed}, now_s)
        for item in chosen:
            ca = cas.get(item.key_id)
            if ca is None:
                report.refused.append(f"{item.scope}: no CA certificate for key {item.key_id} is trusted")
            elif not _take(server, folder, item, ca, names, bytes_max, report, only_delta=True):
                later.append((item, ca))
        for item, ca in later:
            _take(server, folder, item, ca, names, bytes_max, report, only_delta=False)
        crls = [crl for item in chosen for crl in (item.complete, item.delta) if crl is not None]
        folder.drop_parts({crl.sha256 for crl in crls})
        if report.refused or report.missed:
            # Who knows whether that is the list's fault: differences to it would leave it so.
            folder.doubt_list()
    finally:
        folder.save()
    return report


def _note_ended(
    folder: CRLFolder,
    listed: Sequence[ListedScope],
    ended: dict[str, str],
    patterns: Sequence[str],
    now_s: int,
    report: MirrorReport,
) -> None:
    """Note which scopes have no CRLs any more, and for which patterns there is nothing else.

    That a scope has ended nobody signs, so it must fit what was verified: a CRL that is here and in force
    would be listed still.
    """
    names = {item.scope for item in listed}
    told = {scope: time for scope, time in (folder.ended | ended).items() if scope not in names}
    in_force = {
        scope: crl
        for scope in told
        if (crl := folder.noted(scope, COMPLETE)) is not None and crl.next_update_s > now_s
    }
    lines = {
        scope: _ended_text(scope, time, folder.noted(scope, COMPLETE))
        for scope, time in sorted(told.items())
        if scope not in in_force
    }
    named: set[str] = set()
    for pattern in patterns:
        over = {scope for scope in told if fnmatchcase(scope, pattern)}
        if any(fnmatchcase(name, pattern) for name in names):
            continue
        if over & lines.keys():
            report.has_ended = True
            named |= over & lines.keys()
        elif not over:
            report.missed.append(f"{pattern}: no scope in the list matches")
    for scope, crl in in_force.items():
        if not patterns or _matches(scope, patterns):
            until = clock.utc_text(crl.next_update_s)
            report.missed.append(
                f"{scope}: said to have ended; CRL {crl.number}, which is here, is in force until {until}"
            )
    new = {scope for scope in lines.keys() - folder.ended.keys() if folder.noted(scope, COMPLETE) is not None}
    report.ended = [lines[scope] for scope in lines if scope in named | new]
    folder.ended = {scope: time for scope, time in told.items() if scope in named | new | folder.ended.keys()}


def _ended_text(scope: str, time: str, crl: KeptCRL | None) -> str:
    here = "no CRL of it is here"
    if crl is not None:
        here = f"CRL {crl.number}, its last, was over at {clock.utc_text(crl.next_update_s)} and stays here"
    return f"{scope}: all certificates in it had ended by {time}, no CRL follows; {here}"


class _Names:
    """Which names of scopes belong to which distribution points, by what was verified."""

    def __init__(self, folder: CRLFolder, listed: dict[str, ListedScope], now_s: int) -> None:
        self._folder = folder
        self._listed = listed
        self.now_s = now_s

    def are_firm(self, scope: str) -> bool:
        """Say whether what is noted under a name binds it: to its point, and to numbers that only rise.

        It does not once all of it is over, or once another name has the same point and says as much of it, or
        if the list has it under another name and it would never be over.
        """
        noted = [crl for kind in KINDS if (crl := self._folder.noted(scope, kind)) is not None]
        complete = self._folder.noted(scope, COMPLETE)
        if complete is None or all(crl.next_update_s <= self.now_s for crl in noted):
            return False
        number = max(crl.number for crl in noted)
        for name, crls in self._folder.same_point(complete).items():
            if name != scope and any(crl.number >= number and crl.next_update_s > self.now_s for crl in crls):
                return False
        return complete.next_update_s < NO_END_S or not self._is_elsewhere(scope, complete)

    def _is_elsewhere(self, scope: str, crl: KeptCRL) -> bool:
        here = self._listed.get(scope)
        return (here is None or not _is_listed(here, crl)) and any(
            _is_listed(item, crl) for item in self._listed.values()
        )

    def owner(self, scope: str, noted: dict[str, list[KeptCRL]]) -> str | None:
        """Return another name under which the list has what is *noted* of a point, by name."""
        for name, crls in noted.items():
            item = self._listed.get(name)
            if name != scope and item is not None and any(_is_listed(item, crl) for crl in crls):
                return name
        return None


def _is_listed(item: ListedScope, crl: KeptCRL) -> bool:
    listed = item.complete if crl.base_number is None else item.delta
    return listed is not None and listed.sha256 == crl.sha256


def _listed(server: CRLServer, folder: CRLFolder, now_s: int) -> tuple[list[ListedScope], dict[str, str]]:
    """Return the scopes that the server lists, and those that it says have ended."""
    is_recent = 0 <= now_s - folder.list_whole_s < WHOLE_LIST_S
    before = folder.read_list() if folder.list_url == server.url and is_recent else None
    if before is not None and (since := next_since(before)):
        changed = server.list_crls(since=since)
        assert changed is not None
        joined = join_listing(before, changed.content)
        if joined is not None:
            listed = read_listing(joined), read_ended(joined)
            if joined != before:
                folder.put_list(joined, server.url, "")
            return listed
        # Scopes went, or others may be had than before.
        fetched = server.list_crls()
    elif before is not None:
        fetched = server.list_crls(folder.list_etag)
        if fetched is None:
            return read_listing(before), read_ended(before)
    else:
        fetched = server.list_crls()
    assert fetched is not None
    listed = read_listing(fetched.content), read_ended(fetched.content)
    folder.put_list(fetched.content, server.url, fetched.etag, now_s)
    return listed


def _matches(scope: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(scope, pattern) for pattern in patterns)


def _take(
    server: CRLServer,
    folder: CRLFolder,
    listed: ListedScope,
    ca: TrustedCA,
    names: _Names,
    bytes_max: int,
    report: MirrorReport,
    *,
    only_delta: bool,
) -> bool:
    """Bring one scope up to date; False: *only_delta* was asked for, and that does not do."""
    kept = _Kept(*(folder.kept(listed.scope, kind, ca) for kind in KINDS))
    try:
        wanted = _wanted(listed, kept, folder, names)
        if only_delta and any(crl.kind == COMPLETE for crl in wanted):
            return False
        for crl in wanted:
            kept.of[crl.kind] = _replace(server, folder, listed, crl, kept, ca, names, bytes_max)
            if folder.noted(listed.scope, DELTA) is None:
                # One of another series went with it.
                kept.of[DELTA] = None
            report.fetched.append(f"{listed.scope} {crl.kind} {crl.number}")
            report.octets += crl.size
        _check_age(kept, names.now_s)
        report.current += 1
    except CRLRefused as exc:
        report.refused.append(f"{listed.scope}: {exc}")
    except (FetchFailed, NotEntitled) as exc:
        report.missed.append(f"{listed.scope}: {exc}")
    return True


def _wanted(listed: ListedScope, kept: _Kept, folder: CRLFolder, names: _Names) -> list[ListedCRL]:
    """Return what must be fetched of a scope, in this order.

    Raises: CRLRefused — the list is behind what was here before; FetchFailed — nothing is published.
    """
    complete, delta = listed.complete, listed.delta
    if complete is None:
        raise FetchFailed("nothing is published yet")
    is_other = False
    for crl in (complete, delta):
        noted = None if crl is None else folder.noted(listed.scope, crl.kind)
        if crl is not None and noted is not None:
            if crl.sha256 != noted.sha256 and crl.number <= noted.number and not names.are_firm(listed.scope):
                # The name may be another point's: what is fetched says so.
                is_other = True
            elif crl.number < noted.number:
                raise CRLRefused(
                    f"{crl.kind} CRL {crl.number} is listed, and {noted.number} was here before: rolled back"
                )
            if crl.number == noted.number and crl.sha256 != noted.sha256:
                raise CRLRefused(f"{crl.kind} CRL {crl.number} is listed as another one than it was before")
    here, here_delta = kept.of[COMPLETE], kept.of[DELTA]
    wanted: list[ListedCRL] = []
    if is_other:
        return [complete] if delta is None or not _fits(delta, complete.number) else [complete, delta]
    if here is None or (here.number < complete.number and not _spares(delta, here, complete)):
        wanted.append(complete)
    number = complete.number if wanted or here is None else here.number
    has_delta = here_delta is not None and delta is not None and here_delta.number == delta.number
    if delta is not None and not has_delta and _fits(delta, number):
        wanted.append(delta)
    return wanted


def _spares(delta: ListedCRL | None, here: KeptCRL, complete: ListedCRL) -> bool:
    """Say whether what is here, joined with the listed delta, says all that the listed complete CRL does."""
    return delta is not None and delta.number >= complete.number and _fits(delta, here.number)


def _fits(delta: ListedCRL, number: int) -> bool:
    """Say whether a delta says more than complete CRL *number*, and can be joined to it."""
    assert delta.base_number is not None
    return fits(delta.base_number, delta.number, number)


def _replace(
    server: CRLServer,
    folder: CRLFolder,
    listed: ListedScope,
    crl: ListedCRL,
    kept: _Kept,
    ca: TrustedCA,
    names: _Names,
    bytes_max: int,
) -> KeptCRL:
    """Fetch one CRL, verify it, and give it its name.

    Raises: FetchFailed, NotEntitled — it could not be had; CRLRefused — it is not what it must be.
    """
    if crl.size > bytes_max:
        raise CRLRefused(f"{crl.kind} CRL {crl.number}: {crl.size} bytes, at most {bytes_max} are taken")
    part = folder.part(crl.sha256)
    server.fetch(crl.place, crl.size, crl.sha256, part)
    try:
        found = _verified(folder, listed, crl, kept, ca, names, part)
    except CRLRefused as exc:
        part.unlink()
        raise CRLRefused(f"{crl.kind} CRL {crl.number}: {exc}") from exc
    folder.put(listed.scope, crl.kind, part, found)
    return found


def _verified(
    folder: CRLFolder,
    listed: ListedScope,
    crl: ListedCRL,
    kept: _Kept,
    ca: TrustedCA,
    names: _Names,
    part: Path,
) -> KeptCRL:
    """Return what is to be noted of a CRL that may replace the one that is here.

    Raises: CRLRefused — signature, kind, number, date or scope is not what it must be.
    """
    signed = read_signed_crl(part, ca)
    check_dates(signed, names.now_s)
    if (signed.number, signed.base_number) != (crl.number, crl.base_number):
        raise CRLRefused(f"number {signed.number}, base {signed.base_number}: not what the list says")
    found = kept_crl(signed, ca, part.stat().st_mtime_ns)
    # Of a point, whatever it was called: numbers and dates only rise.
    noted = folder.same_point(found)
    for before in (crl for crls in noted.values() for crl in crls):
        if (before.base_number is None) == (found.base_number is None):
            if found.number < before.number:
                raise CRLRefused(f"{before.number} was here before: rolled back")
            if found.number == before.number and found.sha256 != before.sha256:
                raise CRLRefused("another one than it was before")
            if found.this_update_s < before.this_update_s:
                raise CRLRefused("dated before the one that was here")
    # The scope is the distribution point: what a scope's CRLs began with, they keep (§5.2.4 (c)).
    known = folder.noted(listed.scope, COMPLETE) if crl.kind == COMPLETE else kept.of[COMPLETE]
    is_other = known is not None and (known.key_id, known.idp) != (found.key_id, found.idp)
    if is_other and (crl.kind == DELTA or names.are_firm(listed.scope)):
        raise CRLRefused("its distribution point is not that of the scope's other CRLs")
    if (other := names.owner(listed.scope, noted)) is not None:
        raise CRLRefused(f"its distribution point is that of {other}")
    return found


def _check_age(kept: _Kept, now_s: int) -> None:
    """Make sure that what is here can be relied on now.  Raises: CRLRefused — all of it is over."""
    complete, delta = kept.of[COMPLETE], kept.of[DELTA]
    assert complete is not None
    until_s = complete.next_update_s
    base_number = None if delta is None else delta.base_number
    if delta is not None and base_number is not None and fits(base_number, delta.number, complete.number):
        until_s = max(until_s, delta.next_update_s)
    if until_s <= now_s:
        raise CRLRefused("expired, and nothing newer is listed")
