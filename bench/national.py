"""An installation of a nation's size: millions of certificates in its index, some thousand in its register.

    python -m bench.national --state DIR --certificates 10000000 --revoked-every 10
    certstatus --config DIR/certstatus.toml serve

    DIR/population/   ca.pem, generated.json   whom to ask about: ``population`` says what each is
    DIR/revocable/    ca.pem, population.csv   certificates of the register, all good: ``revoke_some``
    DIR/demo/...                               as ``certstatus demo`` makes them

The millions stand in the AUTH issuer's snapshot only.  It lies where the publisher has its own and is
named in the store as that, so everything from there on is the product's: uploaded, named in signed
beats, fetched, checked, merged with what happens later.  Should the file be lost, the next one is made
from the store and knows only what is in the register.

Knows: making it.  Does not know: asking it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.generated_rows import sorted_blocks
from bench.population import Generated
from certstatus import clock
from certstatus.cli.context import Installation
from certstatus.snapshot import make_manifest
from certstatus.snapshot_writer import new_snapshot
from issuance.issue import Issuing, record_many, sign
from issuance.issuers import issuer_of
from issuance.store import Cut
from publisher.snapshots import KIND, SUFFIX
from publisher.store_rows import issuer_heads, row_blocks

SERVICE = "AUTH"
REVOCABLE = 20_000
DEMO_PEOPLE = 100
_LIFE_DAYS = 1826
_SIGNED_AT_ONCE = 200
# Two snapshots are in Valkey while hosts change over, and then some for the stream.
_VALKEY_MB_MIN = 512
_MB_PER_MILLION = 48


def make_national(
    state: Path, certificates: int, revoked_every: int, *, revocable: int = REVOCABLE, port: int = 8080
) -> Path:
    """Make the installation in *state*, which must not be there yet; return its population folder.

    Takes:   every *revoked_every*-th generated certificate is revoked (0: none); *revocable*: good
             ones in the register besides.
    Raises:  FileExistsError — *state* is there; OSError — no room (44 bytes a certificate, then 18).
    """
    if state.exists():
        raise FileExistsError(f"{state}: there is something already")
    config = state / "certstatus.toml"
    _run(config, "init", "--port", str(port))
    memory_mb = _VALKEY_MB_MIN + certificates * _MB_PER_MILLION // 1_000_000
    with config.open("a") as stream:
        stream.write(f"\n[valkey]\nmemory_mb_max = {memory_mb}\n")
    _run(config, "demo", "--population", str(DEMO_PEOPLE))
    installation = Installation(config, as_json=True)
    try:
        _issue_revocable(installation, state / "revocable", revocable)
        people = Generated(certificates, secrets.token_bytes(16), revoked_every)
        _write_snapshot(installation, people)
        return _write_population(installation, people)
    finally:
        installation.close()


def _run(config: Path, *words: str) -> None:
    command = [sys.executable, "-m", "certstatus.cli", "--config", str(config), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _issue_revocable(installation: Installation, folder: Path, count: int) -> None:
    issuer = issuer_of(installation.store, SERVICE, 1)
    issuing = Issuing.of(issuer, installation.ca_keys.private_key(issuer.issuer_id))
    lines = ["serial,status\n"]
    while len(lines) <= count:
        now_s = clock.now_ms() // 1000
        lot = [
            sign(issuing, ec.generate_private_key(ec.SECP256R1()).public_key(), now_s)
            for _ in range(min(_SIGNED_AT_ONCE, count + 1 - len(lines)))
        ]
        record_many(installation.store, issuing, installation.index_key, lot, clock.now_ms)
        lines += [f"{item.serial.hex()},good\n" for item in lot]
    _write_ca(installation, folder)
    (folder / "population.csv").write_text("".join(lines))


def _write_ca(installation: Installation, folder: Path) -> None:
    folder.mkdir()
    ca = issuer_of(installation.store, SERVICE, 1).ca_certificate
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))


def _write_snapshot(installation: Installation, people: Generated) -> None:
    """Write the snapshot of everything at the present number, and name it in the store."""
    store = installation.store
    state = store.state()
    cut = Cut(state.epoch, state.seq, store.recorded_ms(state.seq), store.chain_at(state.seq))
    folder = installation.config.state / "index"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cut.epoch.hex()}-{cut.seq}{SUFFIX}"
    crowded = issuer_of(store, SERVICE, 1).issuer_id
    issuers = issuer_heads(store, cut.seq)
    with new_snapshot(path, *cut, issuers) as writer:
        for issuer in issuers:
            blocks = row_blocks(store, issuer.issuer_id, cut.seq)
            if issuer.issuer_id == crowded:
                ends_day = clock.jst_day_number(cut.time_ms // 1000) + _LIFE_DAYS
                revoked_s = cut.time_ms // 1000 - 86_400
                blocks = sorted_blocks(people, installation.index_key, ends_day, revoked_s, blocks, folder)
            for block in blocks:
                writer.add(block)
            writer.end_issuer()
    manifest = make_manifest(path).encode()
    store.publish(KIND, cut.seq, hashlib.sha256(manifest).digest(), manifest)


def _write_population(installation: Installation, people: Generated) -> Path:
    folder = installation.config.state / "population"
    _write_ca(installation, folder)
    content = {"count": people.count, "key": people.key.hex(), "revoked_every": people.revoked_every}
    (folder / "generated.json").write_text(json.dumps(content) + "\n")
    return folder


def main() -> None:
    """Make one, and say where it is and what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--state", type=Path, required=True, help="folder to be made")
    parser.add_argument("--certificates", type=int, default=10_000_000)
    parser.add_argument("--revoked-every", type=int, default=10)
    parser.add_argument("--revocable", type=int, default=REVOCABLE, help="certificates in the register")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    folder = make_national(
        arguments.state,
        arguments.certificates,
        arguments.revoked_every,
        revocable=arguments.revocable,
        port=arguments.port,
    )
    print(f"{folder}: {arguments.certificates} certificates, {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
