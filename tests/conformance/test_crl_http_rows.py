"""Rows CH: how CRLs are fetched, and what a reader may do with the copy it has."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from email.utils import parsedate_to_datetime

import pytest
from crl_history import History
from crl_reading import read_crl
from cryptography.hazmat.primitives import serialization
from demo_service import Service
from served_installation import Served
from wire_client import Reply, Wire

COMPLETE = "/crl/auth/g1/all/complete.crl"
DELTA = "/crl/auth/g1/all/delta.crl"


def raw(wire: Wire, *lines: str) -> Reply:
    """The answer to a head written out line by line."""
    return wire.ask("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))


def max_age_s(reply: Reply) -> int:
    """How long a copy may be kept."""
    found = re.fullmatch(
        r"max-age=(\d+), (?:public|private), no-transform, must-revalidate",
        reply.header("Cache-Control") or "",
    )
    assert found is not None, reply.head
    return int(found[1])


def date_s(reply: Reply, name: str) -> int:
    """A date among the headers, POSIX seconds."""
    text = reply.header(name)
    assert text is not None
    return int(parsedate_to_datetime(text).timestamp())


@pytest.mark.row("CH1")
def test_one_der_crl_of_the_registered_type(wire: Wire, auth: Service) -> None:
    """Complete and delta, under their names and under their numbers."""
    until_s = time.monotonic() + 30
    for path in (COMPLETE, DELTA):
        reply = wire.get(path)
        while reply.status == 404 and time.monotonic() < until_s:
            # A new installation: the first delta follows its base a second later.
            time.sleep(0.2)
            reply = wire.get(path)
        assert (reply.status, reply.header("Content-Type")) == (200, "application/pkix-crl")
        crl = read_crl(reply.body, auth.ca)
        kind = ".crl" if crl.base is None else ".delta.crl"
        assert wire.get(f"/crl/auth/g1/all/{crl.number}{kind}").body == reply.body
    assert wire.get("/crl/auth/g1/all/none.crl").status == 404
    assert wire.get(COMPLETE, method="DELETE").header("Allow") == "GET, HEAD"


@pytest.mark.row("CH2")
def test_http_1_0_without_host_and_head(wire: Wire) -> None:
    """A length, no chunks, and the end of the connection; HEAD has the same headers and no body."""
    whole = wire.get(COMPLETE)
    old = raw(wire, f"GET {COMPLETE} HTTP/1.0")
    assert old.body == whole.body
    assert old.header("Content-Length") == str(len(whole.body))
    assert old.header("Transfer-Encoding") is None
    with wire.connect() as connection:
        connection.send(f"GET {COMPLETE} HTTP/1.0\r\n\r\n".encode())
        assert connection.read() is not None
        assert connection.is_closed(2.0)
    head = wire.get(COMPLETE, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Accept-Ranges"):
        assert head.header(name) == whole.header(name)
    assert raw(wire, f"GET {COMPLETE} HTTP/1.1").status == 400


@pytest.mark.row("CH3")
@pytest.mark.parametrize("accepted", ["gzip", "gzip, br;q=1.0, identity;q=0.1", "*", "identity;q=0"])
def test_there_is_one_form_of_it_whatever_is_accepted(wire: Wire, accepted: str) -> None:
    """Not compressed, with one strong tag, and so nothing that varies."""
    reply, plain = wire.get(COMPLETE, f"Accept-Encoding: {accepted}"), wire.get(COMPLETE)
    assert reply.body == plain.body
    assert reply.header("Content-Encoding") is None
    assert reply.header("Vary") is None
    assert reply.header("ETag") == plain.header("ETag")
    assert re.fullmatch(r'"[0-9a-f]{64}"', reply.header("ETag") or "")
    assert wire.get(DELTA).header("ETag") != plain.header("ETag")


@pytest.mark.row("CH4")
def test_conditions_in_their_order(wire: Wire) -> None:
    """If-Match or If-Unmodified-Since first, then If-None-Match or If-Modified-Since."""
    whole = wire.get(COMPLETE)
    tag, date = whole.header("ETag"), whole.header("Last-Modified")
    earlier, later = "Thu, 01 Jan 2015 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    cases: list[tuple[int, list[str]]] = [
        (304, [f"If-None-Match: {tag}"]),
        (304, [f'If-None-Match: "x", W/{tag}']),
        (304, ["If-None-Match: *"]),
        (200, ['If-None-Match: "x"']),
        (304, [f"If-Modified-Since: {date}"]),
        (200, [f"If-Modified-Since: {earlier}"]),
        # Its own clock says nothing of what a reader has: it may have fetched before this was out.
        (200, [f"If-Modified-Since: {later}"]),
        (200, ["If-Modified-Since: yesterday"]),
        (412, ['If-Match: "x"']),
        (412, [f"If-Match: W/{tag}"]),
        (200, [f"If-Match: {tag}"]),
        (200, ["If-Match: *"]),
        (412, [f"If-Unmodified-Since: {earlier}"]),
        (200, [f"If-Unmodified-Since: {date}"]),
        (200, ['If-None-Match: "x"', f"If-Modified-Since: {date}"]),
        (412, ['If-Match: "x"', f"If-None-Match: {tag}"]),
        (304, [f"If-Match: {tag}", f"If-None-Match: {tag}"]),
        (200, [f"If-Match: {tag}", f"If-Unmodified-Since: {earlier}"]),
    ]
    for status, lines in cases:
        for method in ("GET", "HEAD"):
            reply = wire.get(COMPLETE, *lines, method=method)
            assert reply.status == status, lines
            assert reply.body == (whole.body if status == 200 and method == "GET" else b"")
            for name in ("ETag", "Date", "Cache-Control", "Expires"):
                assert status != 304 or reply.header(name) is not None


@pytest.mark.row("CH5")
def test_parts_of_a_crl(wire: Wire) -> None:
    """First, last, open and suffix; what is not there is 416; other units and several ranges: the whole."""
    whole = wire.get(COMPLETE)
    size = len(whole.body)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=100-", 100, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size + 5}", 0, size),
        (f"bytes=5-{size + 99}", 5, size),
    ):
        part = wire.get(COMPLETE, f"Range: {asked}")
        assert (part.status, part.body) == (206, whole.body[start:end])
        assert part.header("Content-Range") == f"bytes {start}-{end - 1}/{size}"
    for asked in (f"bytes={size}-", f"bytes={size}-{size + 9}", "bytes=-0"):
        none = wire.get(COMPLETE, f"Range: {asked}")
        assert (none.status, none.header("Content-Range")) == (416, f"bytes */{size}")
    many = "bytes=" + ",".join(f"{at}-{at}" for at in range(500))
    for asked in ("lines=1-2", "bytes=9-2", "bytes=x", many):
        assert wire.get(COMPLETE, f"Range: {asked}").body == whole.body
    assert wire.get(COMPLETE, "Range: bytes=0-1", method="HEAD").status == 200


@pytest.mark.row("CH5")
def test_a_download_is_never_resumed_with_another_crl(wire: Wire) -> None:
    """If-Range by the tag or the very date: the rest; anything else: the whole."""
    whole = wire.get(COMPLETE)
    tag, date = whole.header("ETag"), whole.header("Last-Modified")
    for validator, status in ((tag, 206), (date, 206), ('"x"', 200), (f"W/{tag}", 200), (_day_after(), 200)):
        reply = wire.get(COMPLETE, "Range: bytes=100-", f"If-Range: {validator}")
        assert reply.status == status, validator
        assert reply.body == whole.body[100 if status == 206 else 0 :]


def _day_after() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 86_400))


@pytest.mark.row("CH6")
def test_a_copy_is_fresh_until_its_successor_is_due(history_wire: Wire, history: History) -> None:
    """The complete CRL within its period, the delta within its own, an old base until its nextUpdate."""
    policy = history.issuer.policy
    for name, period_s in (("complete", policy.crl_period_s), ("delta", policy.delta_period_s)):
        reply = history_wire.get(f"{history.place}/{name}.crl")
        crl = read_crl(reply.body, history.corp.ca)
        now_s = date_s(reply, "Date")
        # Within one period, at a moment of the scope's own.
        expires_s = date_s(reply, "Expires")
        assert crl.this_update_s < expires_s <= crl.this_update_s + period_s <= crl.next_update_s
        assert max_age_s(reply) == max(0, expires_s - now_s)
        assert date_s(reply, "Last-Modified") == crl.this_update_s
    base = history_wire.get(f"{history.place}/1.crl")
    assert date_s(base, "Expires") == read_crl(base.body, history.corp.ca).next_update_s
    assert max_age_s(history_wire.get(f"{history.place}/delta.crl")) < max_age_s(base)


@pytest.mark.row("CH7")
def test_bases_stay_and_a_delta_never_comes_before_its_base(history_wire: Wire, history: History) -> None:
    """Every base that a served delta names can be fetched, and the complete CRL of its own number, too."""
    for number in history.deltas:
        crl = read_crl(history_wire.get(f"{history.place}/{number}.delta.crl").body, history.corp.ca)
        base = read_crl(history_wire.get(f"{history.place}/{crl.base}.crl").body, history.corp.ca)
        assert base.number == crl.base
        if number in history.completes:
            assert history_wire.get(f"{history.place}/{number}.crl").status == 200


@pytest.mark.row("CH7")
def test_readers_see_one_whole_crl_or_the_next(wire: Wire, auth: Service, served: Served) -> None:
    """While new ones are published, every answer verifies, numbers only rise, and deltas have their base."""
    publishing = threading.Thread(target=served.run, args=("publish", "now", "--all", "--service", "AUTH"))
    publishing.start()
    seen: list[int] = []
    until_s = time.monotonic() + 20
    with wire.connect() as connection:
        while publishing.is_alive() or len(set(seen)) < 2:
            assert time.monotonic() < until_s
            # The delta first: a complete CRL not older than its base must already be there.
            crls = []
            for path in (DELTA, COMPLETE):
                connection.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                reply = connection.read()
                assert reply is not None
                assert reply.status == 200
                crls.append(read_crl(reply.body, auth.ca))
            delta, complete = crls
            assert delta.base is not None
            assert delta.base <= complete.number
            seen.append(complete.number)
            time.sleep(0.01)
    publishing.join()
    assert seen == sorted(seen)


@pytest.mark.row("CH8")
def test_the_list_leads_to_every_crl(wire: Wire, auth: Service) -> None:
    """What it says of number, size and hash is so of what is fetched; 304 while it stays; HTML."""
    reply = wire.get("/crl/auth/")
    assert (reply.status, reply.header("Content-Type")) == (200, "application/json")
    scopes = {item["scope"]: item for item in json.loads(reply.body)["scopes"]}
    # The whole list, and every part of it.
    assert set(scopes) == {"auth/g1/all", *(f"auth/g1/n8/b{number}" for number in range(8))}
    for scope in scopes.values():
        assert scope["key_generation"] == 1
        assert wire.get(scope["ca"]).body == auth.ca.public_bytes(serialization.Encoding.DER)
        for kind in ("complete", "delta"):
            said = scope[kind]
            for name in ("url", "by_number"):
                found = wire.get(said[name]).body
                assert (len(found), hashlib.sha256(found).hexdigest()) == (said["size"], said["sha256"])
            crl = read_crl(found, auth.ca)
            assert (crl.number, crl.base) == (said["number"], said.get("base_number"))
        assert scope["delta"]["base_number"] in scope["bases"]
    assert wire.get("/crl/auth/", f"If-None-Match: {reply.header('ETag')}").status == 304
    assert wire.get("/crl/", method="POST").header("Allow") == "GET, HEAD"
    head = wire.get("/crl/auth/g1/", method="HEAD")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", str(len(reply.body)))
    page = wire.get("/crl/?x", "Accept: text/html")
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert b"/crl/sign/g1/all/complete.crl" in page.body
    assert [wire.get(path).status for path in ("/crl/none/", "/crl/auth/g1/all/", "/crl")] == [404, 404, 404]
