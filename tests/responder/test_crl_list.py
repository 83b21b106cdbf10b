"""The list of CRLs over HTTP: whose scopes, in which form, under which tag; and its pieces.

A real server on a real socket; what the worker believes is set by hand.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from catalogue_cases import catalogue_line
from crl_service import CRLService, standing_at
from responder_cases import CA

from certstatus import clock
from certstatus.crl_catalogue import Catalogue, CatalogueEntry, EndedScope, scopes_of_entries
from certstatus.crl_listing import join_listing, read_ended, scopes_sha256
from certstatus.entitlements import Entitlements, Verifier, parse_network
from certstatus.issuer_table import Issuer
from responder.asker import Askers
from responder.crl_fragments import ListedScopes, list_scopes
from responder.crl_list import CRLList, names_a_list, prefers_html
from responder.standing import Access

NOW_S = 1_800_000_000
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def entry(
    issuer: Issuer,
    number: int,
    scope: str = "all",
    *,
    base: int | None = None,
    current: bool = True,
    next_issue_s: int = NOW_S + 300,
) -> CatalogueEntry:
    """A line of the catalogue."""
    return catalogue_line(
        f"{issuer.path}/{scope}",
        number,
        NOW_S - 100,
        base=base,
        issuer_id=issuer.issuer_id,
        current=current,
        seq=number,
        next_update_s=NOW_S + 5000,
        next_issue_s=next_issue_s,
        size=1_234_567,
    )


SIGN = CA(1, "SIGN", NOW_S).issuer
SIGN_2 = replace(CA(2, "SIGN", NOW_S).issuer, generation=2)
AUTH = CA(3, "AUTH", NOW_S).issuer
CATALOGUE = (
    entry(SIGN, 40, current=False),
    entry(SIGN, 41),
    entry(SIGN, 57, base=40),
    entry(SIGN_2, 3, "m1/13104"),
    entry(AUTH, 8),
)
TITLES = {"sign/g2/m1/13104": "東京都新宿区"}


def listing(
    generation: int, entries: list[CatalogueEntry], issuers: list[Issuer], before: ListedScopes | None = None
) -> ListedScopes:
    """The list of a catalogue of these lines, all of the first generation."""
    scopes = scopes_of_entries(entries, {}, 1)
    return list_scopes(generation, scopes, issuers, before or ListedScopes())


class Service(CRLService):
    """Lists on a port of their own."""

    def __init__(self, state: Path, catalogue: tuple[CatalogueEntry, ...] = CATALOGUE) -> None:
        super().__init__(state)
        self.now_s = NOW_S
        self.issuers = [SIGN, SIGN_2, AUTH]
        verifiers = [
            Verifier(1, "both", (parse_network("127.0.0.1/32"),), {"SIGN": ("crl",), "AUTH": ("crl",)}),
            Verifier(2, "one", (parse_network("127.0.0.2/32"),), {"SIGN": ("ocsp",), "AUTH": ("crl",)}),
            # From the next legal day on.
            Verifier(
                3,
                "soon",
                (parse_network("127.0.0.3/32"),),
                {"AUTH": ("crl",)},
                from_day=clock.jst_day_number(NOW_S) + 1,
            ),
        ]
        self.standing = standing_at(
            NOW_S,
            Access(Entitlements(1, verifiers, NOW_S), self.issuers),
            Catalogue(catalogue),
            list_scopes(NOW_S * 1000, scopes_of_entries(catalogue, TITLES, NOW_S * 1000), self.issuers),
        )
        self.lists = CRLList(self, Askers(self.counting, "crl"), 0.5, lambda: self.now_s * 1000, lambda: 0.0)
        self.start(self.lists.serve)

    def publish(self, *catalogue: CatalogueEntry, generation: int = (NOW_S + 60) * 1000) -> None:
        """Another catalogue."""
        scopes = scopes_of_entries(catalogue, {}, generation)
        listed = list_scopes(generation, scopes, self.issuers, self.standing.listed)
        self.standing = replace(self.standing, catalogue=Catalogue(catalogue), listed=listed)

    def scopes(self, path: str = "") -> list[str]:
        """The names of the scopes in a list."""
        response, body = self.ask(path)
        assert response.status == 200
        return [scope["scope"] for scope in json.loads(body)["scopes"]]

    def counted(self) -> dict[tuple[str, int, int], int]:
        """What stands in the counter files, by kind, verifier and issuer."""
        found: dict[tuple[str, int, int], int] = {}
        for name, cell in self.cells():
            key = name, cell.verifier_id, cell.issuer_id
            found[key] = found.get(key, 0) + cell.value
        return {key: value for key, value in found.items() if value}


@pytest.fixture
def service(state: Path) -> Iterator[Service]:
    """Lists of three issuers' scopes, for two verifiers."""
    made = Service(state)
    yield made
    made.stop()


def test_a_scope_says_number_times_size_hash_and_where(service: Service) -> None:
    """All that a client needs to fetch only what changed; no provision is counted."""
    response, body = service.ask()
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Cache-Control"] == "no-cache, private, no-transform"
    assert response.headers["Vary"] == "Accept"
    said: dict[str, Any] = json.loads(body)
    assert (said["format"], said["generation"], said["as_of"]) == (1, NOW_S * 1000, "2027-01-15T08:00:00Z")
    assert said["scopes"][1] == {
        "scope": "sign/g1/all",
        "service": "SIGN",
        "key_generation": 1,
        "scheme": "",
        "partition": "",
        "title": "",
        "changed": NOW_S * 1000,
        "ca": "/ca/sign/g1.cer",
        "key_id": SIGN.key_id.hex(),
        "complete": {
            "number": 41,
            "this_update": "2027-01-15T07:58:20Z",
            "next_update": "2027-01-15T09:23:20Z",
            "next_issue": "2027-01-15T08:05:00Z",
            "size": 1_234_567,
            "sha256": f"{41:064x}",
            "url": "/crl/sign/g1/all/complete.crl",
            "by_number": "/crl/sign/g1/all/41.crl",
        },
        "delta": {
            "number": 57,
            "base_number": 40,
            "this_update": "2027-01-15T07:58:20Z",
            "next_update": "2027-01-15T09:23:20Z",
            "next_issue": "2027-01-15T08:05:00Z",
            "size": 1_234_567,
            "sha256": f"{57:064x}",
            "url": "/crl/sign/g1/all/delta.crl",
            "by_number": "/crl/sign/g1/all/57.delta.crl",
        },
        "bases": [40, 41],
    }
    partition = said["scopes"][2]
    assert (partition["scheme"], partition["partition"], partition["key_generation"]) == ("m1", "13104", 2)
    assert partition["title"] == "東京都新宿区"
    assert partition["delta"] is None
    assert service.counted() == {}


def test_a_list_holds_what_the_path_and_the_agreement_cover(service: Service) -> None:
    """By service, by generation; never a scope that the asker could not fetch."""
    assert service.scopes() == ["auth/g1/all", "sign/g1/all", "sign/g2/m1/13104"]
    assert service.scopes("sign/") == ["sign/g1/all", "sign/g2/m1/13104"]
    assert service.scopes("sign/g2/") == ["sign/g2/m1/13104"]
    service.address = "127.0.0.2"
    assert service.scopes() == ["auth/g1/all"]
    assert service.scopes("auth/") == ["auth/g1/all"]


def test_what_changed_since_is_listed_alone(service: Service) -> None:
    """The scopes whose lines are of a later generation; asking by each list's ``next`` misses none."""
    whole = json.loads(service.ask()[1])
    first_ms, second_ms = NOW_S * 1000, NOW_S * 1000 + 5000
    assert (whole["since"], whole["next"]) == (0, first_ms)
    assert json.loads(service.ask("?since=0")[1]) == whole
    assert len(json.loads(service.ask(f"?since={first_ms - 1}")[1])["scopes"]) == 3
    nothing = json.loads(service.ask(f"?since={first_ms}&other=1")[1])
    assert (nothing["scopes"], nothing["next"], nothing["since"]) == ([], first_ms, first_ms)
    # The names are those of all that the asker may have, whatever has changed.
    assert nothing["scopes_sha256"] == whole["scopes_sha256"] == scopes_sha256(service.scopes())
    moved = [entry(AUTH, 9) if item.issuer_id == AUTH.issuer_id else item for item in CATALOGUE]
    scopes = [
        replace(scope, changed=second_ms if scope.issuer_id == AUTH.issuer_id else first_ms)
        for scope in scopes_of_entries(moved, TITLES, first_ms)
    ]
    # One file of it is still to come, so whoever asks is to ask for that scope again.
    listed = list_scopes(second_ms, scopes, service.issuers, service.standing.listed, second_ms - 1)
    service.standing = replace(service.standing, listed=listed)
    response, body = service.ask(f"?since={first_ms}")
    assert [scope["scope"] for scope in json.loads(body)["scopes"]] == ["auth/g1/all"]
    assert json.loads(body)["next"] == second_ms - 1
    assert service.scopes(f"?since={second_ms - 1}") == ["auth/g1/all"]
    assert service.scopes(f"sign/?since={first_ms}") == []
    assert service.ask(f"?since={first_ms}", If_None_Match=response.headers["ETag"])[0].status == 304
    assert b"auth/g1/all" in (page := service.ask(f"?since={first_ms}", Accept=BROWSER)[1])
    assert b"sign/g1/all" not in page


@pytest.mark.parametrize(
    "query", ["since=", "since=-1", "since=x", "since=1&since=1", "since=1.5", "since=" + "9" * 17]
)
def test_a_generation_that_is_none_is_refused(service: Service, query: str) -> None:
    """400, and nothing is taken for "all" or "none"."""
    response, body = service.ask(f"?{query}")
    assert (response.status, body) == (400, b"Bad Request\n")


def test_scopes_that_have_ended_are_named_to_who_may_have_had_them(service: Service) -> None:
    """In whole lists, for people too; not in what is new, whose hash says that one went."""
    ended = [EndedScope(2, "sign/g2/m1/13105", NOW_S - 60), EndedScope(77, "other/g1/m1/13105", NOW_S - 60)]
    scopes = scopes_of_entries(CATALOGUE, TITLES, 1)
    listed = list_scopes(NOW_S * 1000, scopes, service.issuers, ended=ended)
    service.standing = replace(service.standing, listed=listed)
    said = [{"scope": "sign/g2/m1/13105", "ended": "2027-01-15T07:59:00Z"}]
    for path in ("", "sign/", "sign/g2/"):
        assert json.loads(service.ask(path)[1])["ended"] == said
    for path in ("auth/", "sign/g1/", f"?since={NOW_S * 1000 - 1}"):
        assert "ended" not in json.loads(service.ask(path)[1])
    assert b"has ended" in service.ask(Accept="text/html")[1]
    assert read_ended(service.ask()[1]) == {"sign/g2/m1/13105": "2027-01-15T07:59:00Z"}
    service.address = "127.0.0.2"
    assert "ended" not in json.loads(service.ask()[1])


def test_before_any_catalogue_has_come_nothing_is_said(service: Service) -> None:
    """Not an empty list, which would say that there are no CRLs."""
    service.standing = replace(service.standing, catalogue=Catalogue(is_known=False), listed=ListedScopes())
    response, _ = service.ask()
    assert (response.status, response.headers["Retry-After"]) == (503, "2")


def test_who_may_have_none_of_it_is_refused_and_counted(service: Service) -> None:
    """403 for strangers, outside the agreement, and before its first day; 404 for what is no service."""
    service.address = "127.0.0.2"
    assert service.ask("sign/")[0].status == 403
    assert service.ask("sign/g2/")[0].status == 403
    service.address = "192.0.2.1"
    for path in ("", "auth/"):
        response, body = service.ask(path, If_None_Match="*")
        assert (response.status, body) == (403, b"Forbidden\n")
        assert "ETag" not in response.headers
    assert service.counted() == {
        ("REFUSED_CRL", 2, 0): 1,
        ("REFUSED_CRL", 2, 2): 1,
        ("REFUSED_CRL", 0, 0): 1,
        ("REFUSED_CRL", 0, 3): 1,
    }
    assert service.ask("corp/")[0].status == 404
    service.address = "127.0.0.3"
    assert service.ask()[0].status == 403
    service.now_s += clock.DAY_S
    assert service.scopes() == ["auth/g1/all"]


def test_the_tag_moves_with_the_list_and_with_nothing_else(service: Service) -> None:
    """304 while nothing changed, by HEAD as well; another tag for another number, form or asker."""
    response, body = service.ask()
    tag = response.headers["ETag"]
    response, empty = service.ask(If_None_Match=f'"x", W/{tag}')
    assert (response.status, empty, response.headers["ETag"]) == (304, b"", tag)
    response, empty = service.ask(method="HEAD")
    assert (response.status, empty, response.headers["ETag"]) == (200, b"", tag)
    assert response.headers["Content-Length"] == str(len(body))
    assert service.ask(method="HEAD", If_None_Match=tag)[0].status == 304
    response, empty = service.ask(If_Match='"x"')
    assert (response.status, empty) == (412, b"")
    # Passed over: a list is too short lived to be put together from parts.
    assert service.ask(Range="bytes=0-3")[1] == body
    service.standing = replace(service.standing, seq=101, mark=2)
    assert service.ask(If_None_Match=tag)[0].status == 304
    others = {tag, service.ask(Accept=BROWSER)[0].headers["ETag"], service.ask("sign/")[0].headers["ETag"]}
    service.address = "127.0.0.2"
    others.add(service.ask()[0].headers["ETag"])
    service.address = "127.0.0.1"
    service.publish(*CATALOGUE[:-1], entry(AUTH, 9))
    response, body = service.ask(If_None_Match=tag)
    assert response.status == 200
    assert json.loads(body)["scopes"][0]["complete"]["number"] == 9
    assert len({*others, response.headers["ETag"]}) == 5


def test_a_browser_gets_a_page(service: Service) -> None:
    """With a link to every file, and nothing in it that runs."""
    response, body = service.ask(Accept=BROWSER)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script" not in (policy := response.headers["Content-Security-Policy"])
    assert policy.startswith("default-src 'none'")
    page = body.decode()
    for place in ("/crl/sign/g1/all/complete.crl", "/crl/sign/g1/all/57.delta.crl", "/ca/sign/g2.cer"):
        assert f'href="{place}"' in page
    assert "57 on 40" in page
    assert page.rstrip().endswith("</html>")


def test_a_page_shows_names_and_does_not_run_them() -> None:
    """A scope's name comes from elsewhere; what looks like a tag in it is text."""
    scopes = scopes_of_entries([entry(AUTH, 1, "m1/<b>&")], {"auth/g1/m1/<b>&": "<i>清瀬市"}, 1)
    page = list_scopes(1, scopes, [AUTH]).by_path["auth/g1/m1/<b>&"].html
    assert b"<b>" not in page
    assert b"<i>" not in page
    assert b"&lt;b&gt;&amp;" in page
    assert "&lt;i&gt;清瀬市".encode() in page


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ([], False),
        (["*/*"], False),
        ([BROWSER], True),
        (["text/html"], True),
        (["application/json, text/html"], False),
        (["application/json;q=0.5", "Text/HTML;q=0.6"], True),
        (["text/html;q=0"], False),
        (["text/html;q=x"], False),
        (["text/html;level=1"], True),
        ([",,;;q=1,"], False),
    ],
)
def test_html_is_for_those_who_name_it(accept: list[str], html: bool) -> None:
    """Everybody else is a program."""
    assert prefers_html(accept) is html


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", True),
        ("sign/", True),
        ("sign/g1/", True),
        ("sign/g1/all/", False),
        ("sign/g1", False),
        ("sign/g1/all/complete.crl", False),
    ],
)
def test_a_list_is_told_by_its_slash(path: str, expected: bool) -> None:
    """What has the form of a file is a file."""
    assert names_a_list(path) is expected


def test_a_worker_that_is_not_fresh_lists_nothing(service: Service) -> None:
    """Who may ask is not known any more: 503 and when to come back."""
    service.standing = replace(service.standing, fresh_until_s=-1.0)
    response, _ = service.ask()
    assert (response.status, response.headers["Retry-After"]) == (503, "2")
    assert service.counted() == {}


def test_what_cannot_be_counted_is_answered_503(service: Service) -> None:
    """Without a counter file nobody is told who he is."""
    service.counting.close()
    for path in service.counters.iterdir():
        path.unlink()
    service.counters.rmdir()
    service.counters.write_bytes(b"in the way")
    assert service.ask()[0].status == 503


def test_before_the_first_crl_the_list_is_empty(service: Service) -> None:
    """And is JSON all the same."""
    service.publish()
    response, body = service.ask()
    assert (response.status, json.loads(body)["scopes"]) == (200, [])
    assert service.ask(Accept="text/html")[0].status == 200


def test_only_what_changed_is_made_anew() -> None:
    """Of thousands of scopes one moves: the others' pieces are those of before."""
    scopes = [entry(SIGN, 1, f"m1/{code:05}") for code in range(2000)]
    before = listing(1, scopes, [SIGN])
    moved = [entry(SIGN, 2, "m1/00007") if item.scope == "m1/00007" else item for item in scopes]
    after = listing(2, moved, [SIGN], before)
    assert [path for path in after.by_path if after.by_path[path] is not before.by_path[path]] == [
        "sign/g1/m1/00007"
    ]
    assert b'"number": 2,' in after.by_path["sign/g1/m1/00007"].json
    # Another time of the next issue is another line as well; and what has gone is gone.
    due = [replace(item, next_issue_s=1) if item.scope == "m1/00008" else item for item in moved[1:]]
    later = listing(3, due, [SIGN], after)
    assert later.by_path["sign/g1/m1/00008"] is not after.by_path["sign/g1/m1/00008"]
    assert len(later.by_path) == 1999
    # An issuer's number may come to stand for another key, after a restore.
    other = listing(4, due, [replace(SIGN, key_id=b"other")], later)
    assert b"6f74686572" in other.by_path["sign/g1/m1/00008"].json
    assert listing(5, due, [], later) == ListedScopes(5, {}, 5)


def test_a_long_list_is_joined_once_and_sent_to_its_end(service: Service) -> None:
    """Two thousand scopes: more than a megabyte through a small pipe, and a 304 after that."""
    scopes = [entry(SIGN, 1, f"m1/{code:05}") for code in range(2000)]
    service.publish(*scopes)
    response, body = service.ask()
    assert len(json.loads(body)["scopes"]) == 2000
    assert len(body) > 1_000_000
    assert service.ask(If_None_Match=response.headers["ETag"])[0].status == 304


def test_who_does_not_read_is_not_waited_for(service: Service) -> None:
    """The connection of a reader that stops ends within the time to write."""
    service.publish(*[entry(SIGN, 1, f"m1/{code:05}") for code in range(2000)])
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.sendall(b"GET /crl/ HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.5)
        client.settimeout(10)
        received = 0
        with suppress(ConnectionResetError):
            while piece := client.recv(1 << 16):
                received += len(piece)
        assert received < 1_000_000


def test_where_most_of_it_is_new_the_whole_list_is_given(service: Service) -> None:
    """Made once, whatever moments are asked since; and what a reader joins is the same."""
    before = service.ask()[1]
    service.publish(*[entry(SIGN, 9, f"m1/{code:05}") for code in range(200)])
    whole = service.ask()[1]
    since = json.loads(before)["next"]
    for moment in (since, since - 1, 1):
        assert service.ask(f"?since={moment}")[1] == whole
    assert len(service.lists._lists) == 1
    assert join_listing(before, whole) == whole
    assert json.loads(service.ask(f"?since={json.loads(whole)['next']}")[1])["scopes"] == []
