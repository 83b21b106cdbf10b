"""A server to compare with: aiohttp on uvloop as its manual shows it, handing out fixed bytes.

    python -m bench.plain_aiohttp PORT BODY-FILE

It looks at nothing, counts nothing and asks nobody who they are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from bench.server import ServerProcess, free_port


def make_app(body: bytes) -> web.Application:
    """Return the application that answers every OCSP request with *body*."""

    async def answer(_request: web.Request) -> web.Response:
        headers = {"Cache-Control": "private, max-age=300, no-transform, must-revalidate"}
        return web.Response(body=body, content_type="application/ocsp-response", headers=headers)

    app = web.Application()
    app.router.add_get("/ocsp/{request}", answer)
    app.router.add_post("/ocsp", answer)
    return app


class PlainAiohttp(ServerProcess):
    """It, running."""

    def __init__(self, folder: Path, body: bytes, processor: int) -> None:
        file = folder / "aiohttp-answer"
        file.write_bytes(body)
        port = free_port()
        command = [sys.executable, "-m", "bench.plain_aiohttp", str(port), str(file)]
        process = subprocess.Popen(["taskset", "-c", str(processor), *command])
        super().__init__("aiohttp", port, process)


def main() -> None:
    """Serve until killed."""
    uvloop.install()
    web.run_app(
        make_app(Path(sys.argv[2]).read_bytes()),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
