"""A flood of requests that all must be signed, from a process of its own: nonces that never repeat.

python flood_cases.py PORT        reads the DER of a CertID in hex from its standard input
"""

from __future__ import annotations

import asyncio
import secrets
import sys

from responder_cases import post_request, request_der

CONNECTIONS = 50


async def flood(port: int, cert_id_der: bytes) -> None:
    """Ask on one connection for ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(post_request(request_der([cert_id_der], secrets.token_bytes(16))))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))


async def main() -> None:
    """Flood until killed."""
    port, cert_id_der = int(sys.argv[1]), bytes.fromhex(sys.stdin.readline())
    await asyncio.gather(*[flood(port, cert_id_der) for _ in range(CONNECTIONS)])


if __name__ == "__main__":
    asyncio.run(main())
