"""Which CRLs there are for who asks: ``GET /crl/``, ``/crl/<service>/``, ``/crl/<service>/<generation>/``.

With ``?since=<generation>`` only the scopes that changed after that generation of the catalogue; if those are
many, all, which ``since`` 0 in it says.  Each list
says by ``next`` what to ask for next time, and by ``scopes_sha256`` which scopes there are in all, for who
joins a difference to what is there: of scopes that went, or came with an entitlement, no difference tells.
A whole list also names, by ``ended``, the scopes that have no CRLs any more, because all in them has ended.

::

    fresh? ─▶ a list of ours? ─▶ entitled to any of it? ─▶ conditions ─▶ JSON, or HTML for browsers
     503         404, 400          403, counted            304 412

A list holds the scopes of those issuers whose CRLs the asker may have, and no others.  It says nothing
of any certificate, so it is not counted as a provision; a refusal is.
The tag is the hash of what is sent, so it moves when a scope, a number or the entitlement does.
Knows: paths, headers, sending.  Does not know: what is said of a scope (``crl_fragments``).
Source: RFC 9110 §12.5.1 (Accept), §13 (conditions); Act arts. 17, 18, 36, 37.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from html import escape
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import web

from certstatus import clock
from certstatus.counters import Provision
from certstatus.crl_catalogue import EndedScope
from certstatus.crl_listing import scopes_sha256
from certstatus.errors import CountersUnavailable
from responder.asker import Askers
from responder.crl_fragments import NOTHING_LISTED, ListedScopes, ScopeFragment
from responder.http_conditions import decide
from responder.short_answers import come_later, short_answer
from responder.standing import Follows, Standing
from responder.wire import http_date

log = logging.getLogger(__name__)

FORMAT = 1
_JSON = "application/json"
_HTML = "text/html"
# With thousands of scopes a list has a megabyte, and there are few kinds of askers.
_LISTS_KEPT = 8
_CHUNK_BYTES = 256 * 1024
# A list of what is new is made for who asks: of 2,000 scopes that would take 10 ms of the loop.
_NEW_MAX = 64
# Of an asker that nothing at all may be told, no issuer is known.
_NO_ISSUER = 0
_SINCE = re.compile(r"[0-9]{1,16}", re.ASCII)

_HTML_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CRLs</title><style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid #8884; }
td.n { text-align: right; }
small { opacity: .7; } code { font: .85em ui-monospace, monospace; }
</style></head><body><h1>CRLs</h1>
"""
_HTML_COLUMNS = (
    "<table><tr><th>scope<th>CRL<th>number<th>this update<th>next update<th>bytes<th>SHA-256</tr>\n"
)


class _Key(NamedTuple):
    """What a list depends on beside the catalogue: whose scopes, below which path, in which form."""

    issuers: frozenset[int]
    below: str
    content_type: str
    since: int


class _List(NamedTuple):
    body: bytes
    sha256: str


def names_a_list(path: str) -> bool:
    """Say whether ``/crl/<path>`` has the form of a list: ends in a slash, at most two names before it."""
    return path == "" or (path.endswith("/") and path.count("/") <= 2)


class CRLList:
    """One worker's lists.  *askers* must be made for the kind "crl"; *write_time_s* bounds how long a
    reader may take to accept a quarter of a megabyte.
    """

    def __init__(
        self,
        follower: Follows,
        askers: Askers,
        write_time_s: float,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._follower = follower
        self._askers = askers
        self._write_time_s = write_time_s
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        # Those of ``_listed``, least recently used first.
        self._lists: OrderedDict[_Key, _List] = OrderedDict()
        self._listed = NOTHING_LISTED

    async def serve(self, request: web.BaseRequest, path: str, who: str) -> web.StreamResponse:
        """Answer a GET or HEAD of ``/crl/<path>`` from the address *who*; *path* has the form of a list."""
        standing, now_ms = self._follower.standing, self._now_ms()
        if not standing.is_fresh(now_ms, self._monotonic_s()) or not standing.catalogue.is_known:
            return come_later()
        since = read_since(request.raw_path.partition("?")[2])
        if since is None:
            return short_answer(HTTPStatus.BAD_REQUEST)
        now_s = now_ms // 1000
        issuers = [
            served.issuer
            for served in standing.access.by_id.values()
            if path in ("", f"{served.issuer.path}/", f"{served.issuer.service.lower()}/")
        ]
        if path and not issuers:
            return short_answer(HTTPStatus.NOT_FOUND)
        try:
            asker = self._askers.find(who, standing, now_s)
            mine = frozenset(issuer.issuer_id for issuer in issuers if issuer.issuer_id in asker.entitled)
            if not mine:
                only = issuers[0].issuer_id if len(issuers) == 1 else _NO_ISSUER
                self._askers.refuse(asker, Provision.REFUSED_CRL, only, standing, now_s)
                return short_answer(HTTPStatus.FORBIDDEN)
        except CountersUnavailable as exc:
            log.error("%s", exc)
            return come_later()
        content_type = _HTML if prefers_html(request.headers.getall("Accept", [])) else _JSON
        found = self._list(standing, _Key(mine, path, content_type, since))
        return await self._give(request, found, content_type)

    def _list(self, standing: Standing, key: _Key) -> _List:
        if standing.listed is not self._listed:
            self._listed = standing.listed
            self._lists.clear()
        found = self._lists.get(key)
        if found is None:
            if key.since and _is_most_of_it(standing.listed, key):
                return self._list(standing, key._replace(since=0))
            body = _body(standing.listed, key)
            found = _List(body, hashlib.sha256(body).hexdigest())
            if key.since:
                # Short, and of as many kinds as there are moments to ask since.
                return found
            self._lists[key] = found
            if len(self._lists) > _LISTS_KEPT:
                self._lists.popitem(last=False)
        self._lists.move_to_end(key)
        return found

    async def _give(self, request: web.BaseRequest, found: _List, content_type: str) -> web.StreamResponse:
        now_s = self._now_ms() // 1000
        headers = {
            "Date": http_date(now_s).decode("ascii"),
            "ETag": f'"{found.sha256}"',
            # It may change with any beat; and it is for this asker alone.
            "Cache-Control": "no-cache, private, no-transform",
            "Vary": "Accept",
        }
        # No date: the tag alone tells two lists apart.
        asked = {
            name: ",".join(request.headers.getall(name))
            for name in ("If-Match", "If-None-Match")
            if name in request.headers
        }
        status = decide(request.method, asked, found.sha256, 0, len(found.body), now_s).status
        if status == HTTPStatus.OK:
            headers["Content-Type"] = f"{content_type}; charset=utf-8" if content_type == _HTML else _JSON
            headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
            headers["X-Content-Type-Options"] = "nosniff"
        response = web.StreamResponse(status=status, headers=headers)
        if status != HTTPStatus.NOT_MODIFIED:
            response.content_length = len(found.body) if status == HTTPStatus.OK else 0
        gives_body = status == HTTPStatus.OK and request.method == "GET"
        try:
            await response.prepare(request)
            for at in range(0, len(found.body) if gives_body else 0, _CHUNK_BYTES):
                piece = found.body[at : at + _CHUNK_BYTES]
                await asyncio.wait_for(response.write(piece), self._write_time_s)
            await response.write_eof()
            # Or short answers would pile up before one who never reads.
            await asyncio.wait_for(request.writer.drain(), self._write_time_s)
        except OSError as exc:
            log.info("list of CRLs: not taken: %s", str(exc) or type(exc).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response


def _scopes(listed: ListedScopes, key: _Key) -> list[ScopeFragment]:
    return [
        scope
        for scope in listed.by_path.values()
        if scope.issuer.issuer_id in key.issuers and scope.path.startswith(key.below)
    ]


def _ended(listed: ListedScopes, key: _Key) -> list[EndedScope]:
    return [
        scope
        for path, scope in sorted(listed.ended.items())
        if scope.issuer_id in key.issuers and path.startswith(key.below)
    ]


def _is_most_of_it(listed: ListedScopes, key: _Key) -> bool:
    """Say whether so many scopes are new that the whole list is given, which is made once for all."""
    scopes = _scopes(listed, key)
    new = sum(scope.scope.changed > key.since for scope in scopes)
    return new > max(_NEW_MAX, len(scopes) // 4)


def _body(listed: ListedScopes, key: _Key) -> bytes:
    scopes = _scopes(listed, key)
    new = [scope for scope in scopes if scope.scope.changed > key.since] if key.since else scopes
    # Whoever asks for what is new finds by the hash that a scope went, and asks for all.
    ended = [] if key.since else _ended(listed, key)
    if key.content_type == _HTML:
        return _html(listed, new, ended)
    return _json(listed, key.since, [scope.path for scope in scopes], new, ended)


def _json(
    listed: ListedScopes,
    since: int,
    paths: Iterable[str],
    scopes: Iterable[ScopeFragment],
    ended: Iterable[EndedScope],
) -> bytes:
    """Return the list, one scope a line."""
    said = (
        f'"format": {FORMAT}, "generation": {listed.generation}, "as_of": "{_as_of(listed)}",'
        f' "since": {since}, "next": {listed.next_since}, "scopes_sha256": "{scopes_sha256(paths)}"'
    )
    over = [{"scope": scope.path, "ended": clock.utc_text(scope.ended_s)} for scope in ended]
    if over:
        said += f', "ended": {json.dumps(over)}'
    lines = b",\n".join([scope.json for scope in scopes])
    return b'{%b, "scopes": [%b]}\n' % (said.encode(), b"\n" + lines + b"\n" if lines else b"")


def _html(listed: ListedScopes, scopes: Iterable[ScopeFragment], ended: Iterable[EndedScope]) -> bytes:
    rows = b"".join([scope.html for scope in scopes])
    rows += "".join(
        f"<tr><td><code>{escape(scope.path)}</code><td colspan=6>has ended: all certificates in it had by"
        f" {clock.utc_text(scope.ended_s)}</tr>\n"
        for scope in ended
    ).encode()
    said = f"<p>As of {_as_of(listed)}; the same as JSON for <code>Accept: {_JSON}</code>.</p>\n"
    return b"".join(
        [_HTML_HEAD.encode(), said.encode(), _HTML_COLUMNS.encode(), rows, b"</table></body></html>\n"]
    )


def _as_of(listed: ListedScopes) -> str:
    return clock.utc_text(listed.generation // 1000)


def read_since(query: str) -> int | None:
    """Return the generation after which scopes are asked for, 0 for all; None if it is said wrongly.

    Other parameters are passed over, as everywhere.
    """
    said = [value for name, _, value in (item.partition("=") for item in query.split("&")) if name == "since"]
    if not said:
        return 0
    return int(said[0]) if len(said) == 1 and _SINCE.fullmatch(said[0]) else None


def prefers_html(accept: Iterable[str]) -> bool:
    """Say whether the lines of Accept name ``text/html``, and no JSON that is liked as much.

    By name only: ``*/*`` is what programs send, and they get JSON.  What is malformed is passed over.
    """
    liked = {_HTML: 0.0, _JSON: 0.0}
    for item in ",".join(accept).split(","):
        name, *parameters = [part.strip().lower() for part in item.split(";")]
        if name in liked:
            liked[name] = max(liked[name], _quality(parameters))
    return liked[_HTML] > liked[_JSON]


def _quality(parameters: Iterable[str]) -> float:
    """Return the weight among a media range's parameters (RFC 9110 §12.4.2): 1 if there is none."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
