"""The registration offices of the fault harness: one process that issues, revokes, holds, releases.

    python fault_writer.py CONFIG FOLDER SEED

Writes ``issued.log`` (issuer_id serial, once the certificate is recorded) and ``revoked.log``
(issuer_id serial seq returned_ns kind complete, once every worker has acknowledged: what ``certstatus
revoke`` does before it returns).  Ends when FOLDER/stop-writing appears.  What is refused or fails
because something was killed is tried again by going on; the store's log alone says what happened.
"""

from __future__ import annotations

import os
import queue
import random
import sys
import threading
import time
from pathlib import Path

import redis
from cryptography.hazmat.primitives.asymmetric import ec

from certstatus import clock
from certstatus.config import Config, load_config
from certstatus.errors import CertStatusError, ValkeyUnavailable
from certstatus.feed_keys import FeedKeys
from certstatus.leases import LEASE_SLACK_MS, WorkerAck, read_ack
from certstatus.private_valkey import valkey_url
from certstatus.publisher_key import load_index_key
from certstatus.valkey import connect
from issuance.acknowledge import wait_for_workers
from issuance.ca_keys import CAKeyFolder
from issuance.issue import Issuing, issue
from issuance.issuers import issuers
from issuance.revoke import FoundCertificate, hold, release, revoke
from issuance.store import Store, WorkerLease

REVOKERS = 4
REASONS = [1, 3, 4, 5, None]


class Writer:
    """Issues and revokes until told to stop."""

    def __init__(self, config: Config, folder: Path, seed: int) -> None:
        self._config = config
        self._store = Store.open(config.store_url)
        self._random = random.Random(seed)
        self._index_key = load_index_key(config.state / "secrets" / "index.key")
        keys = CAKeyFolder(config.state / "ca")
        self._issuers = issuers(self._store)
        self._issuing = [Issuing.of(item, keys.private_key(item.issuer_id)) for item in self._issuers]
        self._services = {item.issuer_id: item.service for item in self._issuers}
        self._issued_log = (folder / "issued.log").open("a", buffering=1)
        self._revoked_log = (folder / "revoked.log").open("a", buffering=1)
        self._log_lock = threading.Lock()
        self._stop = folder / "stop-writing"
        self._good: list[FoundCertificate] = []
        self._held: list[FoundCertificate] = []
        self._said: set[str] = set()
        self._queue: queue.Queue[tuple[FoundCertificate, str] | None] = queue.Queue(maxsize=20)

    def run(self) -> None:
        """Issue in this thread, revoke in others, so that waiting for workers does not hold up the rest."""
        threads = [threading.Thread(target=self._revoker) for _ in range(REVOKERS)]
        for thread in threads:
            thread.start()
        harness = os.getppid()
        while not self._stop.exists() and os.getppid() == harness:
            try:
                self._act()
            except CertStatusError as exc:
                self._say("writer", exc)
                time.sleep(0.1)
            time.sleep(self._random.expovariate(25))
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _say(self, who: str, exc: CertStatusError) -> None:
        # Once per kind of trouble: a database that is away is one event.
        text = f"{who}: {type(exc).__name__}: {str(exc).splitlines()[0][:120]}"
        if text not in self._said:
            self._said.add(text)
            print(text, file=sys.stderr, flush=True)

    def _act(self) -> None:
        dice = self._random.random()
        if dice < 0.55 or len(self._good) < 20:
            issuing = self._random.choice(self._issuing)
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
            done = issue(self._store, issuing, self._index_key, key, clock.now_ms)
            issuer_id = issuing.issuer.issuer_id
            self._good.append(FoundCertificate(issuer_id, self._services[issuer_id], done.serial))
            with self._log_lock:
                self._issued_log.write(f"{issuer_id} {done.serial.hex()}\n")
        elif dice < 0.92 or not self._held:
            found = self._good.pop(self._random.randrange(max(0, len(self._good) - 40), len(self._good)))
            if found.service == "CORP" and self._random.random() < 0.5:
                hold(self._store, found, clock.now_ms)
                self._held.append(found)
            else:
                self._queue.put((found, "revoke"))
        else:
            found = self._held.pop(self._random.randrange(len(self._held)))
            release(self._store, found, clock.now_ms)
            self._good.append(found)

    def _revoker(self) -> None:
        reasons = random.Random(self._random.random())
        client = connect(valkey_url(self._config))
        epoch = self._store.state().epoch
        keys = FeedKeys(self._config.valkey.namespace, epoch)
        lease_ms = self._config.index.age_max_s * 1000 + LEASE_SLACK_MS

        def read_acks(leases: list[WorkerLease]) -> list[WorkerAck]:
            try:
                texts = client.mget([keys.ack(lease.host, lease.slot) for lease in leases])
            except redis.RedisError as exc:
                raise ValkeyUnavailable("no Valkey") from exc
            return [read_ack(text) for text in texts if isinstance(text, bytes)]

        while True:
            task = self._queue.get()
            if task is None:
                return
            found, _ = task
            try:
                change = revoke(self._store, found, clock.now_ms, reason=reasons.choice(REASONS))
                ended = wait_for_workers(self._store, change.seq, read_acks, lease_ms, timeout_s=60)
            except CertStatusError as exc:
                self._say("revoker", exc)
                continue
            returned_ns = time.monotonic_ns()
            with self._log_lock:
                self._revoked_log.write(
                    f"{found.issuer_id} {found.serial.hex()} {change.seq} {returned_ns} "
                    f"{ended.waited_s:.3f} {int(ended.is_complete)}\n"
                )


def main() -> None:
    """Write until the stop file appears."""
    Writer(load_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])).run()


if __name__ == "__main__":
    main()
