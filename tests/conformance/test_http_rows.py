"""Rows H: OCSP over HTTP as clients and caches need it."""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime

import pytest
from demo_service import Service, never_issued
from request_octets import (
    BASIC_OID,
    RESPONSE_OID,
    SHA256_OID,
    base64_of,
    escaped,
    extension,
    get,
    get_path,
    oid,
    post,
    request,
    seq,
    with_extensions,
)
from wire_client import Reply, Wire


@pytest.mark.row("H1", "H2", "H3")
def test_every_ocsp_answer_is_200_whole_and_of_the_exact_type(wire: Wire, auth: Service) -> None:
    """Signed or not, to 1.0 or 1.1, however compressed the client would take it."""
    foreign = auth.request().replace(auth.asked().key_hash, bytes(20))
    for der in (auth.request(), auth.request(auth.revoked[0]), seq(), foreign):
        for version in ("1.0", "1.1"):
            for message in (
                get(der, "Accept-Encoding: gzip", version=version),
                post(der, "TE: chunked", version=version),
            ):
                reply = wire.ask(message)
                names = [name for name, _ in reply.headers]
                assert reply.status == 200
                assert reply.header("Content-Type") == "application/ocsp-response"
                assert reply.header("Content-Length") == str(len(reply.body))
                assert not {"transfer-encoding", "content-encoding", "server"} & set(names)
                assert len(names) == len(set(names))


@pytest.mark.row("H4", "H5", "H6", "H7")
def test_caches_are_told_what_they_need(wire: Wire, auth: Service) -> None:
    """Validators, times that fit the answer's own, and how long it may be kept."""
    for serial in (auth.good[0], auth.revoked[0], never_issued()):
        reply = wire.ask(get(auth.request(serial)))
        said, headers = auth.read(reply), dict(reply.headers)
        single = said.singles[0]
        date = parsedate_to_datetime(headers["date"])
        assert headers["etag"] == f'"{hashlib.sha256(reply.body).hexdigest()}"'
        assert parsedate_to_datetime(headers["last-modified"]) == said.produced_at
        assert parsedate_to_datetime(headers["expires"]) == single.next_update
        max_age, *rest = headers["cache-control"].split(", ")
        assert rest == ["private", "no-transform", "must-revalidate"]
        age_s = int(max_age.removeprefix("max-age="))
        life_s = (single.next_update - single.this_update).total_seconds()
        # A newer answer is to be had before the old one must be thrown away.
        assert 0 < age_s <= 0.6 * life_s
        assert date.timestamp() + age_s < single.next_update.timestamp()
        assert "pragma" not in headers


@pytest.mark.row("H7")
def test_errors_are_not_kept(wire: Wire, auth: Service) -> None:
    """Whatever is not a status says no-store and has no validators."""
    foreign = auth.request().replace(auth.asked().key_hash, bytes(20))
    for message in (post(seq()), post(foreign), get(foreign), get_path("/other"), get_path("/ocsp")):
        reply = wire.ask(message)
        assert reply.header("Cache-Control") == "no-store"
        assert reply.header("ETag") is None
        assert reply.header("Expires") is None
        assert reply.header("Date") is not None


@pytest.mark.row("H9")
def test_a_copy_is_confirmed_by_its_tag_alone(wire: Wire, auth: Service) -> None:
    """Weak or strong, in a list, or any: 304 with what a cache needs; by a date never; not to a POST."""
    der = auth.request()
    with wire.connect() as connection:

        def ask(message: bytes) -> Reply:
            connection.send(message)
            reply = connection.read()
            assert reply is not None
            return reply

        first = ask(get(der))
        tag, date = first.header("ETag"), first.header("Last-Modified")
        for field in (f"{tag}", f"W/{tag}", f'"x", {tag}', f'"x",W/{tag},"y"', "*"):
            reply = ask(get(der, f"If-None-Match: {field}"))
            assert (reply.status, reply.body) == (304, b"")
            for name in ("ETag", "Expires", "Last-Modified"):
                assert reply.header(name) == first.header(name)
            assert reply.header("Date") is not None
            assert str(reply.header("Cache-Control")).startswith("max-age=")
        for lines in (('If-None-Match: "x"',), (f"If-Modified-Since: {date}",), ("If-None-Match: x",)):
            reply = ask(get(der, *lines))
            assert (reply.status, reply.body) == (200, first.body)
        overridden = ask(get(der, 'If-None-Match: "x"', f"If-Modified-Since: {date}"))
        assert overridden.status == 200
        assert ask(post(der, f"If-None-Match: {tag}")).status == 200
        # Two lines are one list.
        assert ask(get(der, 'If-None-Match: "x"', f"If-None-Match: {tag}")).status == 304


@pytest.mark.row("H10")
def test_hosts_methods_and_forms(wire: Wire, auth: Service) -> None:
    """1.0 needs no Host, 1.1 exactly one; 405 says what is allowed; 100-continue comes before the answer."""
    path = f"/ocsp/{escaped(auth.request())}"
    assert auth.read(wire.ask(f"GET {path} HTTP/1.0\r\n\r\n".encode())).word == "good"
    assert wire.ask(f"GET {path} HTTP/1.1\r\n\r\n".encode()).status == 400
    assert wire.ask(get(auth.request(), "Host: b")).status == 400
    assert wire.ask(get_path(f"http://any.test{path}", host="another.test")).status == 200
    refused = wire.ask(get_path("/ocsp", method="DELETE"))
    assert (refused.status, refused.header("Allow")) == (405, "GET, HEAD, POST")
    der = auth.request()
    head, _, body = post(der, "Expect: 100-continue").partition(b"\r\n\r\n")
    with wire.connect() as connection:
        connection.send(head + b"\r\n\r\n")
        while b"\r\n\r\n" not in connection.buffer:
            assert connection.receive()
        assert connection.buffer == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        reply = connection.read()
        assert reply is not None
        assert auth.read(reply).word == "good"


@pytest.mark.row("H11")
def test_one_question_in_many_spellings_has_one_answer(wire: Wire, auth: Service) -> None:
    """What is kept is found by what is asked, not by how it is written."""
    serial = auth.good[3]
    der = auth.request(serial)
    spelled = [
        der,
        request(auth.asked(serial).one, extensions=with_extensions()),
        request(
            auth.asked(serial).one,
            extensions=with_extensions(extension(RESPONSE_OID, seq(oid(BASIC_OID)))),
        ),
        request(auth.asked(serial)._replace(algorithm=seq(oid("1.3.14.3.2.26"))).one),
    ]
    other = request(auth.asked(serial, SHA256_OID).one)
    messages = [post(item) for item in spelled] + [get(item) for item in spelled]
    replies = wire.talk(*messages, get_path(f"/ocsp/{base64_of(der)}"), post(other))
    assert len({reply.body for reply in replies[:-1]}) == 1
    assert auth.read(replies[-1]).singles[0].hash_alg == "sha256"


@pytest.mark.row("H12")
def test_head_says_what_get_would(wire: Wire, auth: Service) -> None:
    """The same headers, no body; the bare path is a bad request, not an error of ours."""
    for der in (auth.request(), seq(), auth.request(auth.revoked[0])):
        with wire.connect() as connection:
            connection.send(get(der))
            whole = connection.read()
            connection.send(get(der).replace(b"GET", b"HEAD", 1))
            head = connection.read(head_only=True)
        assert whole is not None
        assert head is not None
        assert head.body == b""
        timeless = [item for item in head.headers if item[0] not in ("date", "cache-control")]
        assert timeless == [item for item in whole.headers if item[0] not in ("date", "cache-control")]
    assert wire.ask(get_path("/ocsp")).status == 400
