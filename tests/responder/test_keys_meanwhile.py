"""A worker's keys while they are being read on threads, and what its loop does meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import NAMESPACE
from worker_cases import Host, wait_until

from certstatus import clock
from certstatus.config import Config
from responder import keys as keys_module
from responder.key_watch import KeyWatch
from responder.keys import HostKeys, SignerSet

_READ_S = 10


@pytest.fixture
def served(valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config) -> Iterator[Host]:
    """A worker whose configuration, read again, says p384, with keys of both kinds."""
    host = Host(valkey, publisher_key, config)
    host.ca.install_responder(host.folder / "host" / "keys", clock.now_s(), algorithm="p384")
    write_config(host)
    with host.serving():
        yield host


def write_config(host: Host, more: str = "", key: str = "p384") -> None:
    """What the worker finds when it reads its configuration again."""
    Path(host.config.file).write_text(
        f'[installation]\nstate = "{host.folder}"\n'
        f'[valkey]\nurl = "{host.config.valkey.url}"\nnamespace = "{NAMESPACE}"\n'
        f'[responder]\nport = 0\nkey = "{key}"\n{more}'
    )


def algorithm(host: Host) -> str:
    """Of the key that signs for the CA by default, as the loop has it."""

    def current() -> str:
        signer = host.worker.path.signers.current(host.ca.issuer, clock.now_s())
        return "" if signer is None else signer.key_algorithm

    return host.call(current)


class Gate:
    """Holds up calls of a function until it is opened; ``calls`` are those that have begun."""

    def __init__(self, act: Callable[..., SignerSet], first_only: bool = False) -> None:
        self.calls: list[int] = []
        self.threads: set[str] = set()
        self._act = act
        self._opened = threading.Event()
        self._first_only = first_only

    def __call__(self, *words: object) -> SignerSet:
        self.threads.add(threading.current_thread().name)
        signers = self._act(*words)
        self.calls.append(len(self.calls))
        if not self._first_only or len(self.calls) == 1:
            assert self._opened.wait(_READ_S)
        return signers

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(served: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """All readings of the worker's key files wait here, on whatever thread."""
    held = Gate(served.worker.keys._keys.load)
    monkeypatch.setattr(served.worker.keys._keys, "load", held)
    yield held
    held.open()


def look(host: Host) -> Future[None]:
    """A search for new keys, as the worker makes one each second."""
    host.worker.keys._seen = ()
    return asyncio.run_coroutine_threadsafe(host.worker.keys.look(), host._loop)


def test_a_reload_is_not_undone_by_keys_that_were_being_read(
    served: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SIGHUP brings stays, also where a search for new keys had begun before and ends after it."""
    held = Gate(served.worker.keys._keys.load, first_only=True)
    monkeypatch.setattr(served.worker.keys._keys, "load", held)
    looking = look(served)
    wait_until(lambda: held.calls)
    assert algorithm(served) == "p256"
    served.call(served.worker.reload)
    wait_until(lambda: algorithm(served) == "p384")
    held.open()
    looking.result(10)
    assert algorithm(served) == "p384"


def test_keys_are_read_beside_the_loop(served: Host, gate: Gate) -> None:
    """While a reload reads, however long that takes, the loop goes on, and the set comes whole."""
    served.call(served.worker.reload)
    wait_until(lambda: gate.calls)
    assert not any(name.startswith(("worker", "Main")) for name in gate.threads)
    before = served.worker.path.signers
    for _ in range(10):
        assert algorithm(served) == "p256"
    assert served.worker.path.signers is before
    gate.open()
    wait_until(lambda: algorithm(served) == "p384")


def test_no_reload_is_lost_when_several_come_together(served: Host, gate: Gate) -> None:
    """Whatever the files said when the last was asked for is what is in use in the end."""
    served.call(served.worker.reload)
    wait_until(lambda: gate.calls)
    write_config(served, "certificates_per_request_max = 3\n", key="p256")
    for _ in range(3):
        served.call(served.worker.reload)
    serial = served.ca.install_responder(served.folder / "host" / "keys", clock.now_s())
    gate.open()
    wait_until(lambda: served.worker.config.responder.certificates_per_request_max == 3)
    wait_until(lambda: served.call(lambda: served.worker._reloading) is None)
    signers = served.worker.path.signers
    assert serial in {signer.serial for signer in signers.signers}
    assert algorithm(served) == "p256"
    # Those that came while one was read were answered by one more.
    assert len(gate.calls) == 2


def test_what_is_wrong_with_a_reload_is_logged_and_the_next_one_counts(
    served: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the configuration changes nothing, and is no reload's end but its own."""
    text = Path(served.config.file).read_text()
    Path(served.config.file).write_text(text.replace("port = 0", "port = -1"))
    with caplog.at_level(logging.ERROR):
        served.call(served.worker.reload)
        wait_until(lambda: "reload: " in caplog.text)
    assert "responder.port" in caplog.text
    assert algorithm(served) == "p256"
    Path(served.config.file).write_text(text)
    served.call(served.worker.reload)
    wait_until(lambda: algorithm(served) == "p384")


def test_a_reload_with_a_broken_key_takes_over_the_others_and_names_it(
    served: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, in the log and in the status, as long as it is so; what was read before stays in use."""
    folder = served.folder / "host" / "keys"
    (broken,) = folder.glob("2-*.key")
    content = broken.read_bytes()
    broken.write_bytes(b"no key")
    now_s = clock.now_s()
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            served.call(served.worker.reload)
            wait_until(lambda: served.worker._reloading is None)
    assert algorithm(served) == "p384"
    assert served.worker.path.signers.current(served.other.issuer, now_s) is not None
    assert list(served.call(served.worker.status)["unfit_keys"]) == [broken.stem]
    assert caplog.text.count(f"{broken}: not an unencrypted PEM key") == 1
    broken.write_bytes(content)
    served.call(served.worker.reload)
    wait_until(lambda: not served.call(served.worker.status)["unfit_keys"])


def test_who_may_sign_is_known_before_the_loop_has_the_keys(
    served: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verification for each new certificate would else fall into one turn, with the next status file."""
    threads: list[str] = []
    real = keys_module._is_issued_by

    def verify(certificate: x509.Certificate, certificates_der: tuple[bytes, ...]) -> bool:
        threads.append(threading.current_thread().name)
        return real(certificate, certificates_der)

    monkeypatch.setattr(keys_module, "_is_issued_by", verify)
    serial = served.ca.install_responder(served.folder / "host" / "keys", clock.now_s() + 1)
    look(served).result(10)
    assert serial in {signer.serial for signer in served.worker.path.signers.signers}
    served.call(served.worker.status)
    assert threads
    assert all(name.startswith("keys") for name in threads)


def test_a_reading_that_hangs_holds_up_neither_ticks_nor_a_later_one(tmp_path: Path) -> None:
    """A token that does not answer, say: what is read after it is taken over, and it no more."""

    class Slow(HostKeys):
        hang = threading.Event()
        read = 0

        def load(self, default: str = "", before: SignerSet | None = None) -> SignerSet:  # noqa: ARG002
            self.read += 1
            if self.read == 1:
                assert self.hang.wait(10)
                return SignerSet(default="old")
            return SignerSet(default="new")

    async def run() -> list[SignerSet]:
        taken: list[SignerSet] = []
        keys = Slow(tmp_path)
        watch = KeyWatch(keys, "p256", list, taken.append)
        first = asyncio.create_task(watch.read())
        while not keys.read:
            await asyncio.sleep(0.001)
        await watch.read()
        keys.hang.set()
        await first
        watch.close()
        return taken

    begun_s = time.monotonic()
    (only,) = asyncio.run(run())
    assert only._default == "new"
    assert time.monotonic() - begun_s < 5


def test_what_could_not_be_read_is_tried_again_and_what_is_well_is_left_alone(tmp_path: Path) -> None:
    """Every five seconds, because what is mended (a mode, a token) need not show in the folder."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "1-00.crt").write_bytes(b"none")
    now_s = [100.0]

    class Counted(HostKeys):
        times = 0

        def load(self, default: str = "", before: SignerSet | None = None) -> SignerSet:
            self.times += 1
            return super().load(default, before)

    async def run() -> list[int]:
        keys = Counted(tmp_path)
        watch = KeyWatch(keys, "p256", list, lambda _signers: None, lambda: now_s[0])
        assert [item.pair for item in watch.first().unfit] == ["1-00"]
        times = []
        for now_s[0] in (101.0, 104.9, 105.0, 106.0, 110.0):
            await watch.look()
            times.append(keys.times)
        (tmp_path / "keys" / "1-00.crt").unlink()
        for now_s[0] in (111.0, 120.0):
            await watch.look()
            times.append(keys.times)
        watch.close()
        return times

    assert asyncio.run(run()) == [1, 1, 2, 2, 3, 4, 4]
