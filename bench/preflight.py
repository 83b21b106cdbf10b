"""One question before the load: is this the right responder, does it know us, does it know these people?

Whatever is wrong at the start is said in words, with what to do about it, instead of as a million failures.
Knows: what operators get wrong.  Does not know: scenarios.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from bench.answers import error_of, said_of, verify
from bench.population import REVOKED
from bench.prepared import Form, Preparer
from bench.raw_connection import BrokenAnswer, RawConnection
from bench.raw_user import SKEW, Target


class NotReady(Exception):
    """Why the run cannot begin, and what to do."""


def tls_context(ca_file: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return how to speak TLS.  Raises: NotReady — a file that is not what it should be."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as exc:
        raise NotReady(f"--ca-file {ca_file}: expected certificates in PEM: {exc}") from exc
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as exc:
            raise NotReady(
                f"--client-cert {certificate}: expected certificate and key in PEM (--client-key): {exc}"
            ) from exc
    return context


def check(target: Target, *, entitled: bool) -> None:
    """Ask about one certificate.

    entitled  whether answers are expected: False where only scenarios run that must be refused
    Raises: NotReady
    """
    with RawConnection(target.place) as connection:
        _check_status(target, connection, entitled)


def check_crls(target: Target) -> None:
    """Look whether each CRL is there.  Raises: NotReady."""
    with RawConnection(target.place) as connection:
        for path in target.crls:
            _check_crl(target, connection, path)


def _check_status(target: Target, connection: RawConnection, entitled: bool) -> None:
    place = target.place
    url = f"{'http' if place.tls is None else 'https'}://{place.host}:{place.port}{target.path}"
    preparer = Preparer(Form("POST"), target.population.ca, place.host_header, target.path)
    serial, expected = target.population.members.member(0)
    status, head, body = _ask(connection, preparer.http([serial]), url)
    error = error_of(body)
    who = place.source or "this machine"
    if not entitled:
        if status == 200 and error is None:
            raise NotReady(
                f"{url}: {who} is a registered verifier; NotEntitled must ask from an address that is not"
                " (--source ADDRESS)"
            )
        return
    if error == "unauthorized" or status == 403:
        raise NotReady(
            f"{url}: unauthorized.  Either {who} is not registered as a verifier of this service (on the"
            " issuance side: certstatus verifier add NAME --network ADDRESS --grant SERVICE), or the"
            " responder does not answer for this population's CA (ca.pem)"
        )
    if error == "tryLater":
        raise NotReady(f"{url}: tryLater: the responder is not ready; see its /readyz")
    if error is not None or status != 200:
        raise NotReady(
            f"{url}: {error or f'HTTP {status}'}: expected an OCSP answer; is that the OCSP path (--path)?"
        )
    said = said_of(body, preparer.issuer, serial)
    if not said.this_update:
        raise NotReady(f"{url}: {said.status}")
    try:
        verify(body, target.population.ca)
    except ValueError as exc:
        raise NotReady(f"{url}: not verified under the population's ca.pem: {exc}") from exc
    may_be = expected == "good" and said.status == REVOKED and target.revoked.may_be(serial)
    if said.status != expected and not may_be:
        raise NotReady(
            f"{url}: certificate {serial.hex()} is {said.status} there and {expected} in the population:"
            " revoked since then, or another installation's?  Write it anew"
        )
    _check_clock(head, url)


def _ask(connection: RawConnection, request: bytes, url: str) -> tuple[int, bytes, bytes]:
    try:
        return connection.ask(request)
    except ssl.SSLCertVerificationError as exc:
        raise NotReady(
            f"{url}: its certificate is not trusted ({exc.verify_message}); --ca-file FILE"
        ) from exc
    except ssl.SSLError as exc:
        raise NotReady(
            f"{url}: TLS failed ({exc.reason or exc}); is this the TLS port, and does it want a client"
            " certificate (--client-cert)?"
        ) from exc
    except OSError as exc:
        raise NotReady(f"{url}: {exc.strerror or exc}; is it running, and reachable from here?") from exc
    except BrokenAnswer as exc:
        raise NotReady(f"{url}: {exc}; is this an OCSP responder, and http or https as --host says?") from exc


def _check_clock(head: bytes, url: str) -> None:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"date:"):
            theirs = parsedate_to_datetime(line[5:].decode("ascii").strip())
            ahead = datetime.now(UTC) - theirs
            if abs(ahead) > SKEW:
                raise NotReady(
                    f"{url}: its clock and this machine's are {abs(ahead).total_seconds():.0f} s apart;"
                    " set them, or every answer's times will be found wrong"
                )


def _check_crl(target: Target, connection: RawConnection, path: str) -> None:
    request = f"HEAD {path} HTTP/1.1\r\nHost: {target.place.host_header}\r\nConnection: close\r\n\r\n"
    try:
        status, _, _ = connection.ask(request.encode("ascii"), head_only=True)
    except (OSError, BrokenAnswer) as exc:
        raise NotReady(f"{path}: {exc}") from exc
    if status == 404:
        raise NotReady(f"{path}: no such CRL there; name those that are: --crls 'PATH PATH'")
    if status != 200:
        raise NotReady(f"{path}: HTTP {status}: may this verifier have CRLs (--grant SERVICE:ocsp,crl)?")
