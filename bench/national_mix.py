"""The national mix: what verifiers of a nation's service ask for, in stated shares.

The one place where the shares stand; load test, cost table and latencies take them from here.
Nobody has published how a national service's requests divide, so the shares are an assumption:
server software that keeps its connections makes most requests; of the twelve clients whose
requests were recorded seven open a connection for each (HTTP/1.0 or ``Connection: close``) and four
always send a nonce, but those are the ones that ask least often.
Which certificate: each of ``CERTIFICATES`` as likely as any other, because people use their cards
as often as one another.
Knows: shapes and shares.  Does not know: sending, measuring, which certificates there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.prepared import Form

CERTIFICATES = 10_000_000
REVOCATIONS_PER_S = 10.0


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of status request.

    share         its part of all requests, those for CRLs included, 0..1
    form          how it is asked
    certificates  how many in one request
    """

    name: str
    share: float
    form: Form
    certificates: int = 1


@dataclass(frozen=True, slots=True)
class Pull:
    """One kind of CRL request, always with the ETag of what the asker has.

    share  its part of all requests, 0..1
    kind   complete or delta
    """

    name: str
    share: float
    kind: str


STATUS_REQUESTS = (
    Shape("GET", 0.500, Form("GET")),
    Shape("POST", 0.250, Form("POST")),
    Shape("nonce", 0.100, Form("POST", nonce=True)),
    Shape("GET, HTTP/1.0", 0.060, Form("GET", version="1.0")),
    Shape("POST, HTTP/1.0, close", 0.060, Form("POST", version="1.0", close=True)),
    Shape("5 certificates", 0.027, Form("POST"), 5),
)
CRL_PULLS = (
    Pull("delta CRL", 0.002, "delta"),
    Pull("complete CRL", 0.001, "complete"),
)
