"""Programs that tests run in processes of their own, several at once, against one store.

Each takes its arguments on the command line and prints one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from store_cases import number, record_issued

from certstatus import clock
from certstatus.changes import ChangeKind
from issuance.crl_register import WantedCRL
from issuance.store import Store


def wait_for_the_start() -> None:
    """Wait to be let go, if asked to, so that loading does not decide who writes beside whom."""
    if "--wait" in sys.argv:
        print("loaded", flush=True)
        sys.stdin.readline()


def write(url: str, first: int, count: int) -> dict[str, object]:
    """Issue *count* certificates one act each, revoking every third; report numbers and times."""
    recorded: list[tuple[int, int]] = []
    with Store.open(url) as store:
        wait_for_the_start()
        for n in range(first, first + count):
            with store.writing(clock.now_ms) as act:
                recorded.append((*record_issued(act, n),))
                if n % 3 == 0:
                    change = act.record(ChangeKind.REVOKED, issuer_id=1, serial=number(n), reason=4)
                    recorded.append((*change,))
        return {"recorded": recorded, "held_ms_max": store.lock_times.held_ms_max}


def bulk(url: str, first: int, count: int) -> dict[str, object]:
    """Import *count* certificates in pieces; report how long the lock was held."""
    recorded: list[tuple[int, int]] = []
    held: list[float] = []
    with Store.open(url) as store:
        wait_for_the_start()
        n = first
        while n < first + count:
            with store.writing(clock.now_ms) as act:
                while n < first + count and not act.is_full:
                    recorded.append((*record_issued(act, n),))
                    n += 1
            held.append(store.lock_times.held_last_ms)
            time.sleep(0.005)
    return {"recorded": recorded, "held_ms": held}


def cut(url: str, count: int) -> dict[str, object]:
    """Take *count* cuts; report number and time of each."""
    cuts: list[tuple[int, int]] = []
    with Store.open(url) as store:
        wait_for_the_start()
        for _ in range(count):
            taken = store.cut(clock.now_ms)
            cuts.append((taken.seq, taken.time_ms))
            time.sleep(0.002)
    return {"cuts": cuts}


def allocate_and_die(url: str) -> dict[str, object]:
    """Allocate CRL numbers, print the last, and be killed before anything is made of it."""
    with Store.open(url) as store:
        fence = store.acquire_publisher("builder", 60_000, clock.now_ms, "doomed")
        for _ in range(3):
            (taken,) = store.allocate_crls([WantedCRL(1, "all", ["complete"])], fence, clock.now_ms)
    print(json.dumps({"number": taken.number}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_in_the_act(url: str) -> dict[str, object]:
    """Hold the lock with a change half recorded, and be killed."""
    with Store.open(url) as store, store.writing(clock.now_ms) as act:
        record_issued(act, 1_000_000)
        act.flush()
        print(json.dumps({"seq": act.seq}), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


PROGRAMS = {
    "write": lambda url, *numbers: write(url, *map(int, numbers)),
    "bulk": lambda url, *numbers: bulk(url, *map(int, numbers)),
    "cut": lambda url, *numbers: cut(url, *map(int, numbers)),
    "allocate_and_die": allocate_and_die,
    "die_in_the_act": die_in_the_act,
}

if __name__ == "__main__":
    program, *arguments = [word for word in sys.argv[1:] if word != "--wait"]
    print(json.dumps(PROGRAMS[program](*arguments)))
