"""Restore: what was true outside of the backup stays true after it."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from store_cases import INDEX_KEY, START_MS

from certstatus.leases import WorkerAck
from certstatus.responder_host import make_host
from issuance.acknowledge import wait_for_workers
from issuance.backup import backup
from issuance.responder_certs import end_host, enroll_host
from issuance.restore import restore
from issuance.store import DEFAULT_LEASE_MS, Store

_LATER_MS = START_MS + 3_600_000


def make_store(state: Path) -> tuple[Store, str]:
    """A state folder with an index key, and a new store in it."""
    (state / "secrets").mkdir(mode=0o700, parents=True)
    (state / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (state / "secrets" / "index.key").chmod(0o600)
    url = f"sqlite:///{state / 'store.db'}"
    return Store.create(url, START_MS), url


def make_backup(store: Store, state: Path) -> Path:
    """A backup beside the state folder."""
    path = state.parent / "backup.tar"
    backup(store, state, path, START_MS)
    return path


def enroll(store: Store, *names: str) -> None:
    """Enroll hosts under fresh keys."""
    for name in names:
        enroll_host(store, name, Ed25519PrivateKey.generate().public_key(), START_MS)


def test_hosts_elsewhere_are_waited_for_after_a_restore(tmp_path: Path) -> None:
    """Enrolled before or after the backup: one lease each; not the ended one, nor the host right here."""
    state = tmp_path / "state"
    store, url = make_store(state)
    enroll(store, "here", "there", "ended")
    end_host(store, "ended", START_MS)
    make_host(state / "host", "here")
    store.beat(START_MS, [WorkerAck("here", 0, "i1", 1), WorkerAck("there", 3, "i2", 1)])
    path = make_backup(store, state)
    enroll(store, "newer")
    # This one goes on for longer than anybody is told at the restore.
    store.beat(_LATER_MS, [WorkerAck("newer", 0, "i3", 1)], lease_ms=90_000)
    store.close()
    report = restore(path, state, url, _LATER_MS, lease_ms=10_000)
    with Store.open(url) as restored:
        ends = restored.state().time_ms + 10_000
        assert [tuple(lease)[:3] for lease in restored.leases()] == [
            ("newer", -1, "before restore"),
            ("there", -1, "before restore"),
        ]
        newer, there = restored.leases()
        assert (there.lease_until_ms, there.applied_seq) == (ends, 0)
        assert newer.lease_until_ms == restored.state().time_ms + 90_000
        waiting = wait_for_workers(restored, report.seq, lambda _: [], lambda: ends - 1, timeout_s=0.02)
        assert waiting.waiting == (("newer", -1), ("there", -1))
        done = wait_for_workers(restored, report.seq, lambda _: [], lambda: newer.lease_until_ms, timeout_s=5)
        assert done.is_complete
        # Its workers come back under their own slots, beside that lease.
        restored.beat(_LATER_MS, [WorkerAck("there", 3, "i4", report.seq)])
        assert [(lease.host, lease.slot) for lease in restored.leases()][1:] == [("there", -1), ("there", 3)]


def test_an_installation_alone_waits_for_nobody_after_a_restore(tmp_path: Path) -> None:
    """The only host is the one whose state folder was locked: the next revocation is not held up."""
    state = tmp_path / "state"
    store, url = make_store(state)
    enroll(store, "here")
    make_host(state / "host", "here")
    store.beat(START_MS, [WorkerAck("here", 0, "i1", 1)])
    path = make_backup(store, state)
    store.close()
    report = restore(path, state, url, _LATER_MS)
    with Store.open(url) as restored:
        assert restored.leases() == []
        assert wait_for_workers(restored, report.seq, lambda _: [], lambda: _LATER_MS).waited_s < 1


def test_a_new_machine_waits_for_the_one_it_replaces(tmp_path: Path) -> None:
    """Without a host of its own even a host of the same name is elsewhere, for the usual lease."""
    state = tmp_path / "state"
    store, _ = make_store(state)
    enroll(store, "here")
    path = make_backup(store, state)
    store.close()
    url = f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    restore(path, tmp_path / "new", url, _LATER_MS)
    with Store.open(url) as restored:
        (lease,) = restored.leases()
        assert (lease.host, lease.lease_until_ms) == ("here", _LATER_MS + DEFAULT_LEASE_MS)
