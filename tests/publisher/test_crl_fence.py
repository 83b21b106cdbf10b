"""A publisher that was stopped while another took over: it signs nothing any more, nor spoils what is out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from crl_cases import COMPLETE, DELTA, short_periods
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from issuer_cases import PublishedIssuer
from publisher_cases import START_MS, Clock

from certstatus import clock as wall_clock
from certstatus.crl_pack import contents_file
from certstatus.errors import FencedOff, KeyFileError
from certstatus.key_kinds import generate_key
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import create_issuer
from issuance.store import Store
from publisher.crl_catalogue import CataloguePublisher
from publisher.crl_lot import PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher
from publisher.fenced_key import fenced

# Stops itself when the number is given out, the list encoded and linted, and the key about to be used.
_STOPPED = """
import os, signal, sys
from pathlib import Path
from certstatus.clock import now_ms
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher import crl_publish, crl_write
from publisher.crl_plan import Due
state = Path(sys.argv[1])
store = Store.open(f"sqlite:///{state / 'store.db'}")
fence = store.acquire_publisher("crl", 1000, now_ms, "stopped", take_over=True)
real = crl_write.fenced
def stopping(key, ask):
    def stop():
        os.kill(os.getpid(), signal.SIGSTOP)
        ask()
    return real(real(key, lambda: print("signs", flush=True)), stop)
crl_write.fenced = stopping
publisher = crl_publish.CRLPublisher(store, CAKeyFolder(state / "ca"), state)
publisher.issue(publisher.scopes()[0], Due(True, False), fence)
"""


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_stopped_publisher_that_lost_its_lease_signs_nothing(tmp_path: Path, taken_over: bool) -> None:
    """Stopped between number and signature: if another has published meanwhile, it ends without having
    signed, and what the other published stands; if nobody has, it goes on and publishes its number."""
    now = wall_clock.now_ms
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", now() - 10_000) as store:
        keys = CAKeyFolder(tmp_path / "ca")
        keys.make_passphrase()
        issuer_id = create_issuer(store, keys, short_periods("SIGN"), now).issuer_id
        process = subprocess.Popen(
            [sys.executable, "-c", _STOPPED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), process.communicate()[1].decode()
            assert [crl.state for crl in store.crls(issuer_id, "all")] == ["allocated"]
            published = []
            if taken_over:
                fence = store.acquire_publisher("crl", 60_000, now, "test", take_over=True)
                publisher = CRLPublisher(store, keys, tmp_path)
                published = publisher.issue(publisher.scopes()[0], Due(True, False), fence)
                content = published[0].file.read_bytes()
            process.send_signal(signal.SIGCONT)
            said, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        states = {(crl.number, crl.kind): crl.state for crl in store.crls(issuer_id, "all")}
        if taken_over:
            assert b"FencedOff" in errors
            assert said == b""
            assert process.returncode != 0
            assert states == {(1, COMPLETE): "withdrawn", (2, COMPLETE): "published"}
            assert published[0].file.read_bytes() == content
        else:
            assert (said, process.returncode) == (b"signs\n", 0), errors.decode()
            assert states == {(1, COMPLETE): "published"}
        files = sorted(path.name for path in (tmp_path / "crl" / "sign/g1/all").iterdir())
        assert files == ["2.crl" if taken_over else "1.crl"]


def test_the_fence_is_asked_for_each_of_two_signatures(tmp_path: Path) -> None:
    """Lost between the complete CRL and the delta made with it, neither is published."""
    clock = Clock()
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        keys = CAKeyFolder(tmp_path / "ca")
        keys.make_passphrase()
        issuer_id = create_issuer(store, keys, short_periods("SIGN"), clock.now_ms).issuer_id
        publisher = CRLPublisher(store, keys, tmp_path, now_ms=clock.now_ms)
        (scope,) = publisher.scopes()
        fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "first")
        publisher.issue(scope, Due(True, False), fence)
        clock.ms += 5000
        signed = []

        def note() -> None:
            signed.append(1)
            if len(signed) == 1:
                store.acquire_publisher("crl", 1 << 40, clock.now_ms, "second", take_over=True)

        keys._loaded[issuer_id] = fenced(keys.private_key(issuer_id), note)
        with pytest.raises(FencedOff):
            publisher.issue(scope, Due(True, True), fence)
        assert len(signed) == 1
        published = store.crls(issuer_id, "all", state="published")
        assert [(crl.number, crl.kind) for crl in published] == [(1, COMPLETE)]
        assert {crl.kind for crl in store.crls(issuer_id, "all", state="allocated")} == {COMPLETE, DELTA}


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_who_loses_the_lease_while_tidying_removes_nothing_of_the_next_ones(tmp_path: Path, at: int) -> None:
    """Stopped at any moment of it, for so long that another publishes meanwhile: what that made stays."""
    clock = Clock()
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = PublishedIssuer(store, tmp_path, clock, short_periods("SIGN"))
        line.issue_one(partition="m1/13101")
        fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "first")
        looks = 0
        made: list[PublishedCRL] = []

        def steady_s() -> float:
            nonlocal looks
            looks += 1
            if looks == at:
                other = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "second", take_over=True)
                second = line.another()
                for scope in second.scopes():
                    made.extend(second.issue(scope, Due(True, True), other))
                second.tidy(other)
            return clock.monotonic_s()

        before = line.another()
        for scope in before.scopes():
            before.issue(scope, Due(True, False), fence)
        clock.pass_s(5)
        first = CRLPublisher(store, line.keys, tmp_path, now_ms=clock.now_ms, monotonic_s=steady_s)
        with suppress(FencedOff):
            first.tidy(fence)
        assert {(crl.scope, crl.kind) for crl in made} == {
            (f"sign/g1/{scope}", kind) for scope in ("all", "m1/13101") for kind in (COMPLETE, DELTA)
        }
        assert [crl.file for crl in made if not crl.file.exists()] == []
        mark = CataloguePublisher(store).archive()
        assert mark is not None
        assert (tmp_path / "crl" / "archive" / contents_file(mark.contents)).exists()


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
def test_a_fenced_key_signs_as_its_key_and_does_nothing_else(kind: str) -> None:
    """Its signature verifies under the key's public half; the key's value and other uses are refused."""
    key = generate_key(kind)
    asked: list[int] = []
    guarded = fenced(key, lambda: asked.append(1))
    if isinstance(guarded, rsa.RSAPrivateKey):
        signature = guarded.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
        guarded.public_key().verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
        with pytest.raises(KeyFileError):
            guarded.decrypt(b"", padding.PKCS1v15())
    else:
        signature = guarded.sign(b"data", ec.ECDSA(hashes.SHA256()))
        guarded.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))
        with pytest.raises(KeyFileError):
            guarded.exchange(ec.ECDH(), guarded.public_key())
        assert guarded.curve.name == guarded.public_key().curve.name
    assert asked == [1]
    assert guarded.key_size == key.key_size
    with pytest.raises(KeyFileError):
        guarded.private_numbers()
    with pytest.raises(KeyFileError):
        guarded.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
