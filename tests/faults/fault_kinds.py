"""Everything that can be done to an installation: what begins it, how long it lasts, what ends it.

Knows: each fault by name, for either kind of scene.  Does not know: what must hold meanwhile.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psycopg
import redis
from fault_proxy import FaultProxy
from fault_scene import ALONE, Scene


def nothing() -> None:
    """What ends a fault that is over at once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; ``lasts_s``: how long at least and at most between its beginning and its end."""

    name: str
    begin: Callable[[], object]
    lasts_s: tuple[float, float] = (0.0, 0.0)
    end: Callable[[], object] = nothing


def faults(scene: Scene, dice: random.Random) -> dict[str, Fault]:
    """Return every fault there is for *scene*, by name."""
    found = list(_process_faults(scene, dice))
    found += _alone_faults(scene) if scene.kind == ALONE else _apart_faults(scene)
    return {fault.name: fault for fault in found}


def _process_faults(scene: Scene, dice: random.Random) -> Iterable[Fault]:
    """What can be done to any installation's processes, streams, clock and disk."""
    installation = scene.installation
    yield Fault("worker killed", lambda: installation.kill("worker", dice.randrange(3)))
    for role in ("feed", "builder", "agent"):
        yield Fault(f"{role} killed", partial(installation.kill, role))
    yield Fault("supervisor killed", installation.kill_supervisor)
    for how in ("flush", "truncate", "drop_last", "drop_stream", "drop_documents", "drop_chunks"):
        yield Fault(f"Valkey: {how.replace('_', ' ')}", partial(installation.harm_valkey, how))
    for role in ("feed", "worker", "builder"):
        paused: list[int] = []
        yield Fault(
            f"{role} stopped for a while",
            partial(_stop_one, scene, role, paused),
            (2.0, 4.0),
            partial(_go_on, paused),
        )
    yield Fault("clock set forward 40 s", partial(installation.step_clock, +40))
    yield Fault("clock set back 20 s", partial(installation.step_clock, -20))
    others: list[subprocess.Popen[bytes]] = []
    yield Fault(
        "second publisher",
        lambda: others.append(installation.second_publisher()),
        (2.0, 4.0),
        partial(_end_processes, others),
    )
    slow = scene.slow_disk
    yield Fault("slow disk: each sync 0.15 s", partial(slow.take, 0.15), (2.5, 4.0), partial(slow.take, 0))
    yield Fault("slow disk: each sync 2.5 s", partial(slow.take, 2.5), (3.0, 4.0), partial(slow.take, 0))


def _alone_faults(scene: Scene) -> Iterable[Fault]:
    yield Fault("Valkey killed", scene.installation.kill_valkey)
    for name, disk in scene.disks.items():
        yield Fault(f"disk full: {name}", disk.fill, (3.0, 7.0), disk.free)


def _apart_faults(scene: Scene) -> Iterable[Fault]:
    valkeys, postgres, names = scene.valkeys, scene.postgres, scene.names
    assert valkeys is not None
    assert postgres is not None
    assert names is not None
    front, store = valkeys.front, postgres.front

    yield Fault(
        "Valkey slow: 80 ms each way", partial(setattr, front, "delay_s", 0.08), (2.5, 4.0), front.heal
    )
    yield Fault(
        "Valkey slow: 0.7 s each way", partial(setattr, front, "delay_s", 0.7), (3.0, 5.0), front.heal
    )
    yield Fault("Valkey slow: 4 kB/s", partial(setattr, front, "bytes_per_s", 4096), (3.0, 5.0), front.heal)
    yield Fault("Valkey frozen", partial(setattr, front, "is_frozen", True), (2.0, 7.0), front.heal)
    yield Fault("Valkey's connections cut", front.cut)

    def unreachable(proxy: FaultProxy) -> None:
        proxy.is_refusing = True
        proxy.cut()

    yield Fault("Valkey unreachable", partial(unreachable, front), (2.0, 7.0), front.heal)

    def hold_up_replica() -> None:
        valkeys.link.is_frozen = True

    def promote_behind() -> None:
        valkeys.promote()
        valkeys.rejoin()

    yield Fault("replica promoted behind its master", hold_up_replica, (1.0, 4.0), promote_behind)

    def master_lost() -> None:
        valkeys.link.is_frozen = True
        time.sleep(0.5)
        valkeys.master.kill()
        valkeys.promote()

    yield Fault("master killed, replica promoted", master_lost, (1.0, 2.0), valkeys.rejoin)

    def split() -> None:
        valkeys.link.is_frozen = True
        valkeys.promote(cut=False)

    yield Fault("split: old and new master both in use", split, (2.0, 5.0), valkeys.rejoin)

    def restart(number: signal.Signals) -> None:
        postgres.stop(number)
        postgres.start()

    yield Fault("PostgreSQL restarted", partial(restart, signal.SIGINT))
    yield Fault("PostgreSQL restarted at once", partial(restart, signal.SIGQUIT))
    yield Fault("PostgreSQL killed", partial(restart, signal.SIGKILL))
    yield Fault("PostgreSQL away", partial(postgres.stop, signal.SIGQUIT), (2.0, 7.0), postgres.start)
    yield Fault("PostgreSQL backend killed", postgres.kill_a_backend)
    yield Fault("PostgreSQL slow: 60 ms", partial(setattr, store, "delay_s", 0.06), (2.5, 4.0), store.heal)
    yield Fault("PostgreSQL frozen", partial(setattr, store, "is_frozen", True), (2.0, 7.0), store.heal)
    yield Fault("PostgreSQL unreachable", partial(unreachable, store), (2.0, 5.0), store.heal)

    def names_gone() -> None:
        names.vanish()
        front.cut()
        store.cut()

    yield Fault("DNS gone", names_gone, (3.0, 7.0), names.come_back)


def _stop_one(scene: Scene, role: str, paused: list[int]) -> None:
    for pid in scene.installation.processes(role)[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            paused.append(pid)


def _go_on(paused: list[int]) -> None:
    while paused:
        with suppress(ProcessLookupError):
            os.kill(paused.pop(), signal.SIGCONT)


def _end_processes(others: list[subprocess.Popen[bytes]]) -> None:
    while others:
        other = others.pop()
        other.kill()
        other.wait()


# What a fault may meet because another one is under way, and that is no failure of anything.
EXPECTED = (OSError, redis.RedisError, psycopg.Error)
