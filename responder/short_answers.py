"""What is said where there is no CRL, list or certificate to give: a status and its name.

Knows: that nobody keeps such an answer, and when to come again.  Does not know: why it is given.
Source: RFC 9110 §15, §10.2.3 (Retry-After).
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

RETRY_AFTER_S = 2


def short_answer(status: HTTPStatus, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer that says no more than *status*."""
    return web.Response(
        status=status, text=f"{status.phrase}\n", headers={"Cache-Control": "no-store", **(headers or {})}
    )


def come_later() -> web.Response:
    """Return 503: what is asked for may be here in a moment."""
    return short_answer(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_S)})
