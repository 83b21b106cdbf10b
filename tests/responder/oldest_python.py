"""Run by itself under any Python that is supported, with nothing installed: ``recognise`` against its twin.

Its patterns are possessive, which ``re`` took up with Python 3.11 and did not have right in all of its first
releases.
"""

from __future__ import annotations

import random
import sys

from plain_twin import recognise_simply

from responder.plain import recognise

_TARGETS = (b"GET /ocsp/MAA%3D", b"GET /ocsp/MAA=", b"POST /ocsp", b"POST /ocsp/")
_LINES = (
    *(b"Host: x", b"Host: a b", b"Host:", b"Host", b"User-Agent: a/1", b"User-Agent:", b"User-Agent"),
    *(b"Accept: */*", b"Accept-Encoding: gzip", b"Accept", b"Accept-X", b"Accept-:", b"Accept-X:"),
    *(b"Content-Type: application/ocsp-request", b"Content-type: application/ocsp-request"),
    *(b"Content-Type: a", b"Content-Length: 3", b"Content-Length: 0", b"Content-Length:"),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection:", b"Connection", b"X: y", b"Cookie: a"),
    *(b"", b" folded", b"X-Request-ID: 7", b"X-: 7", b"X-Y"),
)


def main(count: int) -> None:
    """Compare so many made-up beginnings of messages; exit with what differs."""
    chance = random.Random(1)
    for _ in range(count):
        lines = [chance.choice(_TARGETS) + b" HTTP/1." + chance.choice((b"1", b"1", b"0"))]
        lines += [b"Host: x"] * (chance.random() < 0.8)
        lines += [chance.choice(_LINES) for _ in range(chance.randrange(5))]
        end = chance.choice((b"\r\n\r\n", b"\r\n\r\n", b"\r\n", b"", b"\r", b"\r\n\r"))
        buffer = b"\r\n".join(lines) + end + chance.choice((b"", b"", b"abc", b"abcd", lines[0]))
        head_max = chance.choice((512, 512, len(buffer), len(buffer) - 4))
        found, twin = recognise(buffer, head_max, 3), recognise_simply(buffer, head_max, 3)
        if found != twin:
            sys.exit(f"{sys.version}: {buffer!r}, at most {head_max}: {found}, not {twin}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
