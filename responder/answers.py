"""What travels along the answer path: a request that has been read, its answer, and who waits for it.

Knows: by what an answer is known again, and what giving it again takes.
Does not know: the order of things (``answer``), or what is said of a certificate (``status``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from certstatus.errors import CertStatusError
from certstatus.ocsp_request import OCSPRequest, PreferredAlgorithm, encode_request
from responder import wire
from responder.keys import Signer
from responder.standing import ServedIssuer, Standing
from responder.status import Found

_ANSWER_BYTES = 900
# What an answer keeps for each further certificate.
_CERTIFICATE_BYTES = 600
# What its key keeps for each algorithm that is preferred, and for the two tuples around them.
_PREFERRED_BYTES = 120

# By what an answer is known again: octets of a request, or those and what it is to be signed with.
Key = bytes | tuple[bytes, tuple[PreferredAlgorithm, ...]]


class Query(NamedTuple):
    """A request that has been read: by what it is known again, what it asks of whom, and whether its answer
    may be others' as well."""

    key: Key
    request: OCSPRequest
    issuer_id: int
    cacheable: bool


def shared_key(request: OCSPRequest) -> Key:
    """Return what all requests have in common that may be given the same answer, however they are written.

    The octets of one that asks for nothing else.  Beside them what it prefers, never behind them: whatever
    octets there are, somebody can send them, and they are looked for before they are read.
    """
    der = encode_request(request.cert_ids)
    return der if request.preferred is None else (der, request.preferred)


def key_bytes(key: Key) -> int:
    """Return about how many bytes of memory a key takes."""
    if isinstance(key, bytes):
        return len(key)
    der, preferred = key
    return len(der) + _PREFERRED_BYTES * (1 + len(preferred))


class Answer:
    """What is said, from its draft on: to be signed, then kept with all that giving it again takes.

    served, certificates     what was looked up
    found                    what was found there
    seq, mark, era           of the standing under which it was last so
    issuer_id, kinds         where it is counted: one column for every certificate asked about
    signer, tbs              who is to sign what; tbs is let go once that is done
    refresh_s, expires_s     POSIX seconds: sign anew from here on; never give from here on
    start, etag, tag_end, middle   of the HTTP head, in whose gaps times go; all but the tag are shared
    own_der, signer_der      the OCSP response: what is its own, and the certificates that all of a signer
                             share; there once it is signed
    """

    __slots__ = (
        "certificates",
        "era",
        "etag",
        "expires_s",
        "found",
        "issuer_id",
        "kinds",
        "last_modified_s",
        "mark",
        "middle",
        "next_update_s",
        "own_der",
        "refresh_s",
        "seq",
        "served",
        "signer",
        "signer_der",
        "start",
        "tag_end",
        "tbs",
    )

    served: ServedIssuer
    signer: Signer
    tbs: bytes
    seq: int
    mark: int
    era: int
    certificates: tuple[bytes, ...]
    found: tuple[Found, ...]
    kinds: tuple[int, ...]
    issuer_id: int
    last_modified_s: int
    next_update_s: int
    refresh_s: int
    expires_s: int

    def signed(self, signature: bytes, standing: Standing) -> None:
        """Become a whole answer, found still to hold under *standing*."""
        frame = self.signer.frame
        own_der, signer_der = frame.start(self.tbs, signature), frame.end_der
        self.tbs = b""
        self.seq, self.mark, self.era = standing.seq, standing.mark, standing.era
        self.own_der, self.signer_der = own_der, signer_der
        self.etag = hashlib.sha256(own_der + signer_der).hexdigest().encode("ascii")
        self.start = wire.answer_start(len(own_der) + len(signer_der), self.last_modified_s)
        self.tag_end = wire.tag_end(self.next_update_s)
        self.middle = wire.PUBLIC if self.served.issuer.access == "public" else wire.PRIVATE

    @property
    def body(self) -> bytes:
        """The whole OCSP response."""
        return self.own_der + self.signer_der

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return len(self.own_der) + _ANSWER_BYTES + _CERTIFICATE_BYTES * (len(self.certificates) - 1)


class Flight:
    """An answer on its way, and everybody who waits for it.

    ``is_here``: it is signed in one of the loop's next turns, not on a thread.
    ``add``: what is called in the loop with the Answer, or with the error there is instead.
    """

    __slots__ = ("draft", "is_here", "query", "waiting")

    def __init__(self, query: Query, *, is_here: bool) -> None:
        self.query = query
        self.is_here = is_here
        self.draft: Answer | None = None
        self.waiting: list[Callable[[Answer | CertStatusError], None]] = []

    def add(self, deliver: Callable[[Answer | CertStatusError], None]) -> None:
        """Call *deliver* when the answer is there."""
        self.waiting.append(deliver)
