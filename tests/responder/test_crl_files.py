"""CRLs over HTTP: which file, to whom, in how many pieces, and how it is counted.

A real server on a real socket; what the worker believes is set by hand, file by file.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from catalogue_cases import catalogue_line
from crl_service import CRLService, standing_at
from responder_cases import CA, everybody

from certstatus.crl_catalogue import Catalogue, CatalogueEntry, EndedScope
from certstatus.entitlements import Entitlements
from certstatus.issuer_table import Issuer
from responder.asker import Askers
from responder.crl_files import CHUNK_BYTES, LAST_BYTES_MAX, CRLFiles
from responder.crl_fragments import ListedScopes
from responder.standing import Access, Standing

NOW_S = 1_800_000_000
COMPLETE = "sign/g1/all/complete.crl"
DELTA = "sign/g1/all/delta.crl"
FILE = "sign/g1/all/7.crl"
CONTENT = bytes(range(256)) * (4 * CHUNK_BYTES // 256) + b"end"


class Follower:
    """Believes what the test says."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing


class Service(CRLService):
    """A CRL service on a port of its own."""

    def __init__(self, state: Path, issuer: Issuer, address: str = "127.0.0.1") -> None:
        super().__init__(state, address)
        self.folder = state / "crl"
        self.entries: dict[str, CatalogueEntry] = {}
        self.follower = Follower(standing_at(NOW_S, Access(Entitlements(1, [everybody()], NOW_S), [issuer])))
        self.files = CRLFiles(
            self.folder,
            self.follower,
            Askers(self.counting, "crl"),
            write_time_s=0.5,
            now_ms=lambda: NOW_S * 1000,
            monotonic_s=lambda: 0.0,
        )
        self.start(self.files.serve)

    def unsent(self) -> list[int]:
        """Bytes kept for each connection whose client does not read."""
        found: Future[list[int]] = Future()

        def look() -> None:
            handlers = self._runner.server.connections if self._runner.server else []
            transports = [handler.transport for handler in handlers]
            found.set_result([item.get_write_buffer_size() for item in transports if item is not None])

        self._loop.call_soon_threadsafe(look)
        return found.result(10)

    def publish(
        self,
        name: str,
        file: str,
        content: bytes,
        *,
        kind: str = "complete",
        seq: int = 100,
        current: bool = True,
        next_issue_in_s: int = 300,
    ) -> CatalogueEntry:
        """Write a file and put it into the catalogue."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        entry = catalogue_line(
            "sign/g1/all",
            7,
            NOW_S - 100,
            kind=kind,
            file=file,
            name=name,
            current=current,
            seq=seq,
            next_update_s=NOW_S + 5000,
            next_issue_s=NOW_S + next_issue_in_s,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        self.entries[file] = entry
        self.follower.standing = replace(self.follower.standing, catalogue=Catalogue(self.entries.values()))
        return entry

    def counted(self) -> dict[str, int]:
        """What stands in the counter files, by kind."""
        found: dict[str, int] = {}
        for name, cell in self.cells():
            found[name] = found.get(name, 0) + cell.value
        return found


@pytest.fixture
def service(state: Path) -> Iterator[Service]:
    """A service with one complete CRL, for an issuer that answers registered verifiers only."""
    made = Service(state, CA(1, "SIGN", NOW_S).issuer)
    made.publish(COMPLETE, FILE, CONTENT)
    yield made
    made.stop()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens on the other side."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_whole_crl_with_its_headers(service: Service) -> None:
    """One DER CRL with length, strong tag and dates; not to be kept by shared caches."""
    response, body = service.ask(COMPLETE)
    assert (response.status, body) == (200, CONTENT)
    assert response.headers["Content-Type"] == "application/pkix-crl"
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert response.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Cache-Control"] == ("max-age=300, private, no-transform, must-revalidate")
    assert response.headers["Last-Modified"] == "Fri, 15 Jan 2027 07:58:20 GMT"
    assert response.headers["Expires"] == "Fri, 15 Jan 2027 08:05:00 GMT"
    assert "Transfer-Encoding" not in response.headers
    assert service.counted() == {"CRL_COMPLETE": 1}


def test_http_1_0_without_host_gets_the_same(service: Service) -> None:
    """OpenSSL, NSS and dirmngr fetch CRLs so: no chunks, and the end of the connection at the end."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        client.sendall(f"GET /crl/{COMPLETE} HTTP/1.0\r\n\r\n".encode())
        received = b""
        while piece := client.recv(1 << 20):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert body == CONTENT
    assert b"Content-Length: %d" % len(CONTENT) in head
    assert b"chunked" not in head.lower()


def test_a_file_named_by_number_is_served_as_long_as_it_is_named(service: Service) -> None:
    """An old base stays fetchable under its own name, with a max-age up to its nextUpdate."""
    service.publish(COMPLETE, "sign/g1/all/6.crl", b"older", current=False)
    response, body = service.ask("sign/g1/all/6.crl")
    assert (response.status, body) == (200, b"older")
    assert response.headers["Cache-Control"].startswith("max-age=5000, ")
    assert service.ask(COMPLETE)[1] == CONTENT


@pytest.mark.parametrize(
    "path",
    ["sign/g1/all/8.crl", "", "../host/index.key", "sign/g1/all", "sign/g1/all/complete.crl/", "%2e%2e/x"],
)
def test_what_the_catalogue_does_not_name_is_not_there(service: Service, path: str) -> None:
    """Names are looked up, never opened: no path leads out of the catalogue."""
    (service.folder / "sign/g1/all/8.crl").write_bytes(b"not published")
    response, body = service.ask(path)
    assert (response.status, body) == (404, b"Not Found\n")
    assert response.headers["Cache-Control"] == "no-store"
    assert service.counted() == {}


def test_of_a_scope_that_has_ended_there_is_nothing_any_more(service: Service) -> None:
    """410 and not 404: whoever asks need not come again.  For who might have had it."""
    ended = {"sign/g1/m1/13105": EndedScope(1, "sign/g1/m1/13105", NOW_S - 60)}
    service.follower.standing = replace(service.follower.standing, listed=ListedScopes(ended=ended))
    assert service.ask("sign/g1/m1/13105/complete.crl")[0].status == 410
    assert service.ask("sign/g1/m1/13105/7.delta.crl")[0].status == 410
    assert service.ask("sign/g1/m1/13106/complete.crl")[0].status == 404
    assert service.ask(COMPLETE)[0].status == 200
    service.address = "192.0.2.1"
    assert service.ask("sign/g1/m1/13105/complete.crl")[0].status == 403


@pytest.mark.parametrize(("next_issue_in_s", "age_s"), [(300, 300), (9000, 5000), (0, 0), (-20, 0)])
def test_a_copy_may_be_kept_until_the_next_crl_is_due(
    service: Service, next_issue_in_s: int, age_s: int
) -> None:
    """Not beyond the time of the next issue, not beyond nextUpdate; no time at all once that is over."""
    service.publish(COMPLETE, FILE, CONTENT, next_issue_in_s=next_issue_in_s)
    response, _ = service.ask(COMPLETE)
    assert response.headers["Cache-Control"].startswith(f"max-age={age_s}, ")


def test_two_crls_of_one_date_are_told_apart_by_their_tags_only(service: Service) -> None:
    """Made while the clock was behind: the date of the older one is no reason not to send the newer one."""
    date = service.ask(COMPLETE)[0].headers["Last-Modified"]
    assert service.ask(COMPLETE, If_Modified_Since=date)[0].status == 304
    service.entries[FILE] = replace(service.entries[FILE], current=False)
    newer = service.publish(COMPLETE, "sign/g1/all/8.crl", b"newer")
    response, body = service.ask(COMPLETE, If_Modified_Since=date)
    assert (response.status, body) == (200, b"newer")
    assert service.ask(COMPLETE, If_None_Match=f'"{newer.sha256}"')[0].status == 304
    assert service.ask(FILE, If_Modified_Since=date)[0].status == 304


def test_what_cannot_be_counted_is_answered_503(service: Service) -> None:
    """No counter file can be made any more: not a CRL, not its head, not a 304, and no cut connection."""
    service.counting.close()
    shutil.rmtree(service.counters)
    service.counters.write_bytes(b"in the way")
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"If-None-Match": "*"})):
        response, body = service.ask(COMPLETE, method, **headers)
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
        assert CONTENT[:100] not in body


def test_a_name_of_the_current_one_moves_at_once(service: Service) -> None:
    """Publishing is one pointer switch: the next request gets the next CRL."""
    service.publish(COMPLETE, "sign/g1/all/8.crl", b"newer")
    service.entries[FILE] = replace(service.entries[FILE], current=False)
    service.publish(DELTA, "sign/g1/all/8.delta.crl", b"delta", kind="delta")
    assert service.ask(COMPLETE)[1] == b"newer"
    assert service.ask(FILE)[1] == CONTENT
    assert service.ask(DELTA)[1] == b"delta"
    assert service.counted() == {"CRL_COMPLETE": 2, "CRL_DELTA": 1}


def test_who_is_not_entitled_gets_403_and_nothing_else(service: Service) -> None:
    """A stranger is refused, counted as refused, and learns no tag, date or size."""
    service.address = "192.0.2.1"
    response, body = service.ask(COMPLETE)
    assert (response.status, body) == (403, b"Forbidden\n")
    assert "ETag" not in response.headers
    assert service.ask(COMPLETE, If_None_Match="*")[0].status == 403
    assert service.counted() == {"REFUSED_CRL": 2}


def test_a_public_issuers_crl_is_for_everybody(state: Path) -> None:
    """Access "public": no verifier need be registered, and shared caches may keep it."""
    made = Service(state, replace(CA(1, "CORP", NOW_S).issuer, access="public"), "192.0.2.1")
    made.publish(COMPLETE, FILE, CONTENT)
    response, body = made.ask(COMPLETE)
    assert (response.status, body) == (200, CONTENT)
    assert ", public, " in response.headers["Cache-Control"]
    made.stop()


def test_a_worker_that_is_not_fresh_serves_no_crl(service: Service) -> None:
    """Who may ask is not known any more, so nobody is told: 503 and when to come back."""
    service.follower.standing = replace(service.follower.standing, fresh_until_s=-1.0)
    response, _ = service.ask(COMPLETE)
    assert response.status == 503
    assert response.headers["Retry-After"] == "2"
    assert service.counted() == {}


def test_a_crl_cut_beyond_what_is_applied_has_to_wait(service: Service) -> None:
    """OCSP must not say `good` of what the CRL already lists."""
    service.publish(COMPLETE, FILE, CONTENT, seq=101)
    assert service.ask(COMPLETE)[0].status == 503
    service.follower.standing = replace(service.follower.standing, seq=101)
    assert service.ask(COMPLETE)[0].status == 200


def test_a_file_that_is_not_the_one_named_is_not_served(service: Service) -> None:
    """Another length, another content, or no file: 503, also when it was right a moment ago."""
    assert service.ask(COMPLETE)[0].status == 200
    path = service.folder / FILE
    path.write_bytes(CONTENT[:-1] + b"X")
    assert service.ask(COMPLETE)[0].status == 503
    path.write_bytes(CONTENT[:-1])
    assert service.ask(COMPLETE)[0].status == 503
    path.unlink()
    assert service.ask(COMPLETE)[0].status == 503
    path.write_bytes(CONTENT)
    assert service.ask(COMPLETE)[0].status == 200


def test_conditional_requests_and_head_are_kinds_of_their_own(service: Service) -> None:
    """304, HEAD and parts are counted apart; 412 and 416 give nothing and are not counted."""
    tag = service.ask(COMPLETE)[0].headers["ETag"]
    response, body = service.ask(COMPLETE, If_None_Match=f'"x", {tag}')
    assert (response.status, body) == (304, b"")
    assert response.headers["ETag"] == tag
    assert "Content-Type" not in response.headers
    response, body = service.ask(COMPLETE, "HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Length"] == str(len(CONTENT))
    response, body = service.ask(COMPLETE, If_Match='"x"')
    assert (response.status, body) == (412, b"")
    response, body = service.ask(COMPLETE, Range="bytes=99999999-")
    assert (response.status, body) == (416, b"")
    assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    assert service.counted() == {"CRL_COMPLETE": 1, "CRL_NOT_MODIFIED": 1, "CRL_HEAD": 1}


def test_a_resumed_download_is_put_together_from_its_parts(service: Service) -> None:
    """Parts over a chunk's border fit; with If-Range of another CRL the whole comes instead."""
    at = CHUNK_BYTES + 17
    tag = service.ask(COMPLETE, "HEAD")[0].headers["ETag"]
    response, first = service.ask(COMPLETE, Range=f"bytes=0-{at - 1}")
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes 0-{at - 1}/{len(CONTENT)}"
    response, rest = service.ask(COMPLETE, Range=f"bytes={at}-", If_Range=tag)
    assert (response.status, first + rest) == (206, CONTENT)
    response, whole = service.ask(COMPLETE, Range=f"bytes={at}-", If_Range='"of another"')
    assert (response.status, whole) == (200, CONTENT)
    assert service.ask(COMPLETE, Range="bytes=0-1,3-4")[1] == CONTENT
    assert service.ask(COMPLETE, Range="lines=1-2")[1] == CONTENT
    assert service.ask(COMPLETE, Range="bytes=-3")[1] == b"end"
    assert service.counted() == {"CRL_HEAD": 1, "CRL_PARTIAL": 3, "CRL_COMPLETE": 3}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_not_allowed(service: Service, method: str) -> None:
    """405 with the methods that are."""
    response, _ = service.ask(COMPLETE, method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_a_transfer_that_is_broken_off_counts_as_aborted_only(service: Service) -> None:
    """A reader that goes away, and one that stops reading: neither has been given a CRL."""
    content = b"x" * (64 * CHUNK_BYTES)
    service.publish(COMPLETE, FILE, content)
    for goes_away in (True, False):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.sendall(f"GET /crl/{COMPLETE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1000)
        before = service.counted().get("CRL_ABORTED", 0)
        if goes_away:
            client.close()
        until(lambda before=before: service.counted().get("CRL_ABORTED", 0) == before + 1)  # type: ignore[misc]
        client.close()
    assert service.counted() == {"CRL_ABORTED": 2}


@pytest.mark.parametrize("kind", ["GET", "HEAD", "304", "416"])
def test_small_answers_do_not_pile_up_before_one_who_never_reads(
    service: Service, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Requests without end for a small CRL, or for its head only: memory stays, and the connection ends."""
    service.publish(COMPLETE, FILE, b"x" * 300)
    lines = {"304": "If-None-Match: *\r\n", "416": "Range: bytes=999-\r\n"}.get(kind, "")
    method = "HEAD" if kind == "HEAD" else "GET"
    message = f"{method} /crl/{COMPLETE} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() * 50
    most = 0
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.settimeout(0.1)
        until_s = time.monotonic() + 10
        while most < 200_000:
            assert time.monotonic() < until_s, "it was never let go"
            try:
                client.sendall(message)
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
            most = max(most, *service.unsent(), 0)
    assert most < 200_000
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("size", [LAST_BYTES_MAX + 150_000, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_a_crl_of_one_piece_that_nobody_takes_counts_as_aborted(service: Service, size: int) -> None:
    """It is not counted as given while all but its last bytes still lie with us."""
    service.publish(COMPLETE, FILE, b"x" * size)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.sendall(f"GET /crl/{COMPLETE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(lambda: service.counted() != {})
    assert service.counted() == {"CRL_ABORTED": 1}


def test_many_first_readers_hash_a_file_once_and_all_get_it(service: Service) -> None:
    """Requests that come while a file is being hashed wait for the one hash."""
    bodies: list[bytes] = []
    readers = [threading.Thread(target=lambda: bodies.append(service.ask(COMPLETE)[1])) for _ in range(16)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(20)
    assert bodies == [CONTENT] * 16
    assert service.counted() == {"CRL_COMPLETE": 16}


def test_entitlement_lost_during_a_transfer_ends_it(service: Service) -> None:
    """The last bytes go out only to who is still entitled then."""
    content = b"x" * (64 * CHUNK_BYTES)
    service.publish(COMPLETE, FILE, content)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", service.port))
    client.sendall(f"GET /crl/{COMPLETE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    received = len(client.recv(1000))
    standing = service.follower.standing
    issuers = [served.issuer for served in standing.access.by_id.values()]
    service.follower.standing = replace(standing, access=Access(Entitlements(2, [], NOW_S), issuers))
    try:
        while piece := client.recv(1 << 20):
            received += len(piece)
    except ConnectionResetError:
        pass
    client.close()
    assert received < len(content)
    assert "CRL_COMPLETE" not in service.counted()


def test_those_who_fetch_at_once_share_the_turns_of_the_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning, and every piece: what all of them together would do in one turn is spread over many."""
    paced: list[int] = []
    wait = service.files._pace.wait

    async def counted() -> None:
        paced.append(1)
        await wait()

    monkeypatch.setattr(service.files._pace, "wait", counted)
    readers = 30
    with ThreadPoolExecutor(readers) as pool:
        answers = list(pool.map(lambda _: service.ask(COMPLETE), range(readers)))
    assert all(body == CONTENT for _, body in answers)
    # Four whole pieces less what the last one is kept for, and the last one: five.
    assert len(paced) == readers * (1 + 5)
    assert service.counted() == {"CRL_COMPLETE": readers}
