"""An installation of many generated certificates, made and served as benchmarks do."""

from __future__ import annotations

import random
import time
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from served_installation import Served

from bench import index_steps
from bench.index_scale import missed
from bench.national import make_national
from bench.own_process import measured
from bench.population import Population
from certstatus.private_valkey import PrivateValkey
from certstatus.publisher_key import load_index_key

COUNT = 50_000


@pytest.fixture(scope="module")
def nation(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The installation, made and not yet served."""
    folder = tmp_path_factory.mktemp("nation")
    installation = Served(folder)
    assert make_national(installation.state, COUNT, 7, revocable=30) == installation.state / "population"
    return installation


def _status(installation: Served, ca: x509.Certificate, serial: bytes) -> str:
    name, key = (
        _hash(ca.subject.public_bytes()),
        _hash(
            ca.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
        ),
    )
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        name, key, int.from_bytes(serial, "big"), hashes.SHA1()
    )
    asked = urllib.request.Request(
        f"{installation.url}/ocsp",
        builder.build().public_bytes(serialization.Encoding.DER),
        {"Content-Type": "application/ocsp-request"},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        response = ocsp.load_der_ocsp_response(answer.read())
    (signer,) = response.certificates
    signer.verify_directly_issued_by(ca)
    signing_key = signer.public_key()
    assert isinstance(signing_key, ec.EllipticCurvePublicKey)
    assert response.signature_hash_algorithm is not None
    signing_key.verify(
        response.signature, response.tbs_response_bytes, ec.ECDSA(response.signature_hash_algorithm)
    )
    return response.certificate_status.name.lower()


def _hash(content: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA1())
    digest.update(content)
    return digest.finalize()


def test_generated_certificates_are_answered_and_those_of_the_register_revoked(nation: Served) -> None:
    """Good, revoked and unknown are answered for generated ones, before and after a snapshot on top; and
    a revocation in the register is answered at once."""
    population = Population.load(nation.state / "population")
    revocable = Population.load(nation.state / "revocable")
    assert len(population.members) == COUNT
    chance = random.Random(4)
    numbers = [0, 7, COUNT - 1, *(chance.randrange(COUNT) for _ in range(100))]
    try:
        # Every change makes a snapshot, so that one is merged with the great one while we ask.
        text = nation.config.read_text()
        nation.config.write_text(text + "\n[index]\nsnapshot_period_s = 1\n")
        nation.serve(workers=1)
        _ask_about(nation, population, numbers)
        for number in range(3):
            serial, status = revocable.members.member(number)
            assert _status(nation, revocable.ca, serial) == status == "good"
            nation.run("revoke", serial.hex(), "--service", "AUTH", "--cause", "key-leaked")
            assert _status(nation, revocable.ca, serial) == "revoked"
        assert _status(nation, population.ca, b"\x41" + bytes(15)) == "unknown"
        _wait_for_merged(nation)
        _ask_about(nation, population, numbers)
    finally:
        nation.clean_up()
    assert min(path.stat().st_size for path in (nation.state / "index").glob("*.csx")) > COUNT * 18


def _wait_for_merged(nation: Served) -> None:
    """Return when the host has a snapshot of the publisher's own making."""
    first = min(_numbers(nation.state / "index", "csx"))
    until = time.monotonic() + 30
    while max(_numbers(nation.state / "host" / "index", "idx")) <= first:
        assert time.monotonic() < until, nation.logs()
        time.sleep(0.05)


def _numbers(folder: Path, suffix: str) -> list[int]:
    return [int(path.stem.partition("-")[2]) for path in folder.glob(f"*.{suffix}")]


def _ask_about(nation: Served, population: Population, numbers: list[int]) -> None:
    for number in numbers:
        serial, status = population.members.member(number)
        assert status == ("good" if number % 7 else "revoked")
        assert _status(nation, population.ca, serial) == status


def test_every_step_with_an_index_of_that_size(nation: Served, tmp_path: Path) -> None:
    """What the benchmark of sizes does, each in a process of its own, and what it must find."""
    path = max((nation.state / "index").glob("*.csx"), key=lambda found: found.stat().st_size)
    people, index_key = nation.state / "population", load_index_key(nation.state / "secrets" / "index.key")
    written = measured(index_steps.write, path, tmp_path / "written")
    assert written["bytes"] == path.stat().st_size
    assert written["own_mb_max"] > 0
    merged = measured(index_steps.merge, path, tmp_path / "merged", people, index_key)
    assert merged["changes"] == 2 * (written["rows"] // 1826)
    (tmp_path / "host").mkdir()
    with PrivateValkey(tmp_path / "valkey", 64) as valkey:
        assert valkey.process is not None
        where = (path, valkey.url, valkey.process.pid)
        assert measured(index_steps.upload, *where)["mb_per_s"] > 0
        assert measured(index_steps.fetch, *where, tmp_path / "host")["bytes"] == path.stat().st_size
        assert measured(index_steps.check, path, valkey.url, tmp_path / "host")["whole_ms"] > 0
    assert measured(index_steps.look_up, path, people, index_key)["known_us"] > 0
    assert measured(index_steps.swap, path)["kept"] == 0


def test_what_is_not_as_it_must_be_is_named() -> None:
    """A figure beyond its bound is named, one at it is not, and a rate only where there is one."""
    steps = {
        "size": {"bytes_per_issued": 16.0, "bytes_per_revoked": 16.5},
        "look_up": {"known_us": 5.0, "unknown_us": 1.0},
        "serve": {"restart_s_max": 2.5},
        "fetch": {"mb_per_s": 150.0},
    }
    found = missed(10_000_000, steps)
    assert [line.split(",")[0] for line in found] == [
        "10000000: size bytes_per_revoked 16.5",
        "10000000: serve restart_s_max 2.5",
        "10000000: fetch mb_per_s 150.0",
    ]
    assert len(missed(10_000, steps)) == 2
    assert len(missed(100_000_000, steps)) == 2
