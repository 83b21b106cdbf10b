"""Writes whom to ask about, from an installation's store of record as it is now.

    python -m bench.write_population --config var/dev/certstatus.toml --service AUTH FOLDER [--count 100000]

Writes FOLDER/ca.pem and FOLDER/population.csv: all a load test needs to know of an installation, on
whatever machine it runs.  Of more certificates than *count* a random choice is taken; those that expire
within a day are left out.  The list names real certificates: treat it as the register it comes from.
Knows: the register.  Does not know: answers.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding

from bench.population import GOOD, REVOKED, REVOKED_LOG
from certstatus import clock
from certstatus.cli.context import Installation
from certstatus.errors import CertStatusError
from issuance import schema
from issuance.issuers import issuer_of
from issuance.schema import CertificateState
from issuance.store import Store

COUNT = 100_000
_MARGIN_S = 86_400
_ROWS = 10_000


def write_population(store: Store, service: str, folder: Path, count: int = COUNT) -> int:
    """Write the population of a service's newest CA key into *folder*; return how many it has.

    Raises: UnknownCertificate — no such service.
    """
    issuer = issuer_of(store, service)
    chosen = _choose(store, issuer.issuer_id, count)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(issuer.ca_certificate.public_bytes(Encoding.PEM))
    # What was revoked since an older list was written stands in this one.
    (folder / REVOKED_LOG).unlink(missing_ok=True)
    lines = "".join(f"{serial},{status}\n" for serial, status in chosen)
    (folder / "population.csv").write_text(f"serial,status\n{lines}", encoding="ascii")
    return len(chosen)


def _choose(store: Store, issuer_id: int, count: int) -> list[tuple[str, str]]:
    table, chance = schema.certificate, random.Random()
    valid_s = clock.now_ms() // 1000 + _MARGIN_S
    query = sa.select(table.c.serial, table.c.state).where(
        table.c.issuer_id == issuer_id, table.c.not_after_s > valid_s
    )
    chosen: list[tuple[str, str]] = []
    with store.reading() as connection:
        rows = connection.execution_options(yield_per=_ROWS).execute(query)
        for number, row in enumerate(rows):
            member = row.serial, GOOD if row.state == CertificateState.VALID else REVOKED
            if number < count:
                chosen.append(member)
            elif (place := chance.randrange(number + 1)) < count:
                chosen[place] = member
    return chosen


def main() -> None:
    """Write, and say how many."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--count", type=int, default=COUNT, help=f"at most so many [{COUNT}]")
    arguments = parser.parse_args()
    try:
        installation = Installation(arguments.config, as_json=True)
        written = write_population(installation.store, arguments.service, arguments.folder, arguments.count)
    except CertStatusError as exc:
        sys.exit(str(exc))
    print(f"{arguments.folder}: {written} certificates of {arguments.service}")


if __name__ == "__main__":
    main()
