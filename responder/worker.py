"""A worker: one process that answers for one slot of a responder host.

    python -m responder.worker CONFIG SLOT

inherits its listening sockets from the supervisor (``certstatus.listeners``).  SIGTERM: take
no more connections, finish, say good-bye, end within ``shutdown_s``.  SIGHUP: read keys and
limits anew; no connection is dropped.  It says how it is in ``STATE/run/worker-<slot>.json``,
once a second:

    pid, slot, incarnation, time_ms, ready, trouble
    epoch, applied_seq, beat_age_ms (null before the first), reloads, overlay_entries
    issuers             [{issuer_id, signer_serial, signer_not_after_s}]
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

from certstatus import clock, listeners
from certstatus.config import Config, load_config
from certstatus.counters import Provision
from certstatus.errors import CertStatusError, ConfigError, KeyFileError
from certstatus.private_valkey import valkey_url
from certstatus.publisher_key import load_ed25519_public, load_index_key
from certstatus.status_file import write_status
from responder.answer import AnswerPath, Limits
from responder.app import Application
from responder.asker import Askers
from responder.ca_certificates import CACertificates
from responder.counting import Counting
from responder.crl_files import CRLFiles
from responder.follow import FeedLimits, FeedPlace, Follower, WorkerName
from responder.keys import HostKeys, SignerSet
from responder.lane import SWEEP_S, LaneLimits, Lanes
from responder.loop_turns import LoopTurns
from responder.signing import SigningDesk

log = logging.getLogger(__name__)

# The follower waits for the interpreter's lock no longer than this behind a busy loop.
_SWITCH_INTERVAL_S = 0.001
# So long a starting worker waits for the responder certificates of all issuers.
_FIRST_KEYS_S = 15.0
# Keys that could not be read are tried again: what was wrong need not be a certificate's file.
_KEYS_AGAIN_S = 5.0
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
        self.keys = HostKeys(self.folder)
        self.host = self.keys.host
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
        self.path = AnswerPath(
            self.follower,
            self._first_signers(),
            self.askers,
            self.desk,
            load_index_key(self.folder / "index.key"),
            answer_limits(config),
            now_ms,
            monotonic_s,
        )
        self.crl_files = CRLFiles(
            config.state / "crl", self.follower, self.crl_askers, responder.write_time_s, now_ms, monotonic_s
        )
        self.application = Application(
            self.path,
            lane_limits(config),
            self.is_ready,
            self.crl_files.serve,
            CACertificates(self.follower, now_ms).serve,
            now_ms,
            monotonic_s,
        )
        self.server = self.application.make_server(self.loop)
        self.lanes = Lanes(self.path, lane_limits(config), self.server.for_lane, now_ms, monotonic_s)
        self.turns = LoopTurns(self.loop)
        self.frozen = 0
        self._listening: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self._stopped = asyncio.Event()
        self._keys_seen: tuple[tuple[str, int], ...] = ()
        self._keys_again_s = 0.0
        self._patient_until_s = monotonic_s() + _FIRST_KEYS_S

    def _first_signers(self) -> SignerSet:
        """Return the keys there are; none where one cannot be read, a token that is away, say.

        They are tried again while the worker says tryLater, which is more than clients that wait for a
        process to begin would be told.
        """
        try:
            return self.keys.load(self.config.responder.key)
        except KeyFileError as exc:
            log.error("keys: %s", exc)
            return SignerSet()

    def is_ready(self) -> bool:
        """Say whether a request would be answered now.

        A host that has just been enrolled gets its responder certificates some seconds after it has the
        index; it is not ready before, but one issuer's missing certificate does not hold it up for ever.
        """
        now_ms, monotonic_s = self._now_ms(), self._monotonic_s()
        standing = self.follower.standing
        if not standing.is_fresh(now_ms, monotonic_s):
            return False
        return monotonic_s >= self._patient_until_s or all(
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
        ticking = asyncio.create_task(self._tick_forever())
        await self._stopped.wait()
        ticking.cancel()
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
            self._tls = self._tls_context()
            self._listening.append(
                await self.loop.create_server(
                    self.lanes,
                    sock=tls,
                    backlog=listeners.BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=self.config.responder.header_time_s,
                )
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
        for lane in list(self.lanes.connections):
            lane.abort()
        # Nobody is answered from here on, so nobody needs to wait for us.
        await asyncio.to_thread(self.follower.stop, _FAREWELL_S)
        self.turns.stop()
        self.desk.close()
        self.counting.close()
        self.note_status()

    def reload(self) -> None:
        """Read keys and limits anew; what is wrong with them is logged, and the old ones stay."""
        try:
            config = load_config(Path(self.config.file))
            self.path.signers = self.keys.load(config.responder.key)
            if self._tls is not None:
                self._tls.load_cert_chain(config.responder.tls_certificate, config.responder.tls_key)
        except (CertStatusError, OSError) as exc:
            log.error("reload: %s", exc)
            return
        self.config = config
        self.path.limit(answer_limits(config))
        self.lanes.limits = self.application.limits = lane_limits(config)
        self.desk.queue_max = config.responder.signing_queue_max
        self.desk.budget_s = config.responder.signing_budget_us / 1e6
        log.info("reloaded")

    def _tls_context(self) -> ssl.SSLContext:
        responder = self.config.responder
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(responder.tls_certificate, responder.tls_key)
        except OSError as exc:
            raise ConfigError(
                self.config.file, "responder.tls_certificate", "a certificate and its key", str(exc)
            ) from exc
        if responder.tls_client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(responder.tls_client_ca)
            except OSError as exc:
                raise ConfigError(
                    self.config.file, "responder.tls_client_ca", "CA certificates in PEM", str(exc)
                ) from exc
        return context

    # --- once a second -------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self.tick()
                await self._look_for_keys()
            except Exception:
                # A bug must not leave a worker that keeps no deadlines and finds no new keys.
                log.exception("tick")

    def tick(self) -> None:
        """Deadlines, garbage, status."""
        self.lanes.sweep()
        self.path.let_go()
        # Neither lane makes cycles that we know of.  Those that we do not know of are found here, or before
        # by the watch over the turns, if there is much to look through.
        gc.collect(0)
        self.turns.turn_windows()
        self.note_status()

    async def _look_for_keys(self) -> None:
        """Take new keys into use; they are read on a thread, for checking an RSA key takes 40 ms and more."""
        seen, monotonic_s = self.keys.look(), self._monotonic_s()
        if seen == self._keys_seen or monotonic_s < self._keys_again_s:
            return
        config = self.config
        try:
            signers = await asyncio.to_thread(self.keys.load, config.responder.key)
            if self.config is not config:
                # A reload came in between: its keys are newer, and chosen by what it read.  Looked at again.
                return
            self.path.signers = signers
            self._keys_seen = seen
        except CertStatusError as exc:
            log.error("keys: %s", exc)
            self._keys_again_s = monotonic_s + _KEYS_AGAIN_S

    def note_status(self) -> None:
        """Replace the status file."""
        write_status(self.config.state / "run" / f"worker-{self.slot}.json", self.status())

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
            "epoch": standing.epoch.hex(),
            "applied_seq": standing.seq,
            "beat_age_ms": now_ms - standing.time_ms if standing.time_ms else None,
            "reloads": self.follower.reloads,
            "overlay_entries": len(standing.view.overlay),
            "issuers": issuers,
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
