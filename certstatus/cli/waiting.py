"""Waiting, after an act, until every worker that may be answering has heard of it.

Knows: reading the workers' acknowledgements from Valkey, and saying whom it waits for.
Does not know: who is live; the store of record does (``issuance.acknowledge``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from certstatus.cli.context import Installation
from certstatus.errors import EXIT_TEMPORARY

if TYPE_CHECKING:
    from certstatus.leases import WorkerAck
    from issuance.acknowledge import Acknowledgement, WorkerName
    from issuance.act import RecordedChange
    from issuance.store import WorkerLease

_F = TypeVar("_F", bound=Callable[..., Any])


def wait_options(command: _F) -> _F:
    """Add ``--no-wait`` and ``--timeout`` to a command."""
    command = click.option(
        "--timeout", type=click.FloatRange(0), help="Wait at most so many seconds [until the leases run out]."
    )(command)
    return click.option("--no-wait", is_flag=True, help="Return as soon as it is recorded.")(command)


def report_change(
    installation: Installation, what: str, recorded: RecordedChange, no_wait: bool, timeout_s: float | None
) -> None:
    """Say that *what* is recorded, wait for the workers unless told not to, and say who has applied it.

    Exits with 75 when a live worker has not acknowledged within *timeout_s*, or when the store went away so
    that nobody can tell: the act stands all the same.
    """
    from certstatus import clock
    from certstatus.errors import StoreError

    values: dict[str, Any] = {
        "what": what,
        "seq": recorded.seq,
        "recorded_at": clock.utc_text(recorded.recorded_ms // 1000),
    }
    text = f"{what}, change {recorded.seq}, at {values['recorded_at']}"
    if no_wait:
        installation.emit(values, text)
        return
    try:
        done = wait(installation, recorded.seq, timeout_s)
    except StoreError as exc:
        values["error"] = str(exc)
        installation.emit(values, f"{text}\nit stands, but who has applied it is not known: {exc}")
        raise click.exceptions.Exit(EXIT_TEMPORARY) from exc
    values |= {
        "workers": {
            name: [f"{worker.host}:{worker.slot}" for worker in getattr(done, name)]
            for name in ("acknowledged", "ran_out", "left", "waiting")
        },
        "waited_s": round(done.waited_s, 3),
    }
    installation.emit(values, f"{text}\n{_told(done)}")
    if not done.is_complete:
        raise click.exceptions.Exit(EXIT_TEMPORARY)


def wait(installation: Installation, seq: int, timeout_s: float | None) -> Acknowledgement:
    """Wait for the workers to apply change *seq*; tells on the terminal whom it waits for."""
    from certstatus import clock
    from certstatus.leases import LEASE_SLACK_MS
    from issuance.acknowledge import wait_for_workers

    started = clock.monotonic_s()

    def on_wait(workers: tuple[WorkerName, ...]) -> None:
        # Usually over in a few milliseconds; then nothing needs to be said.
        if clock.monotonic_s() - started > 1:
            installation.say(f"waiting for {_names(workers)}")

    return wait_for_workers(
        installation.store,
        seq,
        AckReader(installation),
        installation.config.index.age_max_s * 1000 + LEASE_SLACK_MS,
        timeout_s=timeout_s,
        on_wait=on_wait,
    )


class AckReader:
    """Reads from Valkey what leased workers last said; nothing, when Valkey is away."""

    def __init__(self, installation: Installation) -> None:
        from certstatus.feed_keys import FeedKeys

        epoch = installation.store.state().epoch
        self._keys = FeedKeys(installation.config.valkey.namespace, epoch)
        self._installation = installation

    def __call__(self, leases: list[WorkerLease]) -> Iterable[WorkerAck]:
        """Return the acknowledgements of these workers, as far as they can be read."""
        from certstatus.errors import FeedError
        from certstatus.leases import read_ack
        from certstatus.valkey import VALKEY_AWAY

        if not leases:
            return []
        try:
            # Opened here, because a cluster is asked for its servers when it is.
            valkey: Any = self._installation.valkey
            texts = valkey.mget([self._keys.ack(lease.host, lease.slot) for lease in leases])
        except VALKEY_AWAY:
            # Then what the feed has noted in the store counts, or the end of the lease.
            return []
        acks = []
        for lease, text in zip(leases, texts, strict=True):
            try:
                ack = None if text is None else read_ack(text)
            except FeedError:
                continue
            # A host may write its own keys only, so the key decides who is speaking.
            if ack is not None and (ack.host, ack.slot) == (lease.host, lease.slot):
                acks.append(ack)
        return acks


def _told(done: Acknowledgement) -> str:
    parts = []
    if done.acknowledged:
        parts.append(f"applied by {_names(done.acknowledged)}")
    if done.ran_out:
        parts.append(f"{_names(done.ran_out)} said nothing and can answer no more (lease ran out)")
    if done.left:
        parts.append(f"{_names(done.left)} left")
    if done.waiting:
        parts.append(f"{_names(done.waiting)} has not applied it yet")
    if not parts:
        return "no worker is running"
    return f"{'; '.join(parts)} ({done.waited_s:.3f} s)"


def _names(workers: tuple[WorkerName, ...]) -> str:
    return ", ".join(f"worker {worker.slot} of {worker.host}" for worker in workers)
