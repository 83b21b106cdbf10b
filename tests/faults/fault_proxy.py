"""A TCP proxy between the installation and a real server, which can be slow, deaf, cut or elsewhere.

Knows: passing bytes on, late, slowly, not at all, or to another server from the next connection on.
Does not know: what the bytes mean.  Runs in a thread of the harness.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

_PIECE_BYTES = 16_384
_LOOK_AGAIN_S = 0.01


class FaultProxy:
    """Listens at ``port`` of 127.0.0.1; the attributes may be changed while it runs.

    ``target_port``    where new connections go
    ``delay_s``        how much later every piece of at most 16 KiB arrives, either way
    ``bytes_per_s``    how many bytes a connection carries each way, 0: as many as come
    ``is_frozen``      nothing passes, connections stay
    ``is_refusing``    a new connection is closed at once
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.is_frozen = False
        self.is_refusing = False
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="proxy", daemon=True)
        self._thread.start()
        assert started.wait(10)

    def cut(self) -> None:
        """End every connection there is."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def heal(self) -> None:
        """Be a good proxy again; connections stay as they are."""
        self.delay_s, self.bytes_per_s = 0.0, 0
        self.is_frozen = self.is_refusing = False

    def end(self) -> None:
        """Stop for good."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    # --- in the loop's thread ----------------------------------------------------------------------

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._cut())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled only at the very end, when the loop's own bookkeeping would complain of it.
        with suppress(asyncio.CancelledError):
            await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_refusing:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            self._open.discard(writer)
            writer.transport.abort()
            return
        self._open.add(far_writer)
        await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        for end in (writer, far_writer):
            self._open.discard(end)
            end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.bytes_per_s:
                    await asyncio.sleep(len(piece) / self.bytes_per_s)
                while self.is_frozen:
                    await asyncio.sleep(_LOOK_AGAIN_S)
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()
