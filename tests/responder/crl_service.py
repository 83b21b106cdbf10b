"""A part of what is below ``/crl/``, on a port and in a thread of its own; what the worker believes is set by
hand, and what was given is counted in real files.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from aiohttp import web

from certstatus.beat import EPOCH_BYTES
from certstatus.counters import Cell, Provision, read_counters
from certstatus.crl_catalogue import Catalogue
from certstatus.index import View
from responder.counting import Counting
from responder.crl_fragments import ListedScopes
from responder.standing import Access, Standing

# What serves a path below /crl/ to an address.
Serve = Callable[[web.BaseRequest, str, str], Awaitable[web.StreamResponse]]


def standing_at(
    now_s: int, access: Access, catalogue: Catalogue | None = None, listed: ListedScopes | None = None
) -> Standing:
    """Return what a fresh worker believes at *now_s*, which has no certificates."""
    return Standing(
        epoch=bytes(EPOCH_BYTES),
        seq=100,
        time_ms=now_s * 1000,
        mark=1,
        era=1,
        view=View(None),
        access=access,
        catalogue=catalogue or Catalogue(),
        fresh_until_s=1e12,
        wall_from_ms=0,
        wall_until_ms=1 << 60,
        listed=listed or ListedScopes(),
    )


class CRLService:
    """The server; *serve* is called as soon as ``start`` has returned, for the client's ``address``."""

    def __init__(self, state: Path, address: str = "127.0.0.1") -> None:
        self.counters = state / "host" / "counters"
        self.counting = Counting(self.counters, "h", 0, 64)
        self.address = address
        self.port = 0
        self._loop = asyncio.new_event_loop()

    def start(self, serve: Serve) -> None:
        """Serve, on any port."""
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(serve, up), daemon=True)
        self._thread.start()
        assert up.wait(10)

    def _run(self, serve: Serve, up: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await serve(request, request.path.removeprefix("/crl/"), self.address)

        async def start() -> None:
            self._runner = web.ServerRunner(web.Server(handle))
            await self._runner.setup()
            listening = socket.create_server(("127.0.0.1", 0))
            # Little room in the kernel, so that it shows what is kept for who does not read.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            self.port = listening.getsockname()[1]
            await web.SockSite(self._runner, listening).start()

        self._loop.run_until_complete(start())
        up.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def stop(self) -> None:
        """Stop the server."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self.counting.close()

    def ask(
        self, path: str = "", method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask once on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, f"/crl/{path}", headers=named)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """What stands in the counter files: each cell with the name of its kind."""
        for path in self.counters.glob("*.counters"):
            for cell in read_counters(path).cells:
                yield Provision(cell.kind).name, cell
