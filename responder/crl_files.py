"""CRLs over HTTP, for those who are entitled to them.

::

    fresh? ─▶ which file ─▶ entitled? ─▶ applied so far? ─▶ is it that file? ─▶ conditions ─▶ bytes, counted
     503        404           403            503               503              304 412 416

A file is served only if the catalogue under a verified beat names it, its size and SHA-256 are
those named there, and this worker has applied everything the CRL was cut after: so CRL and OCSP never
contradict each other.  The hash is taken once per file and off the loop.

Counting: a transfer counts when its last bytes go out, as what it then is (complete, delta or
partial); one that is broken off before counts as aborted.
Knows: names, checks, headers, the transfer.  Does not know: how CRLs are made or fetched
(publisher, host agent); conditions and ranges (``http_conditions``).
Source: RFC 5280 §4.2.1.13, §5.2.4; RFC 2585 §4.2; RFC 9110, 9111; Act arts. 17, 18, 36, 37, 40.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, Protocol

from aiohttp import web

from certstatus import clock
from certstatus.counters import Provision
from certstatus.crl_catalogue import DELTA, CatalogueEntry
from certstatus.errors import CountersUnavailable
from responder.asker import Askers
from responder.http_conditions import Decision, decide
from responder.standing import Standing
from responder.wire import http_date

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/pkix-crl"
CHUNK_BYTES = 256 * 1024
# The last piece, which is counted before it is written: all that may still lie with us by then.
LAST_BYTES_MAX = 16 * 1024
RETRY_AFTER_S = 2
_CHECKED_MAX = 4096
_HASH_BLOCK = 1 << 20


class Follows(Protocol):
    """What is needed of the follower: what the worker believes now."""

    @property
    def standing(self) -> Standing: ...


class _Identity(NamedTuple):
    """Which bytes a file holds, as far as that can be told without reading them."""

    device: int
    inode: int
    size: int
    modified_ns: int


class CRLFiles:
    """One worker's CRL service.

    *askers* must be made for the kind "crl"; *write_time_s* bounds how long a reader may take to
    accept ``CHUNK_BYTES``.
    """

    def __init__(
        self,
        folder: Path,
        follower: Follows,
        askers: Askers,
        write_time_s: float,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        # Fixed.
        self._folder = folder
        self._follower = follower
        self._askers = askers
        self._write_time_s = write_time_s
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        # Of the catalogue that was looked at last.
        self._catalogue: tuple[CatalogueEntry, ...] = ()
        self._by_path: dict[str, CatalogueEntry] = {}
        # How many CRLs, current or not, a name has had with the same thisUpdate.
        self._dated: Counter[tuple[str, int]] = Counter()
        # Files whose hash was right, least recently used first; and those being hashed.
        self._checked: OrderedDict[tuple[str, str], _Identity] = OrderedDict()
        self._checking: dict[tuple[str, str], asyncio.Task[bool]] = {}

    async def serve(self, request: web.BaseRequest, path: str, who: str) -> web.StreamResponse:
        """Answer a request for ``/crl/<path>`` from the address *who*."""
        if request.method not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        try:
            return await self._answer(request, path, who)
        except CountersUnavailable as exc:
            log.error("%s", exc)
            return _later()

    async def _answer(self, request: web.BaseRequest, path: str, who: str) -> web.StreamResponse:
        """Answer a GET or HEAD.  Raises: CountersUnavailable — before anything was sent."""
        standing = self._follower.standing
        now_ms = self._now_ms()
        if not standing.is_fresh(now_ms, self._monotonic_s()):
            return _later()
        entry = self._find(standing, path)
        if entry is None:
            return _plain(HTTPStatus.NOT_FOUND)
        if not self._is_entitled(who, entry, standing, now_ms // 1000):
            return self._refuse(who, entry, standing, now_ms // 1000)
        if entry.seq > standing.seq:
            return _later()
        descriptor = await self._open(entry)
        if descriptor is None:
            return _later()
        try:
            return await self._transfer(request, who, entry, path, descriptor)
        finally:
            os.close(descriptor)

    # --- which, and who ----------------------------------------------------------------------------

    def _find(self, standing: Standing, path: str) -> CatalogueEntry | None:
        if standing.catalogue is not self._catalogue:
            self._catalogue = standing.catalogue
            self._by_path = {entry.file: entry for entry in standing.catalogue}
            self._by_path |= {entry.name: entry for entry in standing.catalogue if entry.current}
            self._dated = Counter((entry.name, entry.this_update_s) for entry in standing.catalogue)
        return self._by_path.get(path)

    def _is_entitled(self, who: str, entry: CatalogueEntry, standing: Standing, now_s: int) -> bool:
        asker = self._askers.find(who, standing, now_s)
        return entry.issuer_id in asker.entitled

    def _refuse(self, who: str, entry: CatalogueEntry, standing: Standing, now_s: int) -> web.Response:
        try:
            asker = self._askers.find(who, standing, now_s)
            self._askers.refuse(asker, Provision.REFUSED_CRL, entry.issuer_id, standing, now_s)
        except CountersUnavailable as exc:
            # A refusal gives nothing away, so it may go out uncounted.
            log.warning("%s", exc)
        return _plain(HTTPStatus.FORBIDDEN)

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

    # --- is it that file ---------------------------------------------------------------------------

    async def _open(self, entry: CatalogueEntry) -> int | None:
        """Return a descriptor of the file if its bytes are those the catalogue names, else None."""
        key = (entry.file, entry.sha256)
        try:
            descriptor = os.open(self._folder / entry.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            log.warning("CRL %s: %s", entry.file, exc.strerror)
            return None
        identity = _identity(descriptor)
        if self._checked.get(key) != identity and not await self._check(entry, key, descriptor, identity):
            os.close(descriptor)
            return None
        self._checked[key] = identity
        self._checked.move_to_end(key)
        if len(self._checked) > _CHECKED_MAX:
            self._checked.popitem(last=False)
        return descriptor

    async def _check(
        self, entry: CatalogueEntry, key: tuple[str, str], descriptor: int, identity: _Identity
    ) -> bool:
        if identity.size != entry.size:
            log.error("CRL %s: %d bytes, the catalogue says %d", entry.file, identity.size, entry.size)
            return False
        task = self._checking.get(key)
        if task is None:
            # A descriptor of its own: this request may be gone before the file is read.
            task = asyncio.create_task(_has_hash(os.dup(descriptor), entry.sha256))
            self._checking[key] = task
            task.add_done_callback(lambda _done: self._checking.pop(key, None))
        is_right = await asyncio.shield(task)
        if not is_right:
            log.error("CRL %s: its SHA-256 is not the one in the catalogue", entry.file)
        return is_right

    # --- the transfer ------------------------------------------------------------------------------

    async def _transfer(
        self, request: web.BaseRequest, who: str, entry: CatalogueEntry, path: str, descriptor: int
    ) -> web.StreamResponse:
        now_s = self._now_ms() // 1000
        headers = {name: ",".join(request.headers.getall(name)) for name in request.headers}
        decision = decide(
            request.method,
            _Insensitive(headers),
            entry.sha256,
            entry.this_update_s,
            entry.size,
            now_s,
            # Dates stand still while the clock catches up with where it was set back from.
            is_date_its_own=path == entry.file or self._dated[entry.name, entry.this_update_s] == 1,
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
        return await self._send(request, response, who, entry, decision, kind, descriptor)

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
                return _plain(HTTPStatus.FORBIDDEN)
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
        descriptor: int,
    ) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        at, end = decision.start, decision.end
        is_counted = False
        # What cannot be counted later is better not begun.
        self._may_count(who, entry)
        try:
            while at < end:
                # From the page cache this takes 20 µs, from a disk it may take anything.
                chunk = await loop.run_in_executor(None, os.pread, descriptor, _piece(end - at), at)
                if not chunk:
                    raise OSError(f"{entry.file} became shorter while it was sent")
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
    age_s = max(0, until_s - now_s)
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


def _identity(descriptor: int) -> _Identity:
    found = os.fstat(descriptor)
    return _Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


async def _has_hash(descriptor: int, sha256: str) -> bool:
    """Say whether the file has this SHA-256 (hex); closes *descriptor*."""

    def hashed() -> str:
        digest = hashlib.sha256()
        at = 0
        # hashlib lets go of the interpreter for blocks of this size, so the loop runs on.
        while block := os.pread(descriptor, _HASH_BLOCK, at):
            digest.update(block)
            at += len(block)
        return digest.hexdigest()

    try:
        return await asyncio.get_running_loop().run_in_executor(None, hashed) == sha256
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _piece(left: int) -> int:
    """Return how many of the *left* bytes to send next."""
    return left if left <= LAST_BYTES_MAX else min(CHUNK_BYTES, left - LAST_BYTES_MAX)


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _plain(status: HTTPStatus, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, text=f"{status.phrase}\n", headers={"Cache-Control": "no-store", **(headers or {})}
    )


def _later() -> web.Response:
    return _plain(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_S)})
