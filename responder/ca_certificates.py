"""CA certificates over HTTP, where certificates say that their issuer's is: ``/ca/sign/g1.cer``.

Knows: whose certificate a path names, the newest of several on one key, and the headers.
Does not know: whether anybody should trust it; a root is to be had in a way that can be trusted.
Everybody may have it: it holds nothing that is for verifiers alone, and is given without being counted.
Source: RFC 5280 §4.2.2.1 (caIssuers); RFC 2585 §3, §4.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from certstatus import clock
from responder.http_conditions import decide
from responder.short_answers import short_answer
from responder.standing import Follows
from responder.wire import http_date

CONTENT_TYPE = "application/pkix-cert"
# A further certificate on the same key may take its place.
AGE_S = 3600


class CACertificates:
    """The CA certificates that one worker knows of."""

    def __init__(self, follower: Follows, now_ms: Callable[[], int] = clock.now_ms) -> None:
        self._follower = follower
        self._now_ms = now_ms

    def serve(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answer a GET or HEAD of ``/ca/<path>``."""
        by_id = self._follower.standing.access.by_id
        if not by_id:
            # Nothing has been heard of any issuer yet.
            return short_answer(HTTPStatus.SERVICE_UNAVAILABLE)
        for served in by_id.values():
            if path == f"{served.issuer.path}.cer" and served.issuer.certificates_der:
                return self._give(request, served.issuer.certificates_der[0])
        return short_answer(HTTPStatus.NOT_FOUND)

    def _give(self, request: web.BaseRequest, certificate_der: bytes) -> web.Response:
        now_s = self._now_ms() // 1000
        tag = hashlib.sha256(certificate_der).hexdigest()
        headers = {
            "Date": http_date(now_s).decode("ascii"),
            "ETag": f'"{tag}"',
            "Cache-Control": f"max-age={AGE_S}, public, no-transform",
        }
        # No date: the tag alone tells two of them apart.
        asked = {
            name: ",".join(request.headers.getall(name))
            for name in ("If-Match", "If-None-Match")
            if name in request.headers
        }
        status = decide(request.method, asked, tag, 0, len(certificate_der), now_s).status
        if status != HTTPStatus.OK:
            return web.Response(status=status, headers=headers)
        return web.Response(body=certificate_der, content_type=CONTENT_TYPE, headers=headers)
