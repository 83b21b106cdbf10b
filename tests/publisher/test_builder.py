"""The builder as a whole: tasks side by side, their failures apart, requests answered, two of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from crl_cases import short_periods
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from publisher_cases import issue_many

from certstatus import clock as wall_clock
from certstatus.certificate_request import CertificateRequest, request_digest
from certstatus.config import Config
from certstatus.errors import KeyFileError
from certstatus.feed_keys import FeedKeys
from certstatus.valkey import connect
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import create_issuer
from issuance.responder_certs import enroll_host
from issuance.store import Store
from publisher.builder import Builder
from publisher.certificate_requests import REFUSED_AGAIN_S, CertificateRequests
from publisher.task import PAUSE_S_MAX, VALKEY_PAUSE_S_MAX, Task

NOW = wall_clock.now_ms


class Steady:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def ca_keys(config: Config) -> CAKeyFolder:
    """The CA keys of the installation, none yet."""
    keys = CAKeyFolder(config.state / "ca")
    keys.make_passphrase()
    return keys


@pytest.fixture
def installation(config: Config, ca_keys: CAKeyFolder) -> Iterator[Store]:
    """A store with the issuers SIGN (1) and AUTH (2) and their keys, made now."""
    with Store.create(config.store_url, NOW() - 10_000) as store:
        for service in ("SIGN", "AUTH"):
            create_issuer(store, ca_keys, short_periods(service), NOW)
        yield store


def _status(config: Config) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((config.state / "run" / "builder.json").read_text())
    return content


def _until(condition: Callable[[], object], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to pass in time")


def _request(host_key: Ed25519PrivateKey, host: str, issuer_id: int = 1) -> bytes:
    ocsp_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(ocsp_key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    return CertificateRequest(host, issuer_id, pem, NOW()).sign(host_key)


def test_one_step_makes_snapshot_and_crls(installation: Store, valkey: redis.Redis, config: Config) -> None:
    """The first step publishes a snapshot and a complete CRL of every issuer, the next the deltas."""
    builder = Builder(installation, valkey, config)
    assert builder.step()
    assert installation.publication("snapshot") is not None
    for issuer_id in (1, 2):
        assert [crl.kind for crl in installation.crls(issuer_id, "all")] == ["complete"]
    _until(lambda: builder.step() and len(installation.crls(2, "all")) == 2)
    builder.note_status()
    status = _status(config)
    assert status["error"] == ""
    assert {"snapshot", "crl", "provisions"} <= status["tasks"].keys()
    sums = {item["service"]: item for item in status["crls"]["issuers"]}
    assert sums["SIGN"] == sums["AUTH"] | {"service": "SIGN"}
    assert (sums["SIGN"]["scopes"], sums["SIGN"]["failing"], sums["SIGN"]["due"]) == (1, 0, 0)
    assert status["tasks"]["snapshot"]["done"].startswith("snapshot ")


def test_failing_scope_leaves_the_others_alone(
    installation: Store, valkey: redis.Redis, config: Config, ca_keys: CAKeyFolder
) -> None:
    """Without SIGN's key AUTH's CRLs and the snapshot are still made, and the status says what is wrong."""
    ca_keys.path(1).rename(config.state / "elsewhere.key")
    builder = Builder(installation, valkey, config)
    builder.step()
    builder.note_status()
    status = _status(config)
    (trouble,) = status["crls"]["troubles"]
    assert (trouble["scope"], trouble["error"].partition(":")[0]) == ("sign/g1/all", "KeyFileError")
    assert "crl sign/g1/all: KeyFileError" in status["error"]
    assert {item["service"]: item["failing"] for item in status["crls"]["issuers"]} == {"SIGN": 1, "AUTH": 0}
    assert installation.crls(1, "all") == []
    assert len(installation.crls(2, "all")) == 1
    (config.state / "elsewhere.key").rename(ca_keys.path(1))
    _until(lambda: builder.step() and installation.crls(1, "all"))


def test_valkey_away_does_not_stop_crls(installation: Store, config: Config, tmp_path: Path) -> None:
    """With no Valkey at all the snapshot task fails and CRLs are published all the same."""
    away = connect(f"unix://{tmp_path / 'nobody.sock'}")
    builder = Builder(installation, away, config)
    builder.step()
    builder.drain_step()
    assert builder.snapshot_task.error.startswith("ConnectionError")
    assert builder.provision_task.error.startswith("ConnectionError")
    assert len(installation.crls(1, "all")) == 1
    assert installation.publication("snapshot") is None


def test_task_pauses_longer_after_each_failure() -> None:
    """A failing task is tried again after growing pauses, and at once again when it works."""
    steady = Steady()
    fate: list[Exception | str] = [KeyFileError("x")] * 10
    tried: list[float] = []

    def work() -> str:
        tried.append(steady.s)
        what = fate.pop(0)
        if isinstance(what, Exception):
            raise what
        return what

    task = Task("t", work, monotonic_s=steady)
    while fate:
        task.run()
        steady.s += 0.5
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert gaps[:3] == [1.0, 2.0, 4.0]
    assert max(gaps) == PAUSE_S_MAX
    assert task.error
    steady.s += PAUSE_S_MAX
    fate[:] = ["done", "", redis.ConnectionError("away"), redis.ConnectionError("away"), "back"]
    assert task.run()
    assert (task.error, task.done) == ("", "done")
    assert not task.run()
    assert task.done == "done"
    task.run()
    steady.s += VALKEY_PAUSE_S_MAX
    task.run()
    steady.s += VALKEY_PAUSE_S_MAX
    assert task.run()


def test_certificate_request_round_trip(
    installation: Store, valkey: redis.Redis, config: Config, ca_keys: CAKeyFolder
) -> None:
    """An enrolled host's request gets a certificate by its issuer; told again, the same one."""
    host_key = Ed25519PrivateKey.generate()
    enroll_host(installation, "h1", host_key.public_key(), NOW)
    keys = FeedKeys("t", installation.state().epoch)
    client: Any = valkey
    text = _request(host_key, "h1")
    requests = CertificateRequests(installation, valkey, ca_keys, config.responder.certificate_life_s)
    client.hset(keys.certificate_requests(), "h1:1", text)
    assert requests.answer(keys) == 1
    answer = client.hget(keys.responder_certificates("h1"), request_digest(text))
    certificate = x509.load_der_x509_certificate(answer)
    assert certificate.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert client.hlen(keys.certificate_requests()) == 0
    client.flushall()
    client.hset(keys.certificate_requests(), "h1:1", text)
    assert requests.answer(keys) == 1
    assert client.hget(keys.responder_certificates("h1"), request_digest(text)) == answer


def test_refused_request_gets_an_error_and_another_chance(
    installation: Store, valkey: redis.Redis, config: Config, ca_keys: CAKeyFolder
) -> None:
    """A host that is not enrolled is told so; once it is, the same request is signed."""
    host_key = Ed25519PrivateKey.generate()
    keys = FeedKeys("t", installation.state().epoch)
    client: Any = valkey
    steady = Steady()
    text = _request(host_key, "h2")
    client.hset(keys.certificate_requests(), "h2:1", text)
    client.hset(keys.certificate_requests(), "junk", b"not a request")
    requests = CertificateRequests(
        installation, valkey, ca_keys, config.responder.certificate_life_s, monotonic_s=steady
    )
    assert requests.answer(keys) == 0
    answer = client.hget(keys.responder_certificates("h2"), request_digest(text))
    assert answer.startswith(b"error: host h2 is not enrolled")
    assert client.hkeys(keys.certificate_requests()) == [b"h2:1"]
    enroll_host(installation, "h2", host_key.public_key(), NOW)
    assert requests.answer(keys) == 0
    steady.s += REFUSED_AGAIN_S
    assert requests.answer(keys) == 1
    assert client.hget(keys.responder_certificates("h2"), request_digest(text)).startswith(b"0")


def test_missing_ca_key_is_no_refusal(
    installation: Store, valkey: redis.Redis, config: Config, ca_keys: CAKeyFolder
) -> None:
    """A CA key that is not at hand leaves its request waiting, while other issuers' are signed."""
    host_key = Ed25519PrivateKey.generate()
    enroll_host(installation, "h1", host_key.public_key(), NOW)
    keys = FeedKeys("t", installation.state().epoch)
    client: Any = valkey
    for issuer_id in (1, 2):
        client.hset(keys.certificate_requests(), f"h1:{issuer_id}", _request(host_key, "h1", issuer_id))
    ca_keys.path(1).rename(config.state / "elsewhere.key")
    fresh = CAKeyFolder(config.state / "ca")
    requests = CertificateRequests(installation, valkey, fresh, config.responder.certificate_life_s)
    with pytest.raises(KeyFileError):
        requests.answer(keys)
    assert client.hkeys(keys.certificate_requests()) == [b"h1:1"]
    assert client.hlen(keys.responder_certificates("h1")) == 1


def test_second_builder_stands_by_and_takes_over(
    installation: Store, valkey: redis.Redis, config: Config
) -> None:
    """Of two builders one works; when it stops the other goes on at once."""
    stops = [threading.Event(), threading.Event()]
    builders = [Builder(installation, valkey, config) for _ in stops]
    threads = [
        threading.Thread(target=builder.run, args=(stop,))
        for builder, stop in zip(builders, stops, strict=True)
    ]
    try:
        threads[0].start()
        _until(lambda: builders[0].state == "working")
        threads[1].start()
        time.sleep(1.2)
        assert builders[1].state == "standby"
        issue_many(installation, range(3), now_ms=NOW())
        stops[0].set()
        threads[0].join(10)
        assert builders[0].state == "stopped"
        _until(lambda: builders[1].state == "working")
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_builder_that_lost_its_lease_stands_by(
    installation: Store, valkey: redis.Redis, config: Config
) -> None:
    """A builder that another has taken over from publishes nothing more under its old fence."""
    builder = Builder(installation, valkey, config)
    builder.step()
    installation.acquire_publisher("builder", 60_000, NOW, "another", take_over=True)
    before = installation.publication("snapshot")
    issue_many(installation, range(150), now_ms=NOW())
    builder.step()
    assert installation.publication("snapshot") == before
    assert builder.snapshot_task.error.startswith("FencedOff")


def test_process_runs_and_ends_on_sigterm(installation: Store, config: Config, tmp_path: Path) -> None:
    """`python -m publisher.builder CONFIG` publishes, drains, writes its status and ends cleanly."""
    config_path = tmp_path / "certstatus.toml"
    config_path.write_text(
        f'[installation]\nstate = "{tmp_path}"\n[valkey]\nurl = "{config.valkey.url}"\nnamespace = "t"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "publisher.builder", str(config_path)], stderr=subprocess.PIPE
    )
    try:
        _until(lambda: len(installation.crls(2, "all")) == 2, 20)
        _until(lambda: _status(config)["pid"] == process.pid)
        process.terminate()
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert b"ERROR" not in errors
    assert _status(config)["state"] == "stopped"


def test_process_without_a_store_says_so(tmp_path: Path) -> None:
    """Started where there is no installation, it ends with a message and an exit code of its own."""
    config_path = tmp_path / "certstatus.toml"
    config_path.write_text(f'[installation]\nstate = "{tmp_path}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "publisher.builder", str(config_path)], capture_output=True, check=False
    )
    assert done.returncode == 69
    assert b"certstatus init" in done.stderr
