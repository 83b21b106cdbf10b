"""A process that issues into partitions and revokes at random: partition_writers.py URL FOLDER SEED N.

Knows: the store at URL with its issuers, whose keys are in FOLDER; N acts by the numbers of SEED.
Prints: the certificates that it issued, as JSON: service, serial, scope, revoked or not.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from ca_cases import new_key
from store_cases import INDEX_KEY

from certstatus import clock
from issuance.ca_keys import CAKeyFolder
from issuance.issue import Issuing, issue
from issuance.issuers import issuers
from issuance.revoke import FoundCertificate, revoke
from issuance.store import Store

CODES = (None, "13104", "131130", "01101")


def main(url: str, folder: str, seed: int, count: int) -> list[tuple[str, str, str, bool]]:
    """Do *count* acts; return the certificates."""
    numbers = random.Random(seed)
    keys = CAKeyFolder(Path(folder), environment={})
    made: dict[bytes, tuple[str, str, bool]] = {}
    with Store.open(url) as store:
        tools = [Issuing.of(issuer, keys.private_key(issuer.issuer_id)) for issuer in issuers(store)]
        for _ in range(count):
            issuing = numbers.choice(tools)
            service = issuing.issuer.service
            valid = [serial for serial, (of, _, revoked) in made.items() if of == service and not revoked]
            if valid and numbers.random() < 0.4:
                serial = numbers.choice(valid)
                found = FoundCertificate(issuing.issuer.issuer_id, service, serial)
                revoke(store, found, clock.now_ms, reason=numbers.choice((1, 4)))
                made[serial] = (service, made[serial][1], True)
                continue
            code = numbers.choice(CODES) if service == "SIGN" else None
            issued = issue(store, issuing, INDEX_KEY, new_key(), clock.now_ms, partition=code)
            made[issued.serial] = (service, issued.scope, False)
    return [(service, serial.hex(), scope, revoked) for serial, (service, scope, revoked) in made.items()]


if __name__ == "__main__":
    url, folder, seed, count = sys.argv[1:]
    print(json.dumps(main(url, folder, int(seed), int(count))))
