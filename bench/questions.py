"""What is asked on each path, about whom, and whether the answers are right.

Knows: preparing requests, checking some answers down to the signature and the nonce.
Does not know: sending many, measuring.
"""

from __future__ import annotations

import itertools
import random
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509 import ocsp

from bench.answers import error_of, said_of, verify
from bench.generator import Requests, write_requests
from bench.national_mix import Shape
from bench.population import Population
from bench.prepared import Preparer, issuer_part
from bench.revoked_meanwhile import RevokedMeanwhile
from bench.server import ask

_CHECKED = 3
# Without a common divisor with any count that is a product of 2 and 5.
_STRIDE = 2_654_435_761

Person = tuple[bytes, str]


class WrongAnswer(Exception):
    """An answer that is not the right one: nothing that is measured with it is worth anything."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: the request, whom it is about and what must be said, and whether it has a nonce.

    *issuer*: what stands before a serial number in its CertIDs.
    """

    http: bytes
    issuer: bytes
    people: Sequence[Person]
    nonce: bool


class Questions:
    """Requests of one or several *shapes* about people of *population*, for ever new ones."""

    def __init__(
        self, shapes: Sequence[Shape], population: Population, host: str, people: Iterator[Person]
    ) -> None:
        self.population = population
        self._shapes = shapes
        self._preparers = [Preparer(shape.form, population.ca, host) for shape in shapes]
        self._issuers = [issuer_part(population.ca, shape.form.hash_name) for shape in shapes]
        self._shares = [shape.share for shape in shapes]
        self._people = people
        self._chance = random.Random()

    def ask(self) -> Iterator[Asked]:
        """Yield questions until nobody is left to be asked about."""
        while True:
            for at in self._chance.choices(range(len(self._shapes)), self._shares, k=1000):
                shape = self._shapes[at]
                people = list(itertools.islice(self._people, shape.certificates))
                if len(people) < shape.certificates:
                    return
                http = self._preparers[at].http([serial for serial, _ in people])
                yield Asked(http, self._issuers[at], people, shape.form.nonce)

    def prepare(self, file: Path, count: int) -> Requests:
        """Write *count* requests to be sent once each.

        Raises: RuntimeError — there are not enough people left.
        """
        asked = list(itertools.islice(self.ask(), count))
        if len(asked) < count:
            raise RuntimeError("the population is too small to ask about each once")
        numbers = [len(item.people) for item in asked]
        return write_requests(file, (item.http for item in asked), certificates=numbers)

    def repeat(self, file: Path) -> Requests:
        """Write one request to be sent over and over."""
        return write_requests(file, [next(self.ask()).http], again=True)

    def differ(self, file: Path, count: int) -> Requests:
        """Write one request *count* times, each with another header, as so many clients would send it."""
        head, _, body = next(self.ask()).http.partition(b"\r\n\r\n")
        first = self._chance.getrandbits(48)
        return write_requests(
            file,
            (
                b"%b\r\nUser-Agent: verifier/%d\r\n\r\n%b" % (head, number, body)
                for number in range(first, first + count)
            ),
        )

    def check(
        self, port: int, tls: ssl.SSLContext | None = None, revoked: RevokedMeanwhile | None = None
    ) -> int:
        """Ask some questions and check the answers; return how many certificates they were about.

        *revoked*: what may be revoked by now, whatever the population says.
        Raises: WrongAnswer.
        """
        people = 0
        for asked in itertools.islice(self.ask(), _CHECKED):
            status, body = ask(port, asked.http, tls)
            if status != 200:
                raise WrongAnswer(f"HTTP {status}")
            check_answer(asked, body, self.population.ca, revoked or RevokedMeanwhile())
            people += len(asked.people)
        return people


def check_answer(asked: Asked, body: bytes, ca: x509.Certificate, revoked: RevokedMeanwhile) -> None:
    """Check statuses, signature and nonce of an answer.

    Raises: WrongAnswer.
    """
    for serial, expected in asked.people:
        found = error_of(body) or said_of(body, asked.issuer, serial).status
        if found != expected and not (found == "revoked" and revoked.may_be(serial)):
            raise WrongAnswer(f"{found} instead of {expected}")
    try:
        verify(body, ca)
    except ValueError as exc:
        raise WrongAnswer(str(exc)) from exc
    if asked.nonce:
        request = ocsp.load_der_ocsp_request(asked.http.partition(b"\r\n\r\n")[2])
        if _nonce(request.extensions) != _nonce(ocsp.load_der_ocsp_response(body).extensions):
            raise WrongAnswer("another nonce, or none")


def _nonce(extensions: x509.Extensions) -> bytes | None:
    try:
        return extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


def one(population: Population) -> Iterator[Person]:
    """Yield the same good person for ever."""
    numbers = range(len(population.members))
    person = next(found for found in map(population.members.member, numbers) if found[1] == "good")
    return itertools.repeat(person)


def each_once(population: Population) -> Iterator[Person]:
    """Yield everybody once, in an order that has nothing to do with who is revoked."""
    count, member = len(population.members), population.members.member
    begin = random.randrange(count)
    return (member((begin + number * _STRIDE) % count) for number in range(count))
