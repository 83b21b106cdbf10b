"""A connection's octets, cut anywhere: the fast lane answers what aiohttp alone answers.

Input: what the client sends, then a place to cut at every two octets, and a last octet that says how many
places there are and whether the client is slow to read or closes its side at the end.  The same
octets go to a lane in these pieces, and line by line to a connection that has aiohttp's side only.
Real answer path, lane and application on a loop whose time is ours.

Oracles: both say the same, but for the exceptions in ``is_excused``; nothing is said after an answer that
closes; every answer is whole and its ETag is that of its body; nothing is answered internalError;
whatever was sent, the connection is closed in the end.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import hashlib
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from virtual_loop import MemoryTransport, VirtualLoop

from certstatus import oid
from certstatus.cert_id import encode_cert_id, issuer_hashes
from certstatus.changes import NO_REASON, Change, ChangeKind, fingerprint
from certstatus.der import SEQUENCE, check_element, expect, explicit, octet_string, sequence
from certstatus.entitlements import KINDS, Verifier, entitlements_content, parse_network, read_entitlements
from certstatus.extension import encode_extension
from certstatus.index import View
from certstatus.issuer_table import Issuer
from responder.answer import AnswerPath, Limits
from responder.app import Application
from responder.asker import Askers
from responder.ca_certificates import CACertificates
from responder.counting import Counting
from responder.crl_files import CRLFiles
from responder.keys import HostKeys
from responder.lane import Lane, LaneLimits, Lanes
from responder.signing import SigningDesk
from responder.standing import Access, Standing, nothing_believed

NOW_S = 1_900_000_000
_INDEX_KEY = bytes(range(32))
_DAY_S = 86_400
LIMITS = LaneLimits(
    request_bytes_max=256,
    header_bytes_max=1024,
    connections_max=16,
    header_time_s=10,
    body_time_s=10,
    idle_time_s=75,
    write_time_s=30,
)
_PRINTABLE = bytes(range(0x20, 0x7F))
# Longer than every deadline there is, one after the other.
_PATIENCE_S = (1.0, 11.0, 11.0, 80.0, 80.0, 80.0)

WORDS = (
    *(b"GET /ocsp/", b"POST /ocsp HTTP/1.1\r\n", b"HEAD ", b"OPTIONS * ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"),
    *(b"\r\n\r\n", b"\r\n", b"\n", b"Host: x\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"1\r\n0\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: h2c\r\n",
    ),
    *(b"If-None-Match: *\r\n", b"Content-Type: text/plain\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
    *(b"GET /crl/x HTTP/1.1\r\nHost: x\r\n\r\n", b"%2F", b"?", b"\x00", b"\xff", b"http://x"),
)


class _Ground:
    """What a follower gives: a standing that never ages."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.settled = threading.Lock()


class DelegatedLane(Lane):
    """A lane to which nothing is plain: what aiohttp alone would answer."""

    def data_received(self, data: bytes) -> None:
        if self._is_idle:
            self._give_away(data, self._host.monotonic_s())
        else:
            super().data_received(data)


class World:
    """A worker's answering half on *loop*, whose clocks stand still but for *monotonic_s*, the lanes'."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: LaneLimits, monotonic_s: Callable[[], float]
    ) -> None:
        # Not a random key: what the corpus asks about must be ours every time.
        self.key = ec.derive_private_key(0x5EED, ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TEST CA")])
        self.spki_der = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.hashes = issuer_hashes(self.name.public_bytes(), self.spki_der)
        folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        atexit.register(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "counters").mkdir()
        (self.folder / "crl").mkdir()
        self._install_signer()
        ground = _Ground(self._standing())
        counting = Counting(self.folder / "counters", "h", 0, 64)
        atexit.register(counting.close)
        self._tick_s = 0.0
        desk = SigningDesk(loop, 100, 2000, 1, self._ticking)
        self.path = AnswerPath(
            ground,
            HostKeys(self.folder).load(),
            Askers(counting),
            desk,
            _INDEX_KEY,
            Limits(3, 1 << 20),
            self._now_ms,
        )
        crl_files = CRLFiles(
            self.folder / "crl", ground, Askers(counting, "crl"), 30, self._now_ms, monotonic_s
        )
        application = Application(
            self.path,
            limits,
            lambda: True,
            crl_files.serve,
            CACertificates(ground, self._now_ms).serve,
            self._now_ms,
            monotonic_s,
        )
        server = application.make_server(loop)
        self.lanes = Lanes(self.path, limits, server.for_lane, self._now_ms, monotonic_s)

    def _now_ms(self) -> int:
        return NOW_S * 1000

    def _ticking(self) -> float:
        """A clock by which every third signature finds the turn's time spent, and waits in line."""
        self._tick_s += 0.0004
        return self._tick_s

    def _certificate(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(0x1234)
            .not_valid_before(datetime.fromtimestamp(NOW_S - 30 * _DAY_S, UTC))
            .not_valid_after(datetime.fromtimestamp(NOW_S + 30 * _DAY_S, UTC))
        )

    def _install_signer(self) -> None:
        key = ec.derive_private_key(0x0C5B, ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "OCSP responder")])
        certificate = (
            self._certificate(subject, key.public_key())
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
            .add_extension(x509.OCSPNoCheck(), False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / "keys" / "1-1234.key"
        path.parent.mkdir()
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        path.chmod(0o600)
        path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / "host.toml").write_text('name = "h"\n')

    def _standing(self) -> Standing:
        certificate = (
            self._certificate(self.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(True, 0), True)
            .sign(self.key, hashes.SHA256())
        )
        issuer = Issuer(
            issuer_id=1,
            service="SIGN",
            generation=1,
            names_der=(self.name.public_bytes(),),
            spki_der=self.spki_der,
            key_id=hashlib.sha1(self.spki_der).digest(),
            certificates_der=(certificate.public_bytes(serialization.Encoding.DER),),
        )
        grants: dict[str, tuple[str, ...]] = {"SIGN": KINDS}
        verifier = Verifier(7, "verifier", (parse_network("127.0.0.0/8"),), grants, None, None)
        view = View(None)
        for seq, (kind, reason, serial) in enumerate(
            (
                (ChangeKind.ISSUED, NO_REASON, b"\x01"),
                (ChangeKind.ISSUED, NO_REASON, b"\x02"),
                (ChangeKind.REVOKED, 1, b"\x02"),
            ),
            1,
        ):
            mark = fingerprint(serial, _INDEX_KEY)
            view.apply(Change(kind, reason, 1, 40_000, mark, 0, (NOW_S - 100) * 1000, seq))
        return replace(
            nothing_believed(),
            epoch=b"e" * 16,
            seq=3,
            time_ms=NOW_S * 1000,
            mark=1,
            era=1,
            view=view,
            access=Access(read_entitlements(entitlements_content(1, [verifier]), NOW_S), [issuer]),
            fresh_until_s=float("inf"),
            wall_from_ms=0,
            wall_until_ms=1 << 60,
        )

    def request(self, *serials: bytes, nonce: bytes | None = None, alg: int = 1) -> bytes:
        """An OCSPRequest for these serial numbers."""
        both = self.hashes[alg]
        half = len(both) // 2
        asks = [sequence(encode_cert_id(alg, both[:half], both[half:], serial)) for serial in serials]
        parts = [sequence(*asks)]
        if nonce is not None:
            extension = encode_extension(oid.OCSP_NONCE, octet_string(nonce))
            parts.append(explicit(2, sequence(extension)))
        return sequence(sequence(*parts))


class _VirtualWorld(World):
    """The same on a loop whose time is ours."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        atexit.register(self.loop.close)
        super().__init__(self.loop, LIMITS, self.loop.time)


@cache
def _world() -> _VirtualWorld:
    return _VirtualWorld()


def seeds() -> Iterator[tuple[str, bytes]]:
    """Conversations of every kind, some cut and some not."""
    world = _world()
    der = world.request(b"\x01")
    text = quote(base64.b64encode(der), safe="").encode()
    length = b"Content-Length: %d\r\n" % len(der)

    def get(target: bytes, lines: bytes = b"Host: x\r\n", method: bytes = b"GET") -> bytes:
        return method + b" " + target + b" HTTP/1.1\r\n" + lines + b"\r\n"

    def post(lines: bytes, body: bytes) -> bytes:
        return b"POST /ocsp HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n" + body

    good = get(b"/ocsp/" + text)
    chunks = b"10\r\n" + der[:16] + b"\r\n%x\r\n" % (len(der) - 16) + der[16:] + b"\r\n0\r\n\r\n"
    # The end of a chunked body, inside of a chunk; and a next head that is as long as it may be.
    looks_last = b"A\r\n0\r\n\r\n" + b"B" * 200
    looks_last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(looks_last), looks_last)
    long_health = get(b"/healthz", b"Host: x\r\nX: " + b"a" * 900 + b"\r\n")
    posted = post(length, der)
    health = get(b"/healthz")
    streams = {
        "get": good,
        "get-raw": get(b"/ocsp/" + base64.b64encode(der)),
        "get-10": good.replace(b"1.1", b"1.0"),
        "get-close": good.replace(b"Host", b"Connection: close\r\nHost"),
        "get-twice": good + good,
        "get-if-none-match": good.replace(b"Host", b"If-None-Match: *\r\nHost"),
        "head": get(b"/ocsp/" + text, method=b"HEAD"),
        "post": posted,
        "post-revoked": post(length, world.request(b"\x02")),
        "post-unknown": post(length, world.request(b"\x03")),
        "post-sha256": post(b"Content-Length: %d\r\n" % len(world.request(b"\x01", alg=2)), b"")
        + world.request(b"\x01", alg=2),
        "post-nonce": post(b"Content-Length: %d\r\n" % len(world.request(b"\x01", nonce=b"n" * 16)), b"")
        + world.request(b"\x01", nonce=b"n" * 16),
        "post-two": post(b"Content-Length: %d\r\n" % len(world.request(b"\x01", b"\x02")), b"")
        + world.request(b"\x01", b"\x02"),
        "post-chunked": post(b"Transfer-Encoding: chunked\r\n", chunks),
        "post-looks-last": post(b"Transfer-Encoding: chunked\r\n", looks_last) + long_health,
        "post-expect": post(length + b"Expect: 100-continue\r\n", der),
        "post-too-long": post(b"Content-Length: 300\r\n", bytes(300)),
        "post-garbage": post(b"Content-Length: 5\r\n", b"hello") + good,
        "post-type": post(b"Content-Type: text/plain\r\nContent-Length: 2\r\n", b"0\x00") + health,
        "pipelined": good + posted + health + good,
        "chunked-and-get": post(b"Transfer-Encoding: chunked\r\n", chunks) + good,
        "get-and-garbage": good + health + b"\x16\x03\x01",
        "partial-head": good[:40],
        "partial-body": posted[:-10],
        "partial-other": health[:20],
        "crl": get(b"/crl/sign/g1/all/complete.crl") + good,
        "other": get(b"/other") + get(b"/", method=b"PUT") + good,
        "upgrade": get(b"/ocsp/" + text, b"Host: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n") + good,
        "http-09": b"GET /ocsp/" + text + b"\r\n\r\n",
        "long-head": get(b"/ocsp/" + text, b"Host: x\r\nX: " + b"a" * 1100 + b"\r\n"),
        "long-target": get(b"/ocsp/" + b"A" * 1100),
        "both-lengths": post(length + b"Transfer-Encoding: chunked\r\n", chunks),
        "bad-host": get(b"/ocsp/" + text, b"Host: x y\r\n"),
    }
    for name, stream in streams.items():
        yield name, stream + b"\x01"
        middle = len(stream) // 2
        yield f"{name}-cut", stream + (middle | 0x8000).to_bytes(2, "big") + b"\x00\x09" + b"\x26"


class Plan(NamedTuple):
    """How octets are sent: piece by piece, and whether all is read and answered before each next one."""

    pieces: list[tuple[bytes, bool]]
    is_slow: bool
    ends: bool


def read_plan(data: bytes) -> Plan:
    flags = data[-1] if data else 0
    stream = data[:-1]
    places: dict[int, bool] = {}
    for _ in range(flags >> 4):
        if len(stream) < 2:
            break
        place, stream = int.from_bytes(stream[-2:], "big"), stream[:-2]
        places[place & 0x7FFF] = bool(place & 0x8000)
    cuts = sorted(place for place in places if 0 < place < len(stream))
    pieces = [
        (stream[start:stop], places.get(stop, True))
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    return Plan(pieces, bool(flags & 1), bool(flags & 2))


class Said(NamedTuple):
    """What a conversation came to: answers before and after waiting, and how it stood when all was sent.

    is_broken_off   whether it was ended before it had been idle for long
    """

    answers: list[bytes]
    later: list[bytes]
    is_closed: bool
    waits_for_head: bool
    is_broken_off: bool


def one_input(data: bytes) -> None:
    """Hold the conversation both ways."""
    world = _world()
    plan = read_plan(data)
    stream = b"".join(piece for piece, _ in plan.pieces)
    found = _converse(world, Lane(world.lanes), plan)
    for pieces in (lines(stream), _octets(stream)):
        alone = _converse(world, DelegatedLane(world.lanes), Plan(pieces, False, plan.ends))
        if found.answers == alone.answers and found.is_closed == alone.is_closed:
            break
    else:
        assert is_excused(found, alone), f"\n{shown(found)}\n{shown(alone)}"
    assert world.path.outcomes.get("internal_error", 0) == 0
    assert not world.loop.complaints, world.loop.complaints


def lines(stream: bytes) -> list[tuple[bytes, bool]]:
    """Cut after every line, and at every octet of what does not look like a line of a head."""
    pieces: list[tuple[bytes, bool]] = []
    for line in stream.splitlines(keepends=True):
        pieces += _octets(line) if line.rstrip().translate(None, _PRINTABLE) else [(line, False)]
    return pieces


def _octets(stream: bytes) -> list[tuple[bytes, bool]]:
    """Cut everywhere: so aiohttp never has anything behind the message it is reading."""
    return [(stream[at : at + 1], False) for at in range(len(stream))]


def is_excused(found: Said, alone: Said) -> bool:
    """Say whether the two may differ as they do: in the word on what is wrong, never in an answer.

    aiohttp drops what is whole when what follows it in the same piece is in error; the lane keeps that
    from the first message of a piece only.  A head that is too long for its target alone is just too
    long when it comes in pieces, and one that is in error as well may be refused for either.  The lane
    waits for the end of a head that may become plain, where aiohttp may know better already.
    """
    said, refused = _parted(found)
    expected, refused_alone = _parted(alone)
    every = alone.answers + alone.later
    if found.answers + found.later == every:
        # What is left of a body is waited for a moment, unless it is known by then to be in error.
        return found.is_broken_off and alone.is_broken_off
    if found.waits_for_head and every[: len(said)] == said:
        more = every[len(said) :]
        if not more or (len(more) == 1 and _closes(more[0]) and _status(more[0]) >= 400):
            return True
    if said == expected and refused and refused_alone:
        last = {_status(item.later[-1] if item.later else item.answers[-1]) for item in (found, alone)}
        return len(last) == 1 or 408 not in last
    return refused and every[: len(said)] == said and alone.is_broken_off


def _parted(said: Said) -> tuple[list[bytes], bool]:
    """Return the answers before a last word that the connection ends because of what was sent, if any."""
    every = said.answers + said.later
    if every and _status(every[-1]) in (400, 408, 414, 431) and _closes(every[-1]):
        return every[:-1], True
    return every, False


def _closes(answer: bytes) -> bool:
    return b"\r\nConnection: close" in answer.partition(b"\r\n\r\n")[0]


def shown(said: Said) -> str:
    return repr([[item[9:12], len(item)] for item in said.answers + said.later]) + repr(said[2:])


def _converse(world: _VirtualWorld, lane: Lane, plan: Plan) -> Said:
    loop = world.loop
    transport = MemoryTransport(loop, lane, 1 if plan.is_slow else None)
    lane.connection_made(transport)
    for piece, waits in plan.pieces:
        transport.feed(piece)
        if waits:
            _settle(loop, transport)
    _settle(loop, transport)
    waits_for_head = lane._doing == "head"
    if plan.ends:
        transport.end()
        _settle(loop, transport)
    is_closed = transport.is_closed
    answers = read_answers(bytes(transport.written))
    began_s = loop.now_s
    for seconds in _PATIENCE_S:
        if transport.is_closed:
            break
        loop.pass_s(seconds)
        world.lanes.sweep()
        _settle(loop, transport)
    assert transport.is_closed
    assert lane not in world.lanes.connections
    every = read_answers(bytes(transport.written))
    # Whoever is closed on without having asked is told why, or nothing.
    assert all(_status(item) == 408 for item in every[len(answers) :])
    for item in every[:-1]:
        assert not _closes(item)
    is_broken_off = loop.now_s - began_s < LIMITS.idle_time_s
    return Said(answers, every[len(answers) :], is_closed, waits_for_head, is_broken_off)


def _settle(loop: VirtualLoop, transport: MemoryTransport) -> None:
    """Run what can run, the client reading what is there each time."""
    loop.settle()
    while transport.get_write_buffer_size():
        transport.read()
        loop.settle()


_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")
_VARIES = re.compile(rb"\r\n(?:Date: [^\r]*|ETag: [^\r]*|Content-Length: [^\r]*)|max-age=\d+")


def read_answers(written: bytes) -> list[bytes]:
    """Return the answers in *written*, without what differs from one signature or second to the next."""
    answers = []
    while written:
        head, end, rest = written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), head
        assert end
        found = _LENGTH.search(head)
        size = int(found[1]) if found else 0
        # HEAD is answered without a body; ours never begin like a head.
        if not rest or rest.startswith(b"HTTP/1.1 "):
            size = 0
        assert len(rest) >= size, (head, rest)
        body, written = rest[:size], rest[size:]
        assert found is not None or head[9:12] in (b"304", b"100"), head
        if b"\r\nContent-Type: application/ocsp-response" not in head:
            answers.append(head + end + body)
            continue
        if b"\r\nETag: " in head and body:
            assert b'ETag: "%b"' % hashlib.sha256(body).hexdigest().encode() in head
        answers.append(_VARIES.sub(b"", head) + end + _unsigned(body))
    return [re.sub(rb"\r\nDate: [^\r]*", b"", answer) for answer in answers]


def _unsigned(body: bytes) -> bytes:
    """Return an OCSP response up to its signature, which is another each time."""
    if len(body) <= 5:
        return body
    basic = body.index(b"\x04\x82") + 4
    start, _ = expect(body, basic, len(body), SEQUENCE)
    return body[start : check_element(body, start, len(body))]


def _status(answer: bytes) -> int:
    return int(answer[9:12])
