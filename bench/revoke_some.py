"""Revokes certificates of a population at a steady rate, and keeps the log that load tests check against.

    python -m bench.revoke_some --config var/dev/certstatus.toml --service AUTH \\
        --population var/dev/demo/auth --rate 10 --log /tmp/revoked.log

Knows: the population's good certificates, taken from its end; writing ``?`` before and ``!`` after
each revocation (``revoked_meanwhile``).  A line ``!`` means that ``revoke`` has returned: every
worker knows.  Does not know: who asks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from bench.population import GOOD, Population


def good_from_the_end(population: Population) -> Iterator[bytes]:
    """Yield the serial numbers of the population's good certificates, last one first."""
    members = population.members
    for number in range(len(members) - 1, -1, -1):
        serial, status = members.member(number)
        if status == GOOD:
            yield serial


def main() -> None:
    """Revoke until stopped, or until nobody is left."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--population", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=10.0, help="revocations a second")
    parser.add_argument("--count", type=int, default=0, help="stop after so many [never]")
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    # The installation's own way to revoke, in this process: a command each would take half a second.
    from certstatus import clock
    from certstatus.cli.context import Installation
    from certstatus.cli.waiting import wait
    from issuance.revoke import find_certificate, revoke

    installation = Installation(arguments.config, as_json=True)
    due_s = time.monotonic()
    with arguments.log.open("a", buffering=1) as log:
        for number, serial in enumerate(good_from_the_end(Population.load(arguments.population))):
            if arguments.count and number >= arguments.count:
                return
            log.write(f"? {serial.hex()}\n")
            found = find_certificate(installation.store, serial, arguments.service)
            recorded = revoke(installation.store, found, clock.now_ms)
            wait(installation, recorded.seq, None)
            log.write(f"! {serial.hex()} {time.perf_counter():.6f}\n")
            due_s += 1 / arguments.rate
            time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    main()
