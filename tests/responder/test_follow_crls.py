"""The catalogue beside the follower: shown whole or not at all, and never in the way of answers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from catalogue_cases import catalogue_line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_follow import Scene, wait_until

from certstatus.crl_catalogue import CatalogueEntry, CatalogueScope, scopes_of_entries
from responder import follow_crls
from responder.catalogue_pages import CataloguePages
from responder.follow import Follower

SCOPES = 300
NOW_S = 1_900_000_000


def line(code: int, number: int = 1, *, current: bool = True) -> CatalogueEntry:
    """A complete CRL of one of many partitions."""
    return catalogue_line(
        f"sign/g1/m1/{code:05}",
        number,
        NOW_S - 100 + number,
        current=current,
        seq=0,
        next_update_s=NOW_S + 86_400,
        next_issue_s=NOW_S + 43_200,
        size=number,
        sha256=hashlib.sha256(b"%d/%d" % (code, number)).hexdigest(),
    )


class CRLScene(Scene):
    """With CRLs of 300 partitions, whose files are on the host."""

    def __init__(self, client: redis.Redis, url: str, key: Ed25519PrivateKey, folder: Path) -> None:
        super().__init__(client, url, key, folder)
        self.lines = {code: [line(code)] for code in range(SCOPES)}
        self.changed = dict.fromkeys(range(SCOPES), 1)
        self.generation = 0
        for lines in self.lines.values():
            self.put(*lines)

    def put(self, *lines: CatalogueEntry) -> None:
        for entry in lines:
            path = self.folder / "crl" / entry.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(entry.size))

    def publish(self) -> list[str]:
        """Publish the catalogue with the next beat's root; returns its pages."""
        self.generation += 1
        scopes: list[CatalogueScope] = []
        for code, lines in self.lines.items():
            scopes += scopes_of_entries(lines, {}, self.changed[code])
        return self.writer.crl_scopes(scopes, self.generation)

    def renew(self, code: int, number: int, *, put: bool = True) -> None:
        """A new complete CRL of one partition, the one before still in force."""
        older = replace(self.lines[code][-1], current=False)
        self.lines[code] = [older, line(code, number)]
        self.changed[code] = self.generation + 1
        if put:
            self.put(self.lines[code][-1])

    def served(self, follower: Follower, code: int) -> int | None:
        """The number of what is served under a partition's name."""
        found = follower.standing.catalogue.find(f"sign/g1/m1/{code:05}/complete.crl")
        return None if found is None else found.number

    def is_at(self, follower: Follower) -> bool:
        return follower.standing.listed.generation == self.generation


@pytest.fixture
def scene(valkey: redis.Redis, valkey_url: str, publisher_key: Ed25519PrivateKey, state: Path) -> CRLScene:
    """A publisher with CRLs in its catalogue."""
    made = CRLScene(valkey, valkey_url, publisher_key, state / "host")
    made.publish()
    return made


def cost(client: Any, work: Callable[[], object]) -> int:
    """How many octets Valkey sends for this *work*."""

    def sent() -> int:
        return int(client.info("stats")["total_net_output_bytes"])

    # The question itself is answered, too.
    asked = -sent() + sent()
    before = sent()
    work()
    return sent() - before - asked


def test_of_300_scopes_one_that_changed_costs_a_page(scene: CRLScene) -> None:
    """What a worker fetches at a generation: the root and one page, some tenth of the whole."""
    reader, read = CataloguePages(), []

    def fetch() -> None:
        read.append(reader.read(scene.client, scene.writer.keys, scene.writer.pointers["crls"]))

    whole = cost(scene.client, fetch)
    scene.renew(7, 2)
    pages = scene.publish()
    changed = cost(scene.client, fetch)
    again = cost(scene.client, fetch)
    first, second, third = read
    assert len(first.scopes) == SCOPES
    assert [scope.scope for scope in second.scopes if scope.changed == 2] == ["m1/00007"]
    assert third == second
    # Objects of other pages are those of before, so whoever made something of them has it still.
    same = [scope for scope in second.scopes if any(scope is old for old in first.scopes)]
    assert SCOPES - 64 <= len(same) < SCOPES
    root = 67 * len(pages)
    assert whole > SCOPES * 300
    assert root < again < root + 500
    assert changed - again < 1.1 * whole * (SCOPES - len(same)) / SCOPES


@pytest.mark.parametrize("damage", ["missing", "altered", "another", "too long", "no root"])
def test_a_catalogue_that_is_not_whole_is_not_shown(scene: CRLScene, damage: str) -> None:
    """The one before it goes on, answers about certificates do not notice, and it comes as soon as it can."""
    with scene.fresh_follower() as follower:
        wait_until(lambda: scene.is_at(follower))
        assert (scene.served(follower, 7), scene.served(follower, 8)) == (1, 1)
        before = set(scene.publish())
        scene.renew(7, 2)
        scene.renew(200, 2)
        pages = scene.publish()
        hash_key = scene.writer.keys.catalogue_pages()
        name = next(page for page in pages if page not in before)
        root_key = scene.writer.keys.document("crls", scene.generation)
        page, root = scene.client.hget(hash_key, name), scene.client.get(root_key)
        match damage:
            case "missing":
                scene.client.hdel(hash_key, name)
            case "altered":
                scene.client.hset(hash_key, name, page[:-1])
            case "too long":
                scene.client.hset(hash_key, name, bytes(17 << 20))
            case "another":
                scene.client.hset(hash_key, name, scene.client.hget(hash_key, pages[-1]))
            case _:
                scene.client.delete(root_key)
        reloads = follower.reloads
        scene.beat()
        wait_until(lambda: follower.crls.trouble)
        assert (": 17825792 bytes" in follower.crls.trouble) == (damage == "too long")
        for _ in range(3):
            scene.writer.issue(scene.writer.seq + 50)
            scene.beat()
            wait_until(lambda: follower.standing.seq == scene.writer.seq)
            assert scene.is_fresh(follower)
        # Neither of the two, though the page of one of them may have come.
        assert (scene.served(follower, 7), scene.served(follower, 200)) == (1, 1)
        assert follower.reloads == reloads
        scene.client.hset(hash_key, name, page)
        scene.client.set(root_key, root)
        wait_until(lambda: scene.is_at(follower))
        assert (scene.served(follower, 7), scene.served(follower, 200)) == (2, 2)
        wait_until(lambda: not follower.crls.trouble)


def test_before_the_first_catalogue_is_whole_none_is_known(scene: CRLScene) -> None:
    """A worker answers OCSP meanwhile, and says of no CRL that there is none."""
    scene.client.delete(scene.writer.keys.catalogue_pages())
    with scene.fresh_follower() as follower:
        wait_until(lambda: follower.crls.trouble)
        assert not follower.standing.catalogue.is_known
        scene.publish()
        scene.beat()
        wait_until(lambda: follower.standing.catalogue.is_known)
        assert scene.served(follower, 7) == 1


def test_without_any_crl_that_is_known(scene: CRLScene) -> None:
    """An installation that publishes none."""
    del scene.writer.pointers["crls"]
    with scene.fresh_follower() as follower:
        wait_until(lambda: follower.standing.catalogue.is_known)
        assert follower.standing.catalogue.entries == ()


def test_a_catalogue_of_an_earlier_epoch_is_not_gone_on_with(scene: CRLScene) -> None:
    """After a restore it may name what was never published: until the new one is here none is known."""
    with scene.fresh_follower() as follower:
        wait_until(lambda: scene.is_at(follower))
        epoch = (scene.clock.ms + 1).to_bytes(8, "big") + bytes(8)
        scene.writer = type(scene.writer)(scene.client, scene.writer.publisher_key, scene.clock.ms, epoch)
        scene.writer.issuers(scene.ca.issuer)
        # Pages that stay are held by their hash, whatever the epoch.
        scene.changed = dict.fromkeys(range(SCOPES), 9)
        pages = scene.publish()
        scene.client.hdel(scene.writer.keys.catalogue_pages(), pages[0])
        scene.beat()
        wait_until(lambda: follower.standing.epoch == epoch)
        assert not follower.standing.catalogue.is_known
        wait_until(lambda: follower.crls.trouble)
        assert not follower.standing.catalogue.is_known
        scene.publish()
        scene.beat()
        wait_until(lambda: follower.standing.catalogue.is_known)


def test_a_new_crl_is_shown_when_its_file_is_here(scene: CRLScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name leads to the one before until then, and the list says no more than can be had."""
    monkeypatch.setattr(follow_crls, "LOOK_S", 0.02)
    with scene.fresh_follower() as follower:
        wait_until(lambda: scene.is_at(follower))
        scene.renew(7, 2, put=False)
        scene.renew(8, 2)
        scene.publish()
        scene.beat()
        wait_until(lambda: scene.is_at(follower))
        assert (scene.served(follower, 7), scene.served(follower, 8)) == (1, 2)
        catalogue, listed = follower.standing.catalogue, follower.standing.listed
        assert catalogue.awaited_count == 1
        assert catalogue.awaited(f"sign/g1/m1/{7:05}/2.crl") is not None
        assert b"/1.crl" in listed.by_path["sign/g1/m1/00007"].json
        assert listed.next_since == scene.changed[7] - 1
        # Nothing moved: nobody is given another object, and lists that were joined stay.
        assert follower.standing.listed is listed
        scene.put(line(7, 2))
        wait_until(lambda: scene.served(follower, 7) == 2)
        assert follower.standing.catalogue.awaited_count == 0
        assert follower.standing.listed.next_since == scene.generation
        assert scene.is_fresh(follower)


def test_a_folder_that_hangs_holds_up_no_answer(scene: CRLScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system without its server: beats are acknowledged, and the end is not waited for."""
    with scene.fresh_follower() as follower:
        wait_until(lambda: scene.is_at(follower))
        hanging, go_on = _hang(follower, monkeypatch)
        try:
            scene.renew(7, 2)
            scene.publish()
            scene.beat()
            wait_until(hanging)
            for _ in range(3):
                scene.writer.issue(scene.writer.seq + 50)
                scene.beat()
                wait_until(lambda: follower.standing.seq == scene.writer.seq)
                assert scene.is_fresh(follower)
            assert scene.served(follower, 7) == 1
        finally:
            go_on()


def _hang(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Have looking for files wait; returns what says that somebody does, and what lets them go."""
    entered, released = threading.Event(), threading.Event()

    def wait(_entry: CatalogueEntry) -> bool:
        entered.set()
        return released.wait(30)

    monkeypatch.setattr(follower.crls._held, "_has_file", wait)
    return entered.is_set, released.set
