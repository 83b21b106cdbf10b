"""Where rows are measured: servers that run at the same time, and the measurements taken of them.

One station after the other; within one, all its measurements in turn, round by round.  The name of a
measurement says all about it: server, request, connections.
Knows: which servers a path needs, which requests each is sent.
Does not know: which rows are made of it (``table``).
"""

from __future__ import annotations

import http.client
import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.answers import said_of, verify
from bench.generator import Requests, Tls, write_requests
from bench.legs import (
    PER_S_REPEATED,
    PER_S_SIGNED,
    PER_S_SIGNED_SLOWLY,
    Bench,
    BesideLeg,
    Leg,
    LoadLeg,
    Make,
    MixLeg,
    PullsLeg,
    Replaced,
    SignatureLeg,
)
from bench.meanwhile import CRL_PATHS, Revocations, pull
from bench.national_mix import STATUS_REQUESTS, Shape
from bench.neighbour import INTERPRETER, MEMORY, Neighbour
from bench.openssl_responder import SERIAL, OpensslResponder
from bench.plain_aiohttp import PlainAiohttp
from bench.prepared import Form, Preparer, issuer_part
from bench.questions import Questions, WrongAnswer, each_once, one
from bench.server import Server, ask
from bench.subject import Processors, Setting, Subject
from bench.tally import Tally
from bench.tls_files import TlsFiles, make_tls_files
from bench.yardstick import Nginx

FEW, MANY = 64, 1000
# openssl ocsp has no more than one in hand.
ONE_AT_A_TIME = 8
FORMS = {
    "GET": Form("GET"),
    "POST": Form("POST"),
    "GET, HTTP/1.0": Form("GET", version="1.0"),
    "GET, Connection: close": Form("GET", close=True),
    "POST, HTTP/1.0, close": Form("POST", version="1.0", close=True),
}
# What nginx is asked where the subject is asked the shape of the mix: the same over HTTP.
TWINS = {"nonce": "POST", "5 certificates": "POST"}
REVOCABLE = 3000


class Legs(dict[str, Leg]):
    """The measurements of a station by name; ``response_bytes``: the body of the subject's answer."""

    response_bytes = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """What every station is given.

    certificates  how many the nation's index has
    others        how many any other has: each is asked about once, so they bound the number of rounds
    """

    bench: Bench
    processors: Processors
    certificates: int
    others: int = 500_000


class _Stand:
    """One subject, and the measurements that can be taken of it and of an nginx beside it."""

    def __init__(self, scene: Scene, subject: Subject, tally: Tally) -> None:
        self.scene = scene
        self.subject = subject
        self.body = _answer_of(subject)
        self.tally = tally
        self._once = each_once(subject.population)
        self.legs = Legs()
        self.legs.response_bytes = len(self.body)

    def _questions(self, form: Form) -> Questions:
        shape = Shape("", 1.0, form)
        return Questions([shape], self.subject.population, self.subject.host, one(self.subject.population))

    def file_server(self, stack: ExitStack) -> Nginx:
        """Start an nginx that hands out an answer of the subject."""
        folder = self.subject.state.with_name(f"{self.subject.state.name}-nginx")
        return stack.enter_context(Nginx(folder, self.body, self.scene.processors.server))

    def nginx_leg(self, nginx: Nginx, name: str, connections: int) -> None:
        """nginx, its file asked for."""
        questions = self._questions(FORMS[name])
        check = same_answer(nginx, next(questions.ask()).http, nginx.body)
        leg = LoadLeg(self.scene.bench, nginx, connections, repeating(questions), check)
        self.legs[f"nginx {name} {connections}"] = leg

    def repeated(self, name: str, connections: int) -> None:
        """The same request over and over."""
        questions = self._questions(FORMS[name])
        self._add_subject(f"repeated {name}", connections, repeating(questions), questions)

    def unseen(self, connections: int) -> None:
        """A known certificate, each request with another header."""
        questions = self._questions(FORMS["GET"])
        self._add_subject("unseen GET", connections, questions.differ, questions)

    def cold(self, shape: Shape, connections: int, per_s: float = PER_S_SIGNED) -> None:
        """Each certificate for the first time; *per_s*: more answers than can be expected."""
        questions = Questions([shape], self.subject.population, self.subject.host, self._once)
        per_s /= shape.certificates
        self._add_subject(f"cold {shape.name}", connections, questions.prepare, questions, per_s)

    def signature(self, algorithm: str) -> None:
        """One signature by OpenSSL, beside a generator that waits."""
        scene = self.scene
        self.legs[f"signature {algorithm}"] = SignatureLeg(scene.bench, algorithm, scene.processors.server)

    def _add_subject(
        self, name: str, connections: int, make: Make, questions: Questions, per_s: float = PER_S_REPEATED
    ) -> None:
        subject = self.subject

        def check() -> None:
            questions.check(subject.port)

        leg = LoadLeg(self.scene.bench, subject, connections, make, check, self.tally, per_s=per_s)
        self.legs[f"{name} {connections}"] = leg


def repeating(questions: Questions) -> Make:
    """Return what writes one question for all."""
    return lambda file, _count: questions.repeat(file)


def same_answer(
    server: Server, request: bytes, body: bytes, tls: ssl.SSLContext | None = None
) -> Callable[[], None]:
    """Return a check that *server* answers *request* with exactly *body*."""

    def check() -> None:
        if ask(server.port, request, tls) != (200, body):
            raise WrongAnswer(f"{server.name} does not answer what it was given")

    return check


def _answer_of(subject: Subject) -> bytes:
    """Return an answer of the subject, for others to hand out."""
    http = Preparer(FORMS["POST"], subject.population.ca, subject.host).http(
        [next(one(subject.population))[0]]
    )
    return ask(subject.port, http)[1]


def _stand(stack: ExitStack, scene: Scene, name: str, setting: Setting) -> _Stand:
    """Start a subject."""
    subject = stack.enter_context(Subject(scene.bench.folder / name, setting, scene.processors))
    return _Stand(scene, subject, stack.enter_context(closing(Tally(subject.counters))))


@contextmanager
def nation(scene: Scene) -> Iterator[Legs]:
    """All that is asked of a nation's index, with P-256, without TLS."""
    setting = Setting(scene.certificates, REVOCABLE)
    with ExitStack() as stack:
        stand = _stand(stack, scene, "nation", setting)
        subject, processors = stand.subject, scene.processors
        nginx = stand.file_server(stack)
        for name in FORMS:
            stand.nginx_leg(nginx, name, FEW)
            stand.repeated(name, FEW)
        stand.unseen(FEW)
        for name in ("GET", "POST", "GET, HTTP/1.0"):
            stand.nginx_leg(nginx, name, MANY)
            stand.repeated(name, MANY)
        stand.unseen(MANY)
        stand.signature("p256")
        for shape in STATUS_REQUESTS:
            stand.cold(shape, FEW)
        for shape in STATUS_REQUESTS:
            if shape.name in ("GET", "nonce"):
                stand.cold(shape, MANY)
        _pulls(stand)
        _mix(stand)
        aiohttp = PlainAiohttp(scene.bench.folder, stand.body, processors.server)
        questions = Questions(
            [Shape("", 1.0, FORMS["GET"])], subject.population, subject.host, one(subject.population)
        )
        check = same_answer(stack.enter_context(aiohttp), next(questions.ask()).http, stand.body)
        stand.legs[f"aiohttp GET {FEW}"] = LoadLeg(scene.bench, aiohttp, FEW, repeating(questions), check)
        yield stand.legs


def _pulls(stand: _Stand) -> None:
    """CRLs pulled by those that have them already."""
    subject = stand.subject
    requests: list[bytes] = []

    def learn() -> None:
        requests.clear()
        with closing(http.client.HTTPConnection("127.0.0.1", subject.port, timeout=30)) as connection:
            for kind, path in CRL_PATHS.items():
                _, etag = pull(connection, kind, "")
                head = f"GET {path} HTTP/1.1\r\nHost: {subject.host}\r\nIf-None-Match: {etag}\r\n\r\n"
                requests.append(head.encode("ascii"))

    def make(file: Path, _count: int) -> Requests:
        return write_requests(file, requests, again=True)

    def check() -> None:
        statuses = [ask(subject.port, request)[0] for request in requests]
        if 200 in statuses:
            raise Replaced
        if statuses != [304] * len(CRL_PATHS):
            raise WrongAnswer(f"CRLs that are there already: HTTP {statuses}")

    load = LoadLeg(stand.scene.bench, subject, FEW, make, check)
    stand.legs[f"CRL pulls {FEW}"] = PullsLeg(learn, load)


def _mix(stand: _Stand) -> None:
    subject, scene = stand.subject, stand.scene
    population = subject.population
    questions = Questions(STATUS_REQUESTS, population, subject.host, population.uniform(random.Random()))
    log = scene.bench.folder / "revoked.log"
    revocations = Revocations(
        subject.config, subject.service, subject.revocable, log, scene.processors.others
    )
    stand.legs[f"mix {FEW}"] = MixLeg(scene.bench, subject, FEW, questions, stand.tally, revocations)


def over_tls(ask_clients: bool) -> Callable[[Scene], AbstractContextManager[Legs]]:
    """Return the station of TLS, without or with certificates of the clients."""

    @contextmanager
    def station(scene: Scene) -> Iterator[Legs]:
        folder = scene.bench.folder / ("mtls" if ask_clients else "tls")
        folder.mkdir()
        files = make_tls_files(folder)
        keys: dict[str, str | int] = {
            "tls_certificate": str(files.server_certificate),
            "tls_key": str(files.server_key),
        }
        if ask_clients:
            keys["tls_client_ca"] = str(files.ca)
        with ExitStack() as stack:
            subject = stack.enter_context(
                Subject(folder / "state", Setting(responder=keys), scene.processors)
            )
            nginx = stack.enter_context(
                Nginx(folder / "nginx", _answer_of(subject), scene.processors.server, files, ask_clients)
            )
            tally = stack.enter_context(closing(Tally(subject.counters)))
            tls = Tls(files.client_certificate, files.client_key) if ask_clients else Tls()
            yield _tls_legs(scene, subject, nginx, tally, files, tls)

    return station


def _tls_legs(scene: Scene, subject: Subject, nginx: Nginx, tally: Tally, files: TlsFiles, tls: Tls) -> Legs:
    legs = Legs()
    legs.response_bytes = len(nginx.body)
    context = files.client_context(tls.certificate is not None)
    for name in ("GET", "POST"):
        questions = Questions(
            [Shape("", 1.0, FORMS[name])], subject.population, subject.host, one(subject.population)
        )
        make = repeating(questions)
        nginx_check = same_answer(nginx.tls, next(questions.ask()).http, nginx.body, context)

        def check(questions: Questions = questions) -> None:
            questions.check(subject.tls_port, context)

        for connections in (FEW, MANY):
            legs[f"nginx {name} {connections}"] = LoadLeg(
                scene.bench, nginx.tls, connections, make, nginx_check, tls=tls
            )
            legs[f"repeated {name} {connections}"] = LoadLeg(
                scene.bench, subject.tls, connections, make, check, tally, tls
            )
    return legs


def signed_by(algorithm: str) -> Callable[[Scene], AbstractContextManager[Legs]]:
    """Return the station of another kind of responder key."""

    @contextmanager
    def station(scene: Scene) -> Iterator[Legs]:
        with ExitStack() as stack:
            stand = _stand(stack, scene, algorithm, Setting(scene.others, responder={"key": algorithm}))
            nginx = stand.file_server(stack)
            stand.nginx_leg(nginx, "GET", FEW)
            stand.nginx_leg(nginx, "POST", FEW)
            stand.signature(algorithm)
            for shape in STATUS_REQUESTS:
                if shape.name in ("GET", "nonce"):
                    stand.cold(shape, FEW, PER_S_SIGNED_SLOWLY)
            yield stand.legs

    return station


@contextmanager
def two_workers(scene: Scene) -> Iterator[Legs]:
    """An installation with one worker and one with two, and strangers, on the same processor."""
    legs = Legs()
    with ExitStack() as stack:
        for workers, name in ((1, "one worker"), (2, "two workers")):
            # The one worker is asked by itself, and beside each of two strangers.
            certificates = scene.others * (3 if workers == 1 else 1)
            stand = _stand(stack, scene, f"workers-{workers}", Setting(certificates, workers=workers))
            for connections in (FEW, MANY):
                stand.repeated("GET", connections)
            stand.cold(STATUS_REQUESTS[0], FEW)
            legs.response_bytes = stand.legs.response_bytes
            legs.update({f"{name}, {leg}": found for leg, found in stand.legs.items()})
        alone = legs[f"one worker, cold GET {FEW}"]
        for kind in (MEMORY, INTERPRETER):
            legs[f"beside {kind}"] = BesideLeg(alone, Neighbour(kind, scene.processors.server))
        yield legs


@contextmanager
def beside_openssl(scene: Scene) -> Iterator[Legs]:
    """openssl ocsp, and a subject asked the same way."""
    with ExitStack() as stack:
        stand = _stand(stack, scene, "openssl", Setting(scene.others))
        shape = Shape("GET, HTTP/1.0", 1.0, FORMS["GET, HTTP/1.0"])
        stand.cold(shape, ONE_AT_A_TIME)
        server = stack.enter_context(
            OpensslResponder(scene.bench.folder / "openssl-files", scene.processors.server)
        )
        serial = SERIAL.to_bytes(8, "big")
        request = Preparer(shape.form, server.ca, f"127.0.0.1:{server.port}", "/").http([serial])

        def make(file: Path, _count: int) -> Requests:
            return write_requests(file, [request], again=True)

        def check() -> None:
            server.restart()
            status, body = ask(server.port, request)
            verify(body, server.ca)
            said = said_of(body, issuer_part(server.ca, shape.form.hash_name), serial)
            if (status, said.status) != (200, "good"):
                raise WrongAnswer("openssl ocsp does not answer good")

        stand.legs[f"openssl {ONE_AT_A_TIME}"] = LoadLeg(scene.bench, server, ONE_AT_A_TIME, make, check)
        yield stand.legs
