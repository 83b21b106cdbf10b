"""The catalogue as it is published: what is written anew, and since when each scope is what it is."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from catalogue_cases import catalogue_line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from publisher_cases import START_MS, Clock

from certstatus import documents
from certstatus.config import Config
from certstatus.crl_catalogue import CatalogueEntry, CatalogueScope
from certstatus.crl_pack import ArchiveMark
from certstatus.errors import FencedOff
from certstatus.feed_keys import FeedKeys
from issuance.crl_register import Fence
from issuance.store import Store
from publisher import feed
from publisher.crl_catalogue import CataloguePublisher, PublishedCatalogue, read_published
from publisher.feed import OLD_DOCUMENT_S, Feed

SCOPES = 300


class Line:
    """A catalogue of 300 scopes, and who publishes it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.publisher = CataloguePublisher(store)
        self.numbers = dict.fromkeys(range(SCOPES), 1)
        self.titles = {"sign/g1/m1/00007": "七市"}
        self.archive: ArchiveMark | None = None
        self.fence: Fence = store.acquire_publisher("crl", 3_600_000, clock.now_ms, "test")

    def entries(self) -> list[CatalogueEntry]:
        return [_entry(code, number) for code, number in self.numbers.items()]

    def publish(self) -> bool:
        self.clock.pass_s(1)
        return self.publisher.publish(
            self.entries(), self.archive, self.fence, self.clock.now_ms, self.titles
        )

    def revise(self, *codes: int) -> bool:
        """Publish anew what stands of some scopes alone, by a publisher that knows nothing yet."""
        self.clock.pass_s(1)
        return CataloguePublisher(self.store).revise(
            [_entry(code, self.numbers[code]) for code in codes],
            self.archive,
            self.fence,
            self.clock.now_ms,
            self.titles,
        )

    def published(self) -> PublishedCatalogue:
        found = self.store.publication("crls")
        assert found is not None
        return read_published(self.store, found)

    def scopes(self) -> dict[str, CatalogueScope]:
        return {scope.scope: scope for scope in self.published().scopes}


def _entry(code: int, number: int) -> CatalogueEntry:
    digest = f"{code * 1000 + number:064x}"
    path = f"sign/g1/m1/{code:05}"
    return catalogue_line(path, number, START_MS // 1000, size=1000 + number, sha256=digest)


@pytest.fixture
def line(store: Store, clock: Clock) -> Line:
    return Line(store, clock)


def test_of_many_scopes_the_page_of_the_one_that_changed_is_new(line: Line) -> None:
    """In the store of record too; what no root names is kept there no longer."""
    assert line.publish()
    before = line.published()
    assert len(before.root.pages) > 4
    line.numbers[7] = 2
    assert line.publish()
    after = line.published()
    new = set(after.root.pages) - set(before.root.pages)
    assert len(new) == 1
    (gone,) = set(before.root.pages) - set(after.root.pages)
    assert line.store.catalogue_pages([gone]) == {}
    assert after.root.generation > before.root.generation


def test_a_scope_says_since_when_it_is_what_it_is(line: Line) -> None:
    """Its lines or its title; whoever publishes next goes on from what is published."""
    line.publish()
    first = line.published().root.generation
    line.numbers[7] = 2
    line.publish()
    second = line.published().root.generation
    # Another process.
    line.publisher = CataloguePublisher(line.store)
    line.titles = {"sign/g1/m1/00007": "七市", "sign/g1/m1/00008": "八市"}
    line.publish()
    third = line.published().root.generation
    scopes = line.scopes()
    assert first < second < third
    assert [scopes[f"m1/{code:05}"].changed for code in (6, 7, 8)] == [first, second, third]
    assert scopes["m1/00008"].title == "八市"
    assert line.scopes()["m1/00007"].title == "七市"
    # A restore leaves no publication behind: then all is as of now.
    with line.store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM publication")
    assert line.publish()
    assert {scope.changed for scope in line.scopes().values()} == {line.published().root.generation}


def test_what_has_not_changed_is_not_published_again(line: Line) -> None:
    """By whatever process; a scope that has gone is a change, and so is the archive's list."""
    assert line.publish()
    generation = line.published().root.generation
    assert not line.publish()
    line.publisher = CataloguePublisher(line.store)
    assert not line.publish()
    assert line.published().root.generation == generation
    del line.numbers[5]
    assert line.publish()
    assert "m1/00005" not in line.scopes()
    line.archive = ArchiveMark("ab" * 32, ())
    assert line.publish()
    assert line.publisher.archive() == line.published().root.archive == line.archive
    assert not line.publish()


def test_a_catalogue_of_another_version_is_replaced(line: Line) -> None:
    """Its readers could not read it, and nothing of it is gone on from."""
    body = b'{"format":2,"generation":5,"crls":[]}'
    line.store.publish("crls", 5, bytes(32), body)
    assert line.publish()
    assert len(line.scopes()) == SCOPES


def test_the_first_times_of_crls_are_noted_with_the_pages(line: Line) -> None:
    """Pages, root and times in one transaction: a fence that is old moves none of them."""
    line.publish()
    before = line.published()
    line.store.acquire_publisher("crl", 1000, line.clock.now_ms, "other", take_over=True)
    line.numbers[7] = 2
    with pytest.raises(FencedOff):
        line.publish()
    assert line.published() == before


def test_a_revised_catalogue_is_the_one_that_would_be_published(line: Line) -> None:
    """Page by page, with the same generations, for one scope and for many; and whoever publishes goes on
    from it."""
    twin = CataloguePublisher(line.store)
    line.publish()
    for codes in [(7,), (0, 299), range(SCOPES)]:
        before = line.published()
        line.numbers |= {code: line.numbers[code] + 1 for code in codes}
        assert line.revise(*codes)
        revised = line.published()
        moved = {f"m1/{code:05}" for code in codes}
        assert revised.root.generation > before.root.generation
        assert {scope.scope for scope in revised.scopes if scope.changed == revised.root.generation} == moved
        # What is published of all of them says the same, so that there is nothing to publish.
        assert not line.publish()
        assert not twin.publish(line.entries(), None, line.fence, line.clock.now_ms, line.titles)
        assert line.published() == revised
    assert line.scopes()["m1/00007"].title == "七市"


def test_what_is_as_it_was_is_not_revised(line: Line) -> None:
    """Neither lines nor archive are others: the pointer stays where it is."""
    line.publish()
    before = line.published()
    assert line.revise(7)
    assert line.revise()
    assert line.published() == before
    line.archive = ArchiveMark("00" * 32, ())
    assert line.revise()
    assert line.published().root.archive == line.archive
    assert [scope.changed for scope in line.published().scopes] == [before.root.generation] * SCOPES


def test_only_a_catalogue_that_has_the_scope_is_revised(line: Line) -> None:
    """No catalogue, a scope that is in none, pages that are gone: nothing is published, and it says so."""
    assert not line.revise(7)
    assert line.store.publication("crls") is None
    line.publish()
    before = line.published()
    # Its path begins with another's.
    new = _entry(7, 1)
    longer = CatalogueEntry(**{**asdict(new), "scope": "m1/00007/x", "file": "sign/g1/m1/00007/x/1.crl"})
    line.clock.pass_s(1)
    publisher = CataloguePublisher(line.store)
    assert not publisher.revise([new, longer], None, line.fence, line.clock.now_ms)
    assert line.published() == before
    with line.store.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM publication WHERE kind LIKE 'crls/%'"))
    assert not line.revise(7)


# --- in Valkey ---------------------------------------------------------------------------------------


class Fed:
    """A feed beside it."""

    def __init__(
        self, line: Line, config: Config, valkey: redis.Redis, publisher_key: Ed25519PrivateKey
    ) -> None:
        self.line = line
        self.valkey = valkey
        self.feed = Feed(
            line.store,
            valkey,
            publisher_key,
            config,
            now_ms=line.clock.now_ms,
            monotonic_s=line.clock.monotonic_s,
        )
        self.keys = FeedKeys("t", line.store.state().epoch)

    def step(self) -> None:
        self.line.clock.pass_s(1)
        assert self.feed.step()

    def pages(self) -> set[str]:
        found = self.valkey.hkeys(self.keys.catalogue_pages())
        return {page.decode() for page in found}  # type: ignore[union-attr]

    def named(self) -> set[str]:
        return set(self.line.published().root.pages)


@pytest.fixture
def fed(line: Line, config: Config, valkey: redis.Redis, publisher_key: Ed25519PrivateKey) -> Fed:
    line.publish()
    made = Fed(line, config, valkey, publisher_key)
    made.step()
    return made


def test_pages_lie_in_valkey_with_the_root_that_names_them(fed: Fed) -> None:
    """A changed scope writes one page; the page before it stays for those who read by the older root."""
    assert fed.pages() == (before := fed.named())
    fed.line.numbers[7] = 2
    fed.line.publish()
    fed.step()
    assert fed.pages() == before | fed.named()
    fed.line.clock.pass_s(OLD_DOCUMENT_S)
    fed.step()
    assert fed.pages() == fed.named()
    assert len(fed.named() - before) == 1


def test_pages_that_were_lost_are_written_again(fed: Fed) -> None:
    """One of them, all of them, or everything with the stream; by the next beat."""
    page = min(fed.named())
    client: Any = fed.valkey
    for lose in (
        lambda: client.hdel(fed.keys.catalogue_pages(), page),
        lambda: client.delete(fed.keys.catalogue_pages()),
        client.flushall,
    ):
        lose()
        assert not fed.named() <= fed.pages()
        fed.step()
        assert fed.pages() == fed.named()
    document = fed.valkey.get(fed.keys.document("crls", fed.line.published().root.generation))
    assert isinstance(document, bytes)


def test_pages_that_an_earlier_feed_left_behind_go(fed: Fed) -> None:
    """A feed that was killed tells nobody what is old."""
    fed.valkey.hset(fed.keys.catalogue_pages(), "ab" * 32, b"old")
    fed.step()
    assert "ab" * 32 in fed.pages()
    fed.line.clock.pass_s(OLD_DOCUMENT_S)
    fed.step()
    assert fed.pages() == fed.named()


@pytest.mark.parametrize("field", [b"\xff\xfe", b"", b"AB" * 32, b"x" * 2_000_000])
def test_a_field_that_names_no_page_is_taken_away(
    fed: Fed, caplog: pytest.LogCaptureFixture, field: bytes
) -> None:
    """Whatever its octets are: it is said, the pages stay, and beats go on."""
    client: Any = fed.valkey
    client.hset(fed.keys.catalogue_pages(), field, b"foreign")
    sent = client.info("stats")["total_net_output_bytes"]
    fed.step()
    assert client.info("stats")["total_net_output_bytes"] - sent < 100_000
    assert fed.pages() == fed.named()
    assert f"{fed.keys.catalogue_pages()}: 1 fields that name no page" in caplog.text


def test_pages_beyond_number_are_not_read(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them go, and those that are named are written again by the same beat."""
    monkeypatch.setattr(feed, "PAGES_MAX", 50)
    client: Any = fed.valkey
    client.hset(fed.keys.catalogue_pages(), mapping={f"{number:064x}": b"x" for number in range(60)})
    fed.step()
    assert fed.pages() == fed.named()


def test_a_root_without_pages_is_a_document_like_others(fed: Fed) -> None:
    """What is published under that name and is no catalogue of this version stops no beat."""
    body = documents.encode_document({"generation": 2_000_000_000_000})
    fed.line.store.publish("crls", 2_000_000_000_000, hashlib.sha256(body).digest(), body)
    fed.step()
    assert fed.valkey.get(fed.keys.document("crls", 2_000_000_000_000)) == body
