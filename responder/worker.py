"""A worker: one process that answers for one slot of a responder host.

    python -m responder.worker CONFIG SLOT

inherits its listening sockets from the supervisor (``certstatus.listeners``).  SIGTERM: take
no more connections, finish, say good-bye, end within ``shutdown_s``.  SIGHUP: read keys and
limits anew; no connection is dropped.  It says how it is in ``STATE/run/worker-<slot>.json``,
once a second:

    pid, slot, incarnation, time_ms, ready, trouble
    crls                {generation: of the catalogue shown, awaited: its files that are not here, trouble}
    epoch, applied_seq, beat_age_ms (null before the first), reloads, overlay_entries
    issuers             [{issuer_id, signer_serial, signer_not_after_s}]
    unfit_keys          {pair of key files that cannot be used: why}
    connections, accepted, refused, timed_out, delegated
    provisions          {name of the counter column: count since the start}
    outcomes            {label: count}: repeated, cached, signed, and refusals by error
    caches              entries and bytes of both caches, flights
    signatures, signing_waiting, rss_bytes
    turns               longest turn of the loop: {last_ms since the last file, lately_ms, long: count}

Knows: putting the parts together, signals, the worker's own life.
Does not know: how anything is answered.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import resource
import secrets
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from certstatus import clock, listeners
from certstatus.config import Config, load_config
from certstatus.counters import Provision
from certstatus.errors import CertStatusError, ConfigError
from certstatus.issuer_table import Issuer
from certstatus.private_valkey import valkey_url
from certstatus.publisher_key import load_ed25519_public, load_index_key
from responder.answer import AnswerPath, Limits
from responder.app import Application
from responder.asker import Askers
from responder.ca_certificates import CACertificates
from responder.counting import Counting
from responder.crl_files import CRLFiles
from responder.crl_folder import crl_folder
from responder.crl_list import CRLList, names_a_list
from responder.follow import FeedLimits, FeedPlace, Follower, WorkerName
from responder.key_watch import KeyWatch
from responder.keys import HostKeys, SignerSet
from responder.lane import SWEEP_S, LaneLimits, Lanes
from responder.loop_turns import LoopTurns
from responder.signing import SigningDesk
from responder.standing import Standing
from responder.status_thread import StatusThread
from responder.tls import TlsLanes

log = logging.getLogger(__name__)

# The follower waits for the interpreter's lock no longer than this behind a busy loop.
_SWITCH_INTERVAL_S = 0.001
# So long a starting worker waits for the responder certificates of all issuers.
_FIRST_KEYS_S = 15.0
_KEYS_PERIOD_S = 1.0
_FAREWELL_S = 1.5


def answer_limits(config: Config) -> Limits:
    """Return what the answer path is bounded by."""
    responder = config.responder
    return Limits(
        responder.certificates_per_request_max,
        responder.cache_bytes_max,
        responder.nonce_signatures_per_s,
        responder.nonce_beyond,
    )


def lane_limits(config: Config) -> LaneLimits:
    """Return what connections are bounded by."""
    responder = config.responder
    return LaneLimits(
        responder.request_bytes_max,
        responder.header_bytes_max,
        responder.connections_max,
        responder.header_time_s,
        responder.body_time_s,
        responder.idle_time_s,
        responder.write_time_s,
    )


def feed_limits(config: Config) -> FeedLimits:
    """Return what the follower believes for how long."""
    index = config.index
    # A stream started anew carries all its changes before the first beat.
    return FeedLimits(index.age_max_s, index.ahead_max_s, 2 * index.stream_changes_max)


class Worker:
    """All parts of one worker, within a running event loop."""

    def __init__(
        self,
        config: Config,
        slot: int,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Raises: KeyFileError, ConfigError — the host's folder is not what it must be.
        """
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self.config = config
        self.slot = slot
        self.folder = config.state / "host"
        self.loop = asyncio.get_running_loop()
        host_keys = HostKeys(self.folder)
        self.host = host_keys.host
        self.incarnation = secrets.token_hex(8)
        for name in ("index", "counters"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        responder = config.responder
        self.follower = Follower(
            WorkerName(self.host, slot, self.incarnation),
            FeedPlace(
                valkey_url(config),
                config.valkey.namespace,
                load_ed25519_public(self.folder / "publisher.pub"),
                self.folder / "index",
                crl_folder(config),
            ),
            feed_limits(config),
            now_ms,
            monotonic_s,
        )
        self.counting = Counting(self.folder / "counters", self.host, slot, responder.counter_rows_max)
        self.askers = Askers(self.counting)
        self.crl_askers = Askers(self.counting, "crl")
        self.desk = SigningDesk(
            self.loop, responder.signing_queue_max, responder.signing_budget_us, responder.signing_threads
        )
        self.keys = KeyWatch(host_keys, responder.key, self._issuers, self._take_signers, monotonic_s)
        self.path = AnswerPath(
            self.follower,
            self.keys.first(),
            self.askers,
            self.desk,
            load_index_key(self.folder / "index.key"),
            answer_limits(config),
            now_ms,
        )
        self.crl_files = CRLFiles(
            crl_folder(config),
            self.follower,
            self.crl_askers,
            responder.write_time_s,
            now_ms,
            monotonic_s,
            archive=config.state / "crl" / "archive",
        )
        self.crl_list = CRLList(self.follower, self.crl_askers, responder.write_time_s, now_ms, monotonic_s)
        self.application = Application(
            self.path,
            lane_limits(config),
            self.is_ready,
            self._serve_crl,
            CACertificates(self.follower, now_ms).serve,
            now_ms,
            monotonic_s,
        )
        self.server = self.application.make_server(self.loop)
        self.turns = LoopTurns(self.loop, is_idle=lambda: not self.lanes.connections)
        self.lanes = Lanes(
            self.path, lane_limits(config), self.server.for_lane, now_ms, monotonic_s, self.turns.wake
        )
        self.status_file = StatusThread(config.state / "run" / f"worker-{slot}.json")
        self.frozen = 0
        self._listening: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self.tls_lanes: TlsLanes | None = None
        self._stopped = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_is_due = False
        self._patient_until_s = monotonic_s() + _FIRST_KEYS_S

    def _issuers(self) -> list[Issuer]:
        """Whom is answered for at present."""
        return [served.issuer for served in self.follower.standing.access.by_id.values()]

    def _take_signers(self, signers: SignerSet) -> None:
        self.path.signers = signers

    async def _serve_crl(self, request: web.BaseRequest, path: str, who: str) -> web.StreamResponse:
        """Answer a request for ``/crl/<path>``: a list, or a CRL."""
        if names_a_list(path):
            return await self.crl_list.serve(request, path, who)
        return await self.crl_files.serve(request, path, who)

    def is_ready(self) -> bool:
        """Say whether a request would be answered now.

        A host that has just been enrolled gets its responder certificates some seconds after it has the
        index, and a catalogue of CRLs some milliseconds after it; it is not ready before, but one issuer's
        missing certificate does not hold it up for ever.
        """
        now_ms, monotonic_s = self._now_ms(), self._monotonic_s()
        standing = self.follower.standing
        if not standing.is_fresh(now_ms, monotonic_s):
            return False
        return monotonic_s >= self._patient_until_s or (
            standing.catalogue.is_known and self._has_signers(standing, now_ms)
        )

    def _has_signers(self, standing: Standing, now_ms: int) -> bool:
        return all(
            self.path.signers.current(served.issuer, now_ms // 1000)
            for served in standing.access.by_id.values()
        )

    # --- its life ------------------------------------------------------------------------------------

    async def run(self, plain: socket.socket | None, tls: socket.socket | None) -> None:
        """Serve on the sockets until told to stop."""
        self.loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        self.loop.add_signal_handler(signal.SIGINT, self._stopped.set)
        self.loop.add_signal_handler(signal.SIGHUP, self.reload)
        await self.start(plain, tls)
        tasks = [asyncio.create_task(self._tick_forever()), asyncio.create_task(self._watch_keys_forever())]
        await self._stopped.wait()
        for task in tasks:
            task.cancel()
        await self.stop()

    async def start(self, plain: socket.socket | None, tls: socket.socket | None) -> None:
        """Follow the feed and accept connections."""
        self.follower.start()
        self.turns.start()
        if plain is not None:
            self._listening.append(
                await self.loop.create_server(self.lanes, sock=plain, backlog=listeners.BACKLOG)
            )
        if tls is not None:
            self._tls = _tls_context(self.config)
            self.tls_lanes = TlsLanes(self.lanes, self._tls, self.loop)
            self._listening.append(
                await self.loop.create_server(self.tls_lanes, sock=tls, backlog=listeners.BACKLOG)
            )

    async def stop(self) -> None:
        """Take no more connections, finish what is begun, and leave."""
        until_s = clock.monotonic_s() + max(0.0, self.config.responder.shutdown_s - _FAREWELL_S)
        for server in self._listening:
            # The supervisor holds the socket as well: what waits in its queue is for our successor.
            server.close()
        self.application.is_stopping = True
        self.lanes.stop()
        while self.lanes.connections and clock.monotonic_s() < until_s:
            await asyncio.sleep(0.02)
            self.lanes.sweep()
        for connection in list(self.lanes.connections):
            connection.abort()
        # Nobody is answered from here on, so nobody needs to wait for us.
        await asyncio.to_thread(self.follower.stop, _FAREWELL_S)
        self.turns.stop()
        if self._reloading is not None:
            self._reloading.cancel()
        self.keys.close()
        self.desk.close()
        self.counting.close()
        self.status_file.close(self.status())

    def reload(self) -> None:
        """Read configuration, keys and limits anew; what is wrong is logged, and what was there stays.

        Files are read on threads, in the order of the calls: one that comes while another is at it is
        followed by one more reading, so that what the last one was made for is never missed.
        """
        self._reload_is_due = True
        if self._reloading is None:
            self._reloading = self.loop.create_task(self._reload_while_due())

    async def _reload_while_due(self) -> None:
        try:
            while self._reload_is_due:
                self._reload_is_due = False
                try:
                    await self._reload_once()
                except (CertStatusError, OSError) as exc:
                    log.error("reload: %s", exc)
                except Exception:
                    # A bug here must not be the last reload.
                    log.exception("reload")
        finally:
            self._reloading = None

    async def _reload_once(self) -> None:
        """Raises: CertStatusError, OSError — the configuration or what TLS needs is not as it must be."""
        config = await asyncio.to_thread(self._read_config)
        if self._tls is not None:
            # Only now, and not on the thread, for connections are being made with it: 0.7 ms.
            self._tls.load_cert_chain(config.responder.tls_certificate, config.responder.tls_key)
        self.config = config
        self.path.limit(answer_limits(config))
        self.lanes.limits = self.application.limits = lane_limits(config)
        self.desk.queue_max = config.responder.signing_queue_max
        self.desk.budget_s = config.responder.signing_budget_us / 1e6
        self.keys.default = config.responder.key
        await self.keys.read()
        log.info("reloaded")

    def _read_config(self) -> Config:
        """Return the configuration as its file is now, found to be one that can be served by.

        Raises: CertStatusError, OSError — it is not.
        """
        config = load_config(Path(self.config.file))
        if self._tls is not None:
            _tls_context(config)
        return config

    # --- once a second -------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self.tick()
            except Exception:
                # A bug must not leave a worker that keeps no deadlines.
                log.exception("tick")

    async def _watch_keys_forever(self) -> None:
        """Beside the ticking, which a token that does not answer must not hold up."""
        while True:
            await asyncio.sleep(_KEYS_PERIOD_S)
            try:
                await self.keys.look()
            except Exception:
                # Nor one that finds no new keys.
                log.exception("keys")

    def tick(self) -> None:
        """Deadlines, status."""
        self.lanes.sweep()
        self.path.let_go()
        self.turns.turn_windows()
        if not self.status_file.is_busy:
            self.status_file.put(self.status())

    def status(self) -> dict[str, Any]:
        """Return what stands in the status file (see the module's description)."""
        now_ms = self._now_ms()
        standing = self.follower.standing
        totals = self.counting.totals()
        issuers = []
        for issuer_id, served in sorted(standing.access.by_id.items()):
            signer = self.path.signers.current(served.issuer, now_ms // 1000)
            issuers.append(
                {
                    "issuer_id": issuer_id,
                    "signer_serial": None if signer is None else signer.serial,
                    "signer_not_after_s": None if signer is None else signer.not_after_s,
                }
            )
        return {
            "pid": os.getpid(),
            "slot": self.slot,
            "incarnation": self.incarnation,
            "time_ms": now_ms,
            "ready": self.is_ready() and not self._stopped.is_set(),
            "trouble": self.follower.trouble,
            "crls": {
                "generation": standing.listed.generation,
                "awaited": standing.catalogue.awaited_count,
                "trouble": self.follower.crls.trouble,
            },
            "epoch": standing.epoch.hex(),
            "applied_seq": standing.seq,
            "beat_age_ms": now_ms - standing.time_ms if standing.time_ms else None,
            "reloads": self.follower.reloads,
            "overlay_entries": len(standing.view.overlay),
            "issuers": issuers,
            "unfit_keys": {item.pair: item.problem for item in self.path.signers.unfit},
            "connections": len(self.lanes.connections),
            "accepted": self.lanes.accepted,
            "refused": self.lanes.refused,
            "timed_out": self.lanes.timed_out,
            "delegated": self.lanes.delegated,
            "provisions": {kind.name.lower(): totals[kind] for kind in Provision},
            "outcomes": {"repeated": self.path.repeats, **self.path.outcomes},
            "caches": self.path.sizes(),
            "signatures": self.desk.signatures,
            "signing_waiting": self.desk.waiting,
            "collector": {"automatic": gc.isenabled(), "frozen": self.frozen},
            "turns": {
                "last_ms": round(self.turns.take() * 1000, 3),
                "lately_ms": round(self.turns.lately_s * 1000, 3),
                "long": self.turns.long,
            },
            "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def _tls_context(config: Config) -> ssl.SSLContext:
    """Return what TLS connections are made with.  Raises: ConfigError — a file is not what it must be."""
    responder = config.responder
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(responder.tls_certificate, responder.tls_key)
    except OSError as exc:
        raise ConfigError(
            config.file, "responder.tls_certificate", "a certificate and its key", str(exc)
        ) from exc
    if responder.tls_client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(responder.tls_client_ca)
        except OSError as exc:
            raise ConfigError(
                config.file, "responder.tls_client_ca", "CA certificates in PEM", str(exc)
            ) from exc
    return context


async def serve(config: Config, slot: int) -> None:
    """Run the worker of *slot* on the sockets that were handed on."""
    worker = Worker(config, slot)
    # What is loaded by now lives as long as the process: no collection need look at it.
    gc.collect()
    gc.freeze()
    # Counted once: it walks through all of them, some milliseconds when they are in no near cache.
    worker.frozen = gc.get_freeze_count()
    gc.disable()
    await worker.run(listeners.inherited(listeners.PLAIN), listeners.inherited(listeners.TLS))


def hold_slot(state: Path, slot: int) -> int:
    """Lock the slot, so that it never has two workers; the descriptor returned holds the lock.

    Raises: OSError — another process has it.
    """
    path = state / "run" / f"worker-{slot}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def main() -> int:
    """Run; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    threading.current_thread().name = "loop"
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        config = load_config(Path(sys.argv[1]))
        slot = int(sys.argv[2])
        lock = hold_slot(config.state, slot)
    except BlockingIOError:
        log.error("slot %s has a worker already", sys.argv[2])
        return os.EX_TEMPFAIL
    except CertStatusError as exc:
        log.error("%s", exc)
        return exc.exit_code
    try:
        uvloop.run(serve(config, slot))
    except CertStatusError as exc:
        log.error("%s", exc)
        return exc.exit_code
    finally:
        os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
