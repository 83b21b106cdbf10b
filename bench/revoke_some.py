"""Revokes certificates of a population at a steady rate, and keeps the log that load tests check against.

    python -m bench.revoke_some --config var/dev/certstatus.toml --service AUTH \\
        --population var/dev/bench/auth --rate 10

They stay revoked: this is for installations that were made to be tried.
Knows: the population's good certificates, taken from its end; writing ``?`` before and ``!`` after
each revocation (``revoked_meanwhile``).  A line ``!`` means that every worker knows.  Does not
know: who asks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.population import GOOD, REVOKED_LOG, Population
from bench.revoked_meanwhile import acknowledged_line, asked_line
from certstatus.errors import CertStatusError, IllegalTransition

if TYPE_CHECKING:
    from certstatus.cli.context import Installation


def good_from_the_end(population: Population) -> Iterator[bytes]:
    """Yield the serial numbers of the population's good certificates, last one first."""
    members = population.members
    for number in range(len(members) - 1, -1, -1):
        serial, status = members.member(number)
        if status == GOOD:
            yield serial


def revoke_some(
    installation: Installation, service: str, population: Population, file: Path, rate: float, count: int
) -> int:
    """Revoke *rate* certificates a second until *count* (0: all) are; return how many it were."""
    # The installation's own way to revoke, in this process: a command each would take half a second.
    from certstatus import clock
    from certstatus.cli.waiting import wait
    from issuance.revoke import find_certificate, revoke

    done, due_s = 0, time.monotonic()
    with file.open("a", encoding="ascii", buffering=1) as log:
        for serial in good_from_the_end(population):
            if count and done >= count:
                break
            found = find_certificate(installation.store, serial, service)
            log.write(asked_line(serial))
            try:
                recorded = revoke(installation.store, found, clock.now_ms)
            except IllegalTransition:
                # Revoked since the list was written; what the log says of it is true, too.
                continue
            if wait(installation, recorded.seq, None).is_complete:
                log.write(acknowledged_line(serial))
            done += 1
            due_s += 1 / rate
            time.sleep(max(0.0, due_s - time.monotonic()))
    return done


def main() -> None:
    """Revoke until stopped, or until nobody is left."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--population", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=10.0, help="revocations a second [10]")
    parser.add_argument("--count", type=int, default=0, help="stop after so many [never]")
    parser.add_argument("--log", type=Path, default=None, help=f"[POPULATION/{REVOKED_LOG}]")
    arguments = parser.parse_args()
    from certstatus.cli.context import Installation

    try:
        done = revoke_some(
            Installation(arguments.config, as_json=True),
            arguments.service,
            Population.load(arguments.population),
            arguments.log or arguments.population / REVOKED_LOG,
            arguments.rate,
            arguments.count,
        )
    except (CertStatusError, ValueError) as exc:
        sys.exit(str(exc))
    except KeyboardInterrupt:
        return
    print(f"{done} revoked")


if __name__ == "__main__":
    main()
