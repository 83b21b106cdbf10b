"""The server that CRLs are fetched from: its list, if it is a new one, and files, from where they broke off.

Knows: conditional GET, ranges, bounds in time and size, one connection kept open.  Only http and https, no
redirects: what is fetched is verified by signature, but a list that leads elsewhere is none of ours.
Does not know: what a CRL is, nor where files belong.
Source: RFC 9110 §13 (conditions), §14 (ranges), §13.1.5 (If-Range); RFC 5280 §8 (why https is optional).
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from certstatus import clock
from certstatus.errors import CRLRefused, FetchFailed, NotEntitled

_SILENCE_S = 30.0
# A transfer must be over after so long, and a second more for each so many bytes.
_TRANSFER_S = 60.0
_BYTES_PER_S = 64 * 1024
_ATTEMPTS = 3
_LIST_BYTES_MAX = 64 << 20
_BLOCK = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class FetchedList(NamedTuple):
    """A list of CRLs as it came, and the tag to show the server next time (empty if it gave none)."""

    content: bytes
    etag: str


class CRLServer:
    """One server, named by the URL of its list of CRLs; a URL without a path means ``/crl/``."""

    def __init__(self, url: str, tls_ca: Path | None = None) -> None:
        """Name it.

        Takes:  *tls_ca*: PEM file of the CAs whose TLS certificates are taken, instead of the system's.
        Raises: CRLRefused — not an http or https URL that can be asked for, or no CA in *tls_ca*.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise CRLRefused(f"{url}: {exc}") from exc
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
            raise CRLRefused(f"{url}: http or https expected")
        self._list_place = parts.path if parts.path not in ("", "/") else "/crl/"
        if not re.fullmatch(r"[!-~]+", self._list_place) or parts.query:
            raise CRLRefused(f"{url}: not the place of a list of CRLs")
        self._connection = _connection(parts.scheme, parts.hostname, port, tls_ca)
        self.url = f"{parts.scheme}://{parts.netloc}{self._list_place}"

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def list_crls(self, etag: str = "", since: int = 0) -> FetchedList | None:
        """Return the server's list, or None if it is still the one that *etag* stands for.

        Takes:  *since*: a generation of the list; then what changed after it, if the server knows how to.

        Raises: FetchFailed — no list now; NotEntitled — 403; CRLRefused — over 64 MiB, or from somebody whose
                TLS certificate is not trusted.
        """
        headers = {"Accept": "application/json", **({"If-None-Match": etag} if etag else {})}
        try:
            place = f"{self._list_place}?since={since}" if since else self._list_place
            with self._asked(place, headers) as answer:
                if answer.status == HTTPStatus.NOT_MODIFIED and etag:
                    return None
                self._expect(answer, self.url, HTTPStatus.OK)
                content = b"".join(_blocks(answer, _LIST_BYTES_MAX))
                missing = answer.length or 0
                etag = answer.headers.get("ETag", "")
        except ssl.SSLCertVerificationError as exc:
            self.close()
            raise CRLRefused(_untrusted(self.url, exc)) from exc
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise FetchFailed(f"{self.url}: {_text(exc)}") from exc
        if len(content) > _LIST_BYTES_MAX:
            self.close()
            raise CRLRefused(f"{self.url}: a list of over {_LIST_BYTES_MAX} bytes")
        if missing:
            self.close()
            raise FetchFailed(f"{self.url}: broken off, {missing} bytes are missing")
        return FetchedList(content, etag)

    def fetch(self, place: str, size: int, sha256: str, part: Path) -> None:
        """Bring the file at *place* into *part*, going on where an earlier call was broken off.

        What is there of *part* is taken for the beginning; the server is asked for the rest on condition
        that the file is the same (its tag being its hash), and the hash over all of it decides.
        Raises: FetchFailed — not whole now, or no room for it; *part* stays for the next call.  CRLRefused —
                more bytes than *size*, or another hash: *part* is gone then; or a TLS certificate that is not
                trusted.  NotEntitled — 403.
        """
        have, trouble = _size_of(part), ""
        for _ in range(_ATTEMPTS):
            if have == size:
                break
            try:
                self._go_on(place, size, sha256, part, have if have < size else 0)
                trouble = "broken off"
            except ssl.SSLCertVerificationError as exc:
                self.close()
                raise CRLRefused(_untrusted(place, exc)) from exc
            except (OSError, http.client.HTTPException) as exc:
                self.close()
                trouble = _text(exc)
            have = _size_of(part)
        if have != size:
            raise FetchFailed(f"{place}: {have} of {size} bytes, {trouble}; goes on there next time")
        if _hash_of(part) != sha256:
            part.unlink()
            raise CRLRefused(f"{place}: its SHA-256 is not the one in the list")

    def _go_on(self, place: str, size: int, sha256: str, part: Path, have: int) -> None:
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'} if have else {}
        with self._asked(place, headers) as answer:
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                # The file there is shorter, so what is here is not its beginning.
                self.close()
                part.unlink()
                return
            self._expect(answer, place, HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
            if answer.status == HTTPStatus.PARTIAL_CONTENT:
                found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                if found is None or [int(text) for text in found.groups()] != [have, size - 1, size]:
                    self.close()
                    raise FetchFailed(f"{place}: another part than the one asked for")
            else:
                # It has no ranges, or says that this is another file by now: from the beginning.
                have = 0
            try:
                have = _write(part, have, _blocks(answer, size - have))
            except _NoRoom as exc:
                self.close()
                raise FetchFailed(f"{part}: {exc}") from exc
            if have > size or answer.length:
                # What is left of the answer is in the way of the next.
                self.close()
            if have > size:
                part.unlink()
                raise CRLRefused(f"{place}: more than the {size} bytes in the list")

    @contextmanager
    def _asked(self, place: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Ask; once more on a connection of its own if the one that was kept open has been closed.

        Raises: OSError, HTTPException — the server is away, or speaks no HTTP.
        """
        headers = {"User-Agent": "certstatus", **headers}
        was_open = self._connection.sock is not None
        try:
            self._connection.request("GET", place, headers=headers)
            answer = self._connection.getresponse()
        except (ConnectionError, http.client.HTTPException):
            self.close()
            if not was_open:
                raise
            self._connection.request("GET", place, headers=headers)
            answer = self._connection.getresponse()
        with answer:
            yield answer

    def _expect(self, answer: http.client.HTTPResponse, place: str, *good: HTTPStatus) -> None:
        if answer.status in good:
            return
        # Its body is not read, so the connection cannot be used any more.
        self.close()
        if answer.status == HTTPStatus.FORBIDDEN:
            raise NotEntitled(f"{place}: this address is not registered for these CRLs (HTTP 403)")
        raise FetchFailed(f"{place}: HTTP {answer.status}")


def _connection(scheme: str, host: str, port: int | None, tls_ca: Path | None) -> http.client.HTTPConnection:
    """Raises: CRLRefused — *tls_ca* holds no certificate that can be read."""
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=_SILENCE_S)
    try:
        context = ssl.create_default_context(cafile=None if tls_ca is None else str(tls_ca))
    except (OSError, ValueError) as exc:
        raise CRLRefused(f"{tls_ca}: no CA certificates (PEM) for TLS: {_text(exc)}") from exc
    return http.client.HTTPSConnection(host, port, timeout=_SILENCE_S, context=context)


def _untrusted(place: str, exc: ssl.SSLCertVerificationError) -> str:
    return (
        f"{place}: the server's TLS certificate is not trusted: {exc.verify_message};"
        " --tls-ca names a CA that may vouch for it"
    )


def _blocks(answer: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """Yield the body, a block more than *most* bytes at the longest.

    Raises: TimeoutError — it takes too long, however steadily its octets come.
    """
    until_s = clock.monotonic_s() + _TRANSFER_S + most / _BYTES_PER_S
    while most >= 0 and (block := answer.read1(_BLOCK)):
        most -= len(block)
        yield block
        if clock.monotonic_s() > until_s:
            raise TimeoutError("too slow")


class _NoRoom(Exception):
    """The part could not be written."""


def _write(part: Path, at: int, blocks: Iterator[bytes]) -> int:
    """Write *blocks* durably from octet *at* on, and nothing behind them; return where they end.

    Raises: _NoRoom — the file system refuses; whatever reading the blocks raises, with those before it kept.
    """
    try:
        with part.open("r+b" if at else "wb") as file:
            file.seek(at)
            try:
                for block in blocks:
                    file.write(block)
                    at += len(block)
            except (OSError, http.client.HTTPException) as exc:
                if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise _NoRoom(exc.strerror) from exc
                raise
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        if exc.filename is not None or exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise _NoRoom(exc.strerror) from exc
        raise
    return at


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _text(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
