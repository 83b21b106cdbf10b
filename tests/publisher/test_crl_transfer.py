"""CRL files on their way to hosts without the publisher's folder: whole or not at all, whatever happens.

Store, feed, Valkey, publisher's and hosts' folders are real ones; only the clock of retries is shortened.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from catalogue_cases import catalogue_line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from publisher_cases import START_MS, Clock

from certstatus.config import Config
from certstatus.crl_catalogue import COMPLETE, CatalogueEntry, path_of
from certstatus.crl_chunks import ASKED_BYTES_MAX, CHUNK_BYTES, ChunkName, ChunkRequest, seal_chunk
from certstatus.errors import CertStatusError, FeedError, FolderBusy
from certstatus.feed_keys import FeedKeys
from certstatus.private_valkey import PrivateValkey
from certstatus.valkey import connect
from issuance.store import Store
from publisher.crl_catalogue import CataloguePublisher
from publisher.crl_chunks import CRLChunks
from publisher.feed import Feed
from responder import fetch_crls
from responder.fetch_crls import CRLFetcher

LARGE = 11 * CHUNK_BYTES + 77


class Ground:
    """A publisher with CRL files, and hosts that have none yet."""

    def __init__(
        self, store: Store, config: Config, url: str, key: Ed25519PrivateKey, clock: Clock, folder: Path
    ) -> None:
        self.store = store
        self.clock = clock
        self.url = url
        self.key = key
        self.folder = folder
        self.source = folder / "crl"
        self.valkey: Any = connect(url)
        self.keys = FeedKeys("t", store.state().epoch)
        self.entries: list[CatalogueEntry] = []
        self.contents: dict[str, bytes] = {}
        self.octets_given = 0
        self.largest = 0
        self.bytes_max = 64 << 20
        self._feed = Feed(store, self.valkey, key, config, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
        self._catalogue = CataloguePublisher(store)
        self._fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "test")
        self._random = random.Random(7)
        self._hosts: list[CRLFetcher] = []

    # --- the publisher ---------------------------------------------------------------------------------

    def put(
        self,
        number: int,
        base: int | None = None,
        *,
        scope: str = "all",
        size: int = 2000,
        current: bool = True,
    ) -> CatalogueEntry:
        """A CRL that the next catalogue names, current in the place of the one before it."""
        content = self._random.randbytes(size)
        digest = hashlib.sha256(content).hexdigest()
        folder = f"sign/g1/{scope}"
        entry = catalogue_line(
            folder, number, START_MS // 1000, base=base, current=current, size=size, sha256=digest
        )
        path = self.source / entry.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.contents[entry.file] = content
        self.entries = [
            replace(e, current=False) if e.name == entry.name and current else e for e in self.entries
        ]
        self.entries.append(entry)
        return entry

    def drop(self, entry: CatalogueEntry) -> None:
        """Let the next catalogue name a CRL no longer."""
        self.entries = [other for other in self.entries if other.file != entry.file]
        del self.contents[entry.file]

    def publish(self) -> None:
        """Publish the catalogue, and a beat that names it."""
        self.clock.pass_s(1)
        self._catalogue.publish(self.entries, None, self._fence, self.clock.now_ms)
        assert self._feed.step()

    def beat(self) -> None:
        """Put back what Valkey has lost."""
        self.clock.pass_s(1)
        assert self._feed.step()

    @contextmanager
    def giving(self, answers_max: int | None = None) -> Iterator[CRLChunks]:
        """A publisher that answers, or is killed after so many answers."""
        made = CRLChunks(self.store, self.valkey, "t", self.source, bytes_max=self.bytes_max)
        ended = threading.Event()

        def run() -> None:
            answers = 0
            while not ended.is_set() and answers != answers_max:
                try:
                    answers += made.step(0.05)
                    self.largest = max(self.largest, self.lying())
                except (redis.RedisError, CertStatusError):
                    ended.wait(0.02)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield made
        finally:
            ended.set()
            thread.join(10)
            self.octets_given += made.octets

    def lying(self) -> int:
        """Octets of all pieces that lie in Valkey."""
        return sum(self.valkey.strlen(name) for name in self.chunk_names())

    def chunk_names(self) -> list[bytes]:
        return list(self.valkey.scan_iter(match=f"{self.keys.crl_chunk('*', 0)[:-1]}*", count=1000))

    # --- hosts -----------------------------------------------------------------------------------------

    def host(self, name: str = "tokyo-1") -> CRLFetcher:
        """A host's fetcher, as its agent has one in its life."""
        made = CRLFetcher(
            self.folder_of(name), connect(self.url), "t", self.key.public_key(), name, wait=time.sleep
        )
        self._hosts.append(made)
        return made

    def folder_of(self, name: str) -> Path:
        return self.folder / name / "crl"

    def files(self, name: str = "tokyo-1") -> dict[str, bytes]:
        """What a host has under names that can be served."""
        folder = self.folder_of(name)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.crl")}

    def parts(self, name: str = "tokyo-1") -> list[int]:
        """Octets of the transfers that have not ended."""
        return [path.stat().st_size for path in (self.folder_of(name) / ".parts").iterdir()]

    def close(self) -> None:
        for host in self._hosts:
            host.close()
        self.valkey.close()


def fetch(host: CRLFetcher, time_s: float = 30.0) -> None:
    """Let the host go on until all is here."""
    until = time.monotonic() + time_s
    while True:
        more = _step(host)
        if not more and host.status.awaited == 0 and host.status.generation:
            return
        assert time.monotonic() < until, host.status
        if not more:
            time.sleep(0.01)


def _step(host: CRLFetcher) -> bool:
    try:
        return host.step()
    except (redis.RedisError, CertStatusError):
        # Its thread notes that and goes on.
        return False


def _steps(host: CRLFetcher, count: int) -> None:
    for _ in range(count):
        host.step()


def nothing_wrong(ground: Ground, name: str = "tokyo-1") -> bool:
    """Say whether every file under a name is the one that was published, and no delta is without its base."""
    files = ground.files(name)
    for entry in ground.entries:
        if entry.file in files and entry.base_number is not None:
            assert f"{path_of(entry)}/{entry.base_number}.crl" in files
    return all(content == ground.contents[file] for file, content in files.items())


@pytest.fixture
def ground(
    store: Store,
    config: Config,
    valkey: redis.Redis,
    valkey_server: PrivateValkey,
    publisher_key: Ed25519PrivateKey,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Ground]:
    monkeypatch.setattr(fetch_crls, "ANSWER_S", 0.3)
    monkeypatch.setattr(fetch_crls, "LOOK_S", 0.0)
    monkeypatch.setattr(fetch_crls, "_AGAIN_S", 0.05)
    monkeypatch.setattr(fetch_crls, "_WRONG_AGAIN_S", 0.05)
    monkeypatch.setattr(fetch_crls, "_FULL_S", 0.05)
    valkey.ping()
    made = Ground(store, config, valkey_server.url, publisher_key, clock, tmp_path)
    yield made
    made.close()


# --- what is fetched -----------------------------------------------------------------------------------


def test_a_host_gets_what_the_catalogue_names(ground: Ground) -> None:
    """Small and large, in pieces of at most 1 MiB; then only what is new."""
    ground.put(40, current=False)
    ground.put(41, size=LARGE)
    ground.put(57, 40, size=900)
    for code in range(100):
        ground.put(1, scope=f"m1/{code:05}", size=code * 40 + 1)
    ground.publish()
    host = ground.host()
    with ground.giving():
        fetch(host)
        assert ground.files() == ground.contents
        assert ground.parts() == []
        assert host.status.files == 103
        new = ground.put(58, 40)
        ground.publish()
        fetch(host)
        assert host.status.files == 104
        assert ground.files()[new.file] == ground.contents[new.file]
        # A new life of it reads what is here, and fetches nothing.
        host.close()
        again = ground.host()
        fetch(again)
        assert (again.status.files, again.status.octets) == (0, 0)
    assert max(ground.valkey.strlen(name) for name in ground.chunk_names()) <= 1 << 20


def test_hosts_that_fetch_the_same_share_its_pieces(ground: Ground) -> None:
    """Read once and written once for all of them."""
    ground.put(41, size=LARGE)
    ground.publish()
    names = [f"host-{number}" for number in range(4)]
    hosts = [ground.host(name) for name in names]
    with ground.giving():
        threads = [threading.Thread(target=fetch, args=(host,)) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all(ground.files(name) == ground.contents for name in names)
    assert ground.octets_given == LARGE


@pytest.mark.parametrize("count", [1, 6])
def test_what_lies_in_valkey_is_bounded(ground: Ground, count: int) -> None:
    """However many hosts ask for however much: those wait for whom there is no room."""
    ground.bytes_max = ASKED_BYTES_MAX
    for code in range(count):
        ground.put(1, scope=f"m1/{code:05}", size=5 * CHUNK_BYTES)
    ground.publish()
    names = [f"host-{number}" for number in range(count)]
    hosts = [ground.host(name) for name in names]
    # Each begins with another file.
    for number, host in enumerate(hosts):
        _look(host, number)
    with ground.giving():
        threads = [threading.Thread(target=fetch, args=(host,)) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all(ground.files(name) == ground.contents for name in names)
    # Beside each piece lies its hash.
    assert 0 < ground.largest <= ASKED_BYTES_MAX + 64 * 32


def _look(host: CRLFetcher, first: int) -> None:
    host._hold()
    host._look()
    items = list(host._queue.items())
    host._queue = dict(items[first:] + items[:first])


def test_a_wrong_file_of_the_right_size_is_replaced(ground: Ground) -> None:
    """What another installation left, say: a file is here only by its hash."""
    entry = ground.put(41)
    ground.publish()
    path = ground.folder_of("tokyo-1") / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(entry.size))
    with ground.giving():
        fetch(ground.host())
    assert ground.files() == ground.contents


def test_a_file_that_was_taken_away_is_fetched_again(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an operator's mistake, say; though nothing is published meanwhile."""
    entry = ground.put(41)
    ground.put(1, scope="m1/00001")
    ground.publish()
    host = ground.host()
    with ground.giving():
        fetch(host)
        (ground.folder_of("tokyo-1") / entry.file).unlink()
        _step(host)
        assert host.status.awaited == 0
        monkeypatch.setattr(fetch_crls, "_TIDY_S", 0.0)
        _step(host)
        fetch(host)
    assert ground.files() == ground.contents


def test_one_process_fetches_into_a_folder(ground: Ground) -> None:
    """A second agent, or a second host with the folder shared between them."""
    ground.put(41)
    ground.publish()
    with ground.giving():
        first, second = ground.host(), ground.host()
        fetch(first)
        with pytest.raises(FolderBusy, match="another process"):
            second.step()
        first.close()
        fetch(second)


def test_only_what_the_catalogue_names_is_given(ground: Ground) -> None:
    """By hash: no request leads to another file, and what has not its form is passed over."""
    entry = ground.put(41)
    ground.publish()
    secret = b"secret" * 100
    (ground.source / "secret").write_bytes(secret)
    hidden = ground.put(42)
    ground.drop(hidden)
    wanted = [
        ChunkName(hashlib.sha256(secret).hexdigest(), 0),
        ChunkName(hidden.sha256, 0),
        ChunkName(entry.sha256, 7),
        ChunkName(entry.sha256, 0),
    ]
    requests = [
        b"{",
        b"x" * 20_000,
        json.dumps(["h", [["../secret", 0]]]).encode(),
        json.dumps(["h", [[entry.sha256, -1]]]).encode(),
        json.dumps(["h", [[entry.sha256, 0]] * 65]).encode(),
        json.dumps(["", [[entry.sha256, 0]]]).encode(),
        ChunkRequest("h", tuple(wanted)).encode(),
    ]
    for request in requests:
        ground.valkey.rpush(ground.keys.crl_requests(), request)
    with ground.giving():
        _until(lambda: ground.valkey.exists(ground.keys.crl_chunk(entry.sha256, 0)))
        _until(lambda: not ground.valkey.exists(ground.keys.crl_requests()))
    assert ground.chunk_names() == [ground.keys.crl_chunk(entry.sha256, 0).encode()]


def _until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


# --- the order, and what goes ---------------------------------------------------------------------------


def test_no_delta_comes_before_its_base(ground: Ground) -> None:
    """Even where the base cannot be had just now."""
    base = ground.put(40, size=2 * CHUNK_BYTES)
    delta = ground.put(41, 40)
    other = ground.put(1, scope="m1/00001")
    ground.publish()
    (ground.source / base.file).rename(ground.source / "aside")
    host = ground.host()
    with ground.giving():
        _until(lambda: _step(host) or other.file in ground.files())
        for _ in range(5):
            _step(host)
            time.sleep(0.06)
        assert ground.files() == {other.file: ground.contents[other.file]}
        (ground.source / "aside").rename(ground.source / base.file)
        fetch(host)
    assert set(ground.files()) == {base.file, delta.file, other.file}


def test_old_files_go_when_nobody_names_them_any_more(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base stays as long as a delta refers to it, and everything a while longer than it is named."""
    old = ground.put(39)
    base = ground.put(40)
    delta = ground.put(41, 40)
    ground.put(60)
    ground.publish()
    host = ground.host()
    with ground.giving():
        fetch(host)
        ground.drop(old)
        ground.publish()
        fetch(host)
        assert old.file in ground.files()
        monkeypatch.setattr(fetch_crls, "GRACE_S", 0.0)
        monkeypatch.setattr(fetch_crls, "_TIDY_S", 0.0)
        _step(host)
        assert ground.files() == ground.contents
        assert {base.file, delta.file} <= set(ground.files())
        ground.drop(delta)
        ground.drop(base)
        ground.publish()
        fetch(host)
        assert ground.files() == ground.contents


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", ["publisher", "host", "both"])
def test_a_transfer_that_is_broken_off_is_gone_on_with(ground: Ground, killed: str) -> None:
    """Nothing has the file's name until all of it is here; what came is not fetched again."""
    entry = ground.put(41, size=LARGE)
    ground.publish()
    host = ground.host()
    with ground.giving(answers_max=None if killed == "host" else 1):
        for _ in range(3):
            _step(host)
            if ground.parts() not in ([], [0]) and killed != "publisher":
                break
    assert ground.files() == {}
    (have,) = ground.parts()
    assert 0 < have < LARGE
    if killed != "publisher":
        # As a kill leaves it: with the end of the last piece missing.
        host.close()
        (part,) = (ground.folder_of("tokyo-1") / ".parts").iterdir()
        with part.open("r+b") as file:
            file.truncate(have - 100)
        host = ground.host()
    with ground.giving():
        fetch(host)
    assert ground.files() == {entry.file: ground.contents[entry.file]}
    assert ground.parts() == []
    lost = CHUNK_BYTES if killed != "publisher" else 0
    already = 0 if killed == "publisher" else have
    assert host.status.octets + already <= LARGE + lost


def test_the_beginning_of_another_file_is_not_gone_on_from(ground: Ground) -> None:
    """What lies where a transfer is gathered may be anything: the hash over the whole decides."""
    entry = ground.put(41, size=LARGE)
    ground.publish()
    parts = ground.folder_of("tokyo-1") / ".parts"
    parts.mkdir(parents=True)
    (parts / entry.sha256).write_bytes(bytes(3 * CHUNK_BYTES))
    host = ground.host()
    with ground.giving():
        fetch(host)
    assert ground.files() == ground.contents


def test_valkey_flushed_in_mid_transfer(ground: Ground) -> None:
    """Again and again: the feed puts catalogue and stream back, and the transfer goes on."""
    ground.put(40, size=3000)
    ground.put(41, size=LARGE)
    ground.put(42, 40)
    ground.publish()
    host = ground.host()
    with ground.giving():
        for _ in range(4):
            _step(host)
            ground.valkey.flushall()
            _step(host)
            assert nothing_wrong(ground)
            ground.beat()
        fetch(host)
    assert ground.files() == ground.contents


def test_a_torn_piece_is_asked_for_again(ground: Ground) -> None:
    """Cut short, or with other octets in it: it is no piece, and the publisher writes it anew."""
    entry = ground.put(41, size=3 * CHUNK_BYTES)
    ground.publish()
    key = ground.keys.crl_chunk(entry.sha256, 1)
    whole = seal_chunk(ground.contents[entry.file][CHUNK_BYTES : 2 * CHUNK_BYTES])
    for torn in (whole[: len(whole) // 2], whole[:-1] + b"x", b""):
        ground.valkey.set(key, torn)
    ground.valkey.set(key, whole[:500_000])
    host = ground.host()
    with ground.giving():
        fetch(host)
    assert ground.files() == ground.contents
    assert ground.valkey.get(key) == whole


def test_a_piece_beyond_its_length_is_not_brought(ground: Ground) -> None:
    """A value may have 512 MB, and 64 are asked for at once: no more of one is read than it may have."""
    entry = ground.put(41, size=CHUNK_BYTES + 500)
    ground.publish()
    for number in (0, 1):
        ground.valkey.setrange(ground.keys.crl_chunk(entry.sha256, number), 8 << 20, b"x")
    host = ground.host()
    sent = ground.valkey.info("stats")["total_net_output_bytes"]
    host._hold()
    host._look()
    (first, second) = host._window(0.0)
    assert host._get(ground.keys, {first[1]: CHUNK_BYTES, second[1]: 500}) == {}
    assert ground.valkey.info("stats")["total_net_output_bytes"] - sent < CHUNK_BYTES + 50_000
    with ground.giving():
        fetch(host)
    assert ground.files() == ground.contents


def test_a_key_of_another_type_in_a_pieces_place_is_none(ground: Ground) -> None:
    """The publisher puts the piece there all the same."""
    entry = ground.put(41)
    ground.publish()
    ground.valkey.rpush(ground.keys.crl_chunk(entry.sha256, 0), b"x")
    with ground.giving():
        fetch(ground.host())
    assert ground.files() == ground.contents


def test_a_forged_piece_never_becomes_a_file(ground: Ground) -> None:
    """Whoever can write to Valkey can stop a transfer, not make a host have another file."""
    entry = ground.put(41, size=3 * CHUNK_BYTES)
    ground.publish()
    key = ground.keys.crl_chunk(entry.sha256, 1)
    host = ground.host()
    with ground.giving():
        for _ in range(4):
            ground.valkey.set(key, seal_chunk(bytes(CHUNK_BYTES)))
            _step(host)
            time.sleep(0.06)
            assert ground.files() == {}
        assert "not what the catalogue names" in host.trouble
        ground.valkey.delete(key)
        fetch(host)
        assert host.trouble == ""
    assert ground.files() == ground.contents


def test_a_full_disk_leaves_nothing_behind_and_is_tried_again(ground: Ground) -> None:
    """What is not whole gives its room back; what is whole is served on, and small files still come."""
    small = ground.put(40, size=2000)
    ground.publish()
    host = ground.host()
    with ground.giving():
        fetch(host)
        ground.put(41, size=LARGE)
        ground.publish()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # As good as a full disk: no file can grow beyond that.
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 * CHUNK_BYTES, before[1]))
        try:
            for _ in range(3):
                with pytest.raises(OSError, match=r"File too large|No space"):
                    _steps(host, 20)
                assert ground.parts() == []
                assert ground.files() == {small.file: ground.contents[small.file]}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        until = time.monotonic() + 20
        while host.status.awaited:
            try:
                host.step()
            except OSError:
                time.sleep(0.02)
            assert time.monotonic() < until
    assert ground.files() == ground.contents


def test_a_name_outside_of_the_folder_is_refused(ground: Ground) -> None:
    """The catalogue is signed; a host writes below its folder all the same."""
    for file in ("../41.crl", "/tmp/41.crl", "sign/.hidden/41.crl", "sign/../../41.crl"):
        host = ground.host()
        with pytest.raises(FeedError, match="names a file"):
            host._path(replace(_entry(), file=file))


def _entry() -> CatalogueEntry:
    return CatalogueEntry(1, "all", COMPLETE, "f", "n", True, 1, None, 1, 1, 1, 1, 1, "00" * 32)


def test_a_catalogue_older_than_the_one_gone_by_is_passed_over(ground: Ground) -> None:
    """A beat of before, put back by whoever can write to Valkey, removes no file."""
    ground.put(41)
    ground.publish()
    stream = ground.valkey.xrange(ground.keys.stream)
    ground.put(42)
    ground.publish()
    host = ground.host()
    with ground.giving():
        fetch(host)
        generation = host.status.generation
        ground.valkey.delete(ground.keys.stream)
        for entry_id, fields in stream:
            ground.valkey.xadd(ground.keys.stream, fields, id=entry_id)
        _step(host)
        assert host.status.generation == generation
        assert ground.files() == ground.contents


def test_what_is_in_the_way_of_one_file_keeps_no_other_away(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder where a file belongs, a file where a folder belongs: the others come, and it is said."""
    monkeypatch.setattr(fetch_crls, "_WRONG_AGAIN_S", 60.0)
    wrong = [ground.put(41, scope="a1/00001"), ground.put(41, scope="z1/00001", size=CHUNK_BYTES + 5)]
    right = ground.put(1, scope="m1/00001")
    ground.publish()
    folder = ground.folder_of("tokyo-1")
    (folder / wrong[0].file / "x").mkdir(parents=True)
    (folder / "sign/g1/z1").write_bytes(b"")
    host = ground.host()
    with ground.giving() as publisher:
        _until(lambda: _step(host) or (folder / right.file).is_file())
        for _ in range(20):
            _step(host)
        assert host.status.awaited == 2
        assert "in the way" in host.trouble
        # And it is not fetched over and over.
        assert publisher.octets == sum(map(len, ground.contents.values()))
        (folder / wrong[0].file / "x").rmdir()
        (folder / wrong[0].file).rmdir()
        (folder / "sign/g1/z1").unlink()
        host._again_s.clear()
        fetch(host)
    assert ground.files() == ground.contents


# --- hosts that ask for too much ------------------------------------------------------------------------


def _giver(ground: Ground) -> CRLChunks:
    return CRLChunks(ground.store, ground.valkey, "t", ground.source, bytes_max=ground.bytes_max)


def _ask_as(ground: Ground, hosts: list[str], *names: ChunkName) -> None:
    pipeline = ground.valkey.pipeline(transaction=False)
    for host in hosts:
        pipeline.rpush(ground.keys.crl_requests(), ChunkRequest(host, names).encode())
    pipeline.execute()


def test_requests_that_wait_are_bounded(ground: Ground) -> None:
    """However many names somebody asks by while there is no room."""
    ground.bytes_max = CHUNK_BYTES
    entries = [ground.put(1, scope=f"m1/{code:05}", size=CHUNK_BYTES) for code in range(2)]
    ground.publish()
    giver = _giver(ground)
    _ask_as(ground, ["first"], ChunkName(entries[0].sha256, 0))
    assert giver.step()
    _ask_as(ground, [f"flood-{number}" for number in range(400)], ChunkName(entries[1].sha256, 0))
    for _ in range(50):
        _ask_as(ground, [f"more-{number}" for number in range(20)], ChunkName(entries[1].sha256, 0))
        giver.step(0.01)
    assert 0 < len(giver._waiting) <= 256


def test_who_waits_for_a_piece_is_bounded(ground: Ground) -> None:
    """However many names somebody asks by for one that lies there."""
    entry = ground.put(1)
    ground.publish()
    giver = _giver(ground)
    for lot in range(8):
        _ask_as(ground, [f"flood-{lot}-{number}" for number in range(200)], ChunkName(entry.sha256, 0))
        while giver.step(0.01):
            pass
    assert 0 < len(giver._hosts_of(ChunkName(entry.sha256, 0))) <= 1024


@pytest.mark.parametrize("request_", [b"{", ChunkRequest("flood", ()).encode()])
def test_requests_that_come_faster_than_they_are_read_keep_nobody_waiting(
    ground: Ground, request_: bytes
) -> None:
    """Taken in lots, so that whoever was before them has an answer between."""
    entry = ground.put(1)
    ground.publish()
    giver = _giver(ground)
    _ask_as(ground, ["first"], ChunkName(entry.sha256, 0))
    ground.valkey.rpush(ground.keys.crl_requests(), *[request_] * 5000)
    giver.step()
    assert ground.valkey.exists(ground.keys.crl_chunk(entry.sha256, 0))
    assert ground.valkey.llen(ground.keys.crl_requests()) > 0


def test_requests_that_are_too_long_are_not_brought(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    """Up to 512 MB each, and hundreds at once: they go unread, and who is behind them has an answer."""
    entry = ground.put(1)
    ground.publish()
    giver = _giver(ground)
    giver.step(0.01)
    for _ in range(20):
        ground.valkey.rpush(ground.keys.crl_requests(), bytes(1 << 20))
    _ask_as(ground, ["first"], ChunkName(entry.sha256, 0))
    sent = ground.valkey.info("stats")["total_net_output_bytes"]
    assert giver.step()
    assert ground.valkey.info("stats")["total_net_output_bytes"] - sent < 100_000
    assert ground.valkey.exists(ground.keys.crl_chunk(entry.sha256, 0))
    assert "20 requests for CRL files of over 16384 bytes" in caplog.text


@pytest.mark.parametrize("named", ["acks", "catalogue_pages", "crl_requests"])
def test_a_key_of_another_type_ends_neither_beats_nor_transfers(ground: Ground, named: str) -> None:
    """Whoever may write one key of all hosts' can make that of it."""
    ground.put(41)
    ground.publish()
    name = getattr(ground.keys, named)()
    ground.valkey.delete(name)
    ground.valkey.set(name, b"x")
    ground.beat()
    with ground.giving():
        fetch(ground.host())
    assert ground.files() == ground.contents


def test_a_folder_that_was_taken_away_is_filled_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, by an operator who wants to begin anew and does not end the agent."""
    monkeypatch.setattr(fetch_crls, "_TIDY_S", 0.0)
    ground.put(41)
    ground.publish()
    host = ground.host()
    with ground.giving():
        fetch(host)
        shutil.rmtree(ground.folder_of("tokyo-1"))
        _step(host)
        fetch(host)
    assert ground.files() == ground.contents
