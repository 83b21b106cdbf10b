"""CRLs over HTTP, for those who are entitled to them.

::

    fresh? ─▶ which file ─▶ entitled? ─▶ applied so far? ─▶ is it that file? ─▶ conditions ─▶ bytes, counted
     503      404, 410        403            503               503              304 412 416

A file is served only if the catalogue under a verified beat names it, its size and SHA-256 are
those named there, and this worker has applied everything the CRL was cut after: so CRL and OCSP never
contradict each other.  A complete CRL that is listed no longer comes, by its number, from the archive
(``archived_crls``) as long as it is retained.

Counting: a transfer counts when its last bytes go out, as what it then is (complete, delta or
partial); one that is broken off before counts as aborted.
Knows: names, headers, the transfer.  Does not know: how CRLs are made or fetched (publisher,
``fetch_crls``), which of them are here (``held_crls``), whether one is what it must be
(``checked_crls``); conditions and ranges (``http_conditions``).
Source: RFC 5280 §4.2.1.13, §5.2.4; RFC 2585 §4.2; RFC 9110, 9111; Act arts. 17, 18, 36, 37, 40.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from certstatus import clock
from certstatus.counters import Provision
from certstatus.crl_catalogue import DELTA, CatalogueEntry, EndedScope
from certstatus.errors import ArchiveDamaged, CountersUnavailable
from responder.archived_crls import ArchivedCRLs, Located, issuer_named
from responder.asker import Askers
from responder.checked_crls import CheckedCRLs, OpenedCRL
from responder.http_conditions import Decision, decide
from responder.pace import Pace
from responder.short_answers import come_later, short_answer
from responder.standing import Follows, Standing
from responder.wire import http_date

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/pkix-crl"
CHUNK_BYTES = 256 * 1024
# The last piece, which is counted before it is written: all that may still lie with us by then.
LAST_BYTES_MAX = 16 * 1024
# Requests begun and pieces written in one turn of the loop: one takes 0.1 to 0.3 ms.
_PIECES_PER_TURN = 8
_AGE_S_MAX = 365 * 86_400


class CRLFiles:
    """One worker's CRL service.

    *askers* must be made for the kind "crl"; *write_time_s* bounds how long a reader may take to
    accept ``CHUNK_BYTES``; *archive*: the folder of the archive, by default one in *folder*.
    """

    def __init__(
        self,
        folder: Path,
        follower: Follows,
        askers: Askers,
        write_time_s: float,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        archive: Path | None = None,
    ) -> None:
        # Fixed.
        self._crls = CheckedCRLs(folder)
        self._archive = ArchivedCRLs(folder / "archive" if archive is None else archive)
        self._follower = follower
        self._askers = askers
        self._write_time_s = write_time_s
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._pace = Pace(_PIECES_PER_TURN)

    async def serve(self, request: web.BaseRequest, path: str, who: str) -> web.StreamResponse:
        """Answer a request for ``/crl/<path>`` from the address *who*."""
        if request.method not in ("GET", "HEAD"):
            return short_answer(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        await self._pace.wait()
        try:
            return await self._answer(request, path, who)
        except CountersUnavailable as exc:
            log.error("%s", exc)
            return come_later()

    async def _answer(self, request: web.BaseRequest, path: str, who: str) -> web.StreamResponse:
        """Answer a GET or HEAD.  Raises: CountersUnavailable — before anything was sent."""
        standing = self._follower.standing
        now_ms = self._now_ms()
        if not standing.is_fresh(now_ms, self._monotonic_s()) or not standing.catalogue.is_known:
            return come_later()
        entry = standing.catalogue.find(path)
        awaited = standing.catalogue.awaited(path) if entry is None else None
        named = entry or awaited
        issuer_id = _issuer_of(standing, path) if named is None else named.issuer_id
        if issuer_id is None:
            return short_answer(HTTPStatus.NOT_FOUND)
        if not self._is_entitled(who, issuer_id, standing, now_ms // 1000):
            return self._refuse(who, issuer_id, standing, now_ms // 1000)
        if awaited is not None:
            # Published, and its file is on its way to this host.
            return come_later()
        place: tuple[Path, int] | None = None
        if entry is None:
            # Only for who may have it: looking costs more than a name in a dictionary.
            try:
                located = await self._archived(standing, path)
            except ArchiveDamaged as exc:
                log.error("CRL %s: %s", path, exc)
                return come_later()
            except FileNotFoundError:
                # Other hosts may have it, whatever became of its scope.
                return short_answer(HTTPStatus.NOT_FOUND)
            if located is None:
                # Of a scope that has ended there is none any more, nor will there be.
                is_over = _ended(standing, path) is not None
                return short_answer(HTTPStatus.GONE if is_over else HTTPStatus.NOT_FOUND)
            entry, place = located.entry, (located.pack, located.offset)
        if entry.seq > standing.seq:
            return come_later()
        opened = await self._crls.open(entry, place)
        if opened is None:
            return come_later()
        try:
            # Dates stand still while the clock catches up with where it was set back from.
            is_dated = path == entry.file or standing.catalogue.has_date_of_its_own(entry)
            return await self._transfer(request, who, entry, path, opened, is_dated)
        finally:
            os.close(opened.descriptor)

    # --- which, and who ----------------------------------------------------------------------------

    async def _archived(self, standing: Standing, path: str) -> Located | None:
        """Return the CRL from the archive; raises as ``ArchivedCRLs.find``."""
        issuer = issuer_named(standing, path)
        if issuer is None or standing.archive is None:
            return None
        return await self._archive.find(standing.archive, issuer, path)

    def _is_entitled(self, who: str, issuer_id: int, standing: Standing, now_s: int) -> bool:
        asker = self._askers.find(who, standing, now_s)
        return issuer_id in asker.entitled

    def _refuse(self, who: str, issuer_id: int, standing: Standing, now_s: int) -> web.Response:
        try:
            asker = self._askers.find(who, standing, now_s)
            self._askers.refuse(asker, Provision.REFUSED_CRL, issuer_id, standing, now_s)
        except CountersUnavailable as exc:
            # A refusal gives nothing away, so it may go out uncounted.
            log.warning("%s", exc)
        return short_answer(HTTPStatus.FORBIDDEN)

    def _count(self, who: str, entry: CatalogueEntry, kind: Provision) -> bool:
        """Count one provision as of now; say whether the asker is (still) entitled to it.

        Raises: CountersUnavailable — then it may not be given.
        """
        found = self._row(who, entry)
        if found is None:
            return False
        cells, row = found
        cells[row + kind] += 1
        return True

    def _may_count(self, who: str, entry: CatalogueEntry) -> None:
        """Make sure that there is something to count in.  Raises: CountersUnavailable."""
        self._row(who, entry)

    def _row(self, who: str, entry: CatalogueEntry) -> tuple[memoryview, int] | None:
        standing, now_s = self._follower.standing, self._now_ms() // 1000
        asker = self._askers.find(who, standing, now_s)
        row = self._askers.row(asker, entry.issuer_id, standing, now_s)
        return None if row is None else (asker.cells, row)

    # --- the transfer ------------------------------------------------------------------------------

    async def _transfer(
        self,
        request: web.BaseRequest,
        who: str,
        entry: CatalogueEntry,
        path: str,
        opened: OpenedCRL,
        is_dated: bool,
    ) -> web.StreamResponse:
        """Answer by the file; *is_dated*: its thisUpdate tells it from the others that *path* has led to."""
        now_s = self._now_ms() // 1000
        headers = {name: ",".join(request.headers.getall(name)) for name in request.headers}
        decision = decide(
            request.method,
            _Insensitive(headers),
            entry.sha256,
            entry.this_update_s,
            entry.size,
            now_s,
            is_date_its_own=is_dated,
        )
        public = self._is_public(entry)
        response = web.StreamResponse(
            status=decision.status, headers=_headers(entry, path, decision, now_s, public)
        )
        if decision.status == HTTPStatus.NOT_MODIFIED:
            return await self._send_head(request, response, who, entry, Provision.CRL_NOT_MODIFIED)
        response.content_length = decision.end - decision.start
        if decision.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return await self._send_head(request, response, who, entry, None)
        if request.method == "HEAD":
            return await self._send_head(request, response, who, entry, Provision.CRL_HEAD)
        kind = Provision.CRL_DELTA if entry.kind == DELTA else Provision.CRL_COMPLETE
        if decision.status == HTTPStatus.PARTIAL_CONTENT:
            kind = Provision.CRL_PARTIAL
        return await self._send(request, response, who, entry, decision, kind, opened)

    def _is_public(self, entry: CatalogueEntry) -> bool:
        served = self._follower.standing.access.by_id.get(entry.issuer_id)
        return served is not None and served.issuer.access == "public"

    async def _send_head(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        who: str,
        entry: CatalogueEntry,
        kind: Provision | None,
    ) -> web.StreamResponse:
        """Send an answer without a body, counted unless *kind* is None."""
        try:
            await self._drain(request)
            if kind is not None and not self._count(who, entry, kind):
                return short_answer(HTTPStatus.FORBIDDEN)
            await response.prepare(request)
            await response.write_eof()
            await self._drain(request)
        except OSError as exc:
            log.info("CRL %s to %s: not taken: %s", entry.file, who, str(exc) or type(exc).__name__)
            _abort(request)
        return response

    async def _drain(self, request: web.BaseRequest) -> None:
        """Wait until the reader has taken what it was sent, of this answer and those before it.

        aiohttp does so for long answers only: short ones would pile up before one who never reads.
        Raises: OSError (TimeoutError being one) — it does not, or is gone.
        """
        await asyncio.wait_for(request.writer.drain(), self._write_time_s)

    async def _send(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        who: str,
        entry: CatalogueEntry,
        decision: Decision,
        kind: Provision,
        opened: OpenedCRL,
    ) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        at, end = decision.start, decision.end
        is_counted = False
        # What cannot be counted later is better not begun.
        self._may_count(who, entry)
        try:
            while at < end:
                # From the page cache this takes 20 µs, from a disk it may take anything.
                chunk = await loop.run_in_executor(
                    None, os.pread, opened.descriptor, _piece(end - at), opened.offset + at
                )
                if not chunk:
                    raise OSError(f"{entry.file} became shorter while it was sent")
                # All who fetch what has just been published get along at once else, in one long turn.
                await self._pace.wait()
                at += len(chunk)
                if at >= end:
                    await self._drain(request)
                    if request.transport is None or request.transport.is_closing():
                        # A connection that was ended ends the waiting, too, and need not say so.
                        raise ConnectionResetError("the connection was lost")
                    # Also where the hour, the epoch or the entitlement has changed since it began.
                    if not self._count(who, entry, kind):
                        raise OSError(f"{who} is not entitled to {entry.file} any more")
                    is_counted = True
                if not response.prepared:
                    await response.prepare(request)
                await asyncio.wait_for(response.write(chunk), self._write_time_s)
            await response.write_eof()
            await self._drain(request)
        except (OSError, CountersUnavailable, asyncio.CancelledError) as exc:
            if isinstance(exc, CountersUnavailable) and not response.prepared:
                raise
            self._break_off(request, who, entry, is_counted, exc)
            if isinstance(exc, asyncio.CancelledError):
                raise
            # Of an answer that was not begun nothing can be written any more, and that is no fault of ours.
        return response

    def _break_off(
        self, request: web.BaseRequest, who: str, entry: CatalogueEntry, is_counted: bool, exc: BaseException
    ) -> None:
        """Count a transfer that did not reach its end, and see to it that the reader notices."""
        log.info("CRL %s to %s: broken off: %s", entry.file, who, str(exc) or type(exc).__name__)
        if not is_counted:
            try:
                self._count(who, entry, Provision.CRL_ABORTED)
            except CountersUnavailable:
                log.warning("an aborted transfer could not be counted")
        # The length promised will not come; only the end of the connection can say so.
        _abort(request)


class _Insensitive(dict[str, str]):
    """Headers by name in any case."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__({name.lower(): value for name, value in headers.items()})

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(key.lower(), default)


def _headers(
    entry: CatalogueEntry, path: str, decision: Decision, now_s: int, public: bool
) -> dict[str, str]:
    until_s = entry.next_update_s
    if path == entry.name:
        # From then on this name may stand for another CRL.
        until_s = min(until_s, entry.next_issue_s)
    # A last CRL has no end, and a year is as long as caches are asked to keep anything.
    age_s = min(max(0, until_s - now_s), _AGE_S_MAX)
    who = "public" if public else "private"
    headers = {
        "Date": http_date(now_s).decode("ascii"),
        "ETag": f'"{entry.sha256}"',
        "Last-Modified": http_date(entry.this_update_s).decode("ascii"),
        "Accept-Ranges": "bytes",
        # What is for registered verifiers must not come to others out of a shared cache.
        "Cache-Control": f"max-age={age_s}, {who}, no-transform, must-revalidate",
        "Expires": http_date(now_s + age_s).decode("ascii"),
    }
    if decision.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        headers["Content-Type"] = CONTENT_TYPE
    if decision.status == HTTPStatus.PARTIAL_CONTENT:
        headers["Content-Range"] = f"bytes {decision.start}-{decision.end - 1}/{entry.size}"
    if decision.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        headers["Content-Range"] = f"bytes */{entry.size}"
    return headers


def _issuer_of(standing: Standing, path: str) -> int | None:
    ended = _ended(standing, path)
    if ended is not None:
        return ended.issuer_id
    issuer = issuer_named(standing, path)
    return None if issuer is None else issuer.issuer_id


def _ended(standing: Standing, path: str) -> EndedScope | None:
    """Return the scope that has ended and whose CRL has been called *path*."""
    scope, _, name = path.rpartition("/")
    return standing.listed.ended.get(scope) if name.endswith(".crl") else None


def _piece(left: int) -> int:
    """Return how many of the *left* bytes to send next."""
    return left if left <= LAST_BYTES_MAX else min(CHUNK_BYTES, left - LAST_BYTES_MAX)


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
