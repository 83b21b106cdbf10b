"""The terms of an answer: what all that is answered for one issuer within one second has in common.

Who signs, as of when it was known, until when it may be valid, and all octets of an answer that
do not depend on the certificate.  Made once a second for each issuer, and looked up by each answer.
Knows: how a signer is chosen, and which span an issuer's statuses have.
Does not know: what is said of a certificate (``status``), kept answers, signatures.
Source: RFC 6960 §4.2.2.2 (delegates), §4.4.7.2 (choice of the algorithm).
"""

from __future__ import annotations

from typing import NamedTuple

from certstatus.errors import NotAuthoritative, SignerUnavailable, StaleForeignCRL
from certstatus.ocsp_request import OCSPRequest
from certstatus.ocsp_response import GOOD_DER, ResponseDataFrame, encode_response_start, encode_updates
from responder.keys import Signer, SignerSet
from responder.standing import Access, ServedIssuer, Standing
from responder.status import Moment

_FOR_EVER_S = 1 << 62


class Terms(NamedTuple):
    """What all answers share that one signer gives for one issuer out of one standing within one second.

    until_s         POSIX second beyond which none of them may be valid
    start_der       how each ResponseData begins
    good_until_s    nextUpdate of a plain ``good``, POSIX seconds
    good            ResponseData about one certificate that is ``good`` and of which nothing more is said
    """

    signers: SignerSet
    served: ServedIssuer
    signer: Signer
    moment: Moment
    this_update_s: int
    until_s: int
    start_der: bytes
    good_until_s: int
    good: ResponseDataFrame


class TermsOfIssuers:
    """The present terms of every issuer that is asked about; used by the event loop's thread only."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[int, Terms] = {}

    def of(
        self, request: OCSPRequest, issuer_id: int, signers: SignerSet, standing: Standing, now_s: int
    ) -> Terms:
        """Return the terms on which *request* is answered out of *standing* at *now_s*.

        Raises: NotAuthoritative, SignerUnavailable, StaleForeignCRL.
        Cost:   0.3 µs, 8 µs for the first of a second.
        """
        terms = self._of.get(issuer_id)
        if (
            terms is not None
            and terms.moment.standing is standing
            and terms.moment.now_s == now_s
            and terms.signers is signers
            and request.preferred is None
        ):
            return terms
        served = standing.access.by_id.get(issuer_id)
        if served is None:
            raise NotAuthoritative(f"issuer {issuer_id} is gone")
        terms = _make(request, served, signers, standing, now_s)
        if request.preferred is None:
            self._of[issuer_id] = terms
        return terms

    def let_go(self, standing: Standing) -> None:
        """Forget what was made out of another standing than *standing*, whose index it would keep mapped."""
        for issuer_id, terms in list(self._of.items()):
            if terms.moment.standing is not standing:
                del self._of[issuer_id]


def issuer_of(request: OCSPRequest, access: Access) -> ServedIssuer:
    """Return the one issuer of all certificates asked about.

    One answer has one signer, and a CA's delegate may speak for no other CA (RFC 6960 §4.2.2.2).
    Raises: NotAuthoritative — none of ours, or more than one.
    """
    by_hash = access.by_hash
    cert_ids = request.cert_ids
    served = by_hash.get(cert_ids[0].issuer_hash)
    if served is None:
        raise NotAuthoritative("an issuer we do not answer for")
    for cert_id in cert_ids[1:]:
        if by_hash.get(cert_id.issuer_hash) is not served:
            raise NotAuthoritative("certificates of several issuers in one request")
    return served


def _make(
    request: OCSPRequest, served: ServedIssuer, signers: SignerSet, standing: Standing, now_s: int
) -> Terms:
    signer = _choose_signer(request, served, signers, now_s)
    this_update_s, until_s = _known_span(served, standing, now_s)
    until_s = min(until_s, signer.not_after_s)
    produced_at_s = max(now_s, this_update_s)
    start_der = encode_response_start(signer.responder_key_hash, produced_at_s)
    good_until_s = min(standing.time_ms // 1000 + served.issuer.validity_good_s, until_s)
    return Terms(
        signers=signers,
        served=served,
        signer=signer,
        moment=Moment(now_s, produced_at_s, standing, {}),
        this_update_s=this_update_s,
        until_s=until_s,
        start_der=start_der,
        good_until_s=good_until_s,
        good=ResponseDataFrame(start_der, GOOD_DER, encode_updates(this_update_s, good_until_s)),
    )


def _choose_signer(request: OCSPRequest, served: ServedIssuer, signers: SignerSet, now_s: int) -> Signer:
    """Return who signs: by the client's preference, if it has one; else, of those it would have to
    know, by what the CA itself signs its CRLs with; else by our default (RFC 6960 §4.4.7.2)."""
    issuer = served.issuer
    wanted = () if request.preferred is None else (*request.preferred, *served.crl_algorithms)
    signer = signers.current(issuer, now_s, wanted)
    if signer is None:
        raise SignerUnavailable(f"issuer {issuer.issuer_id}: no responder certificate is valid now")
    return signer


def _known_span(served: ServedIssuer, standing: Standing, now_s: int) -> tuple[int, int]:
    """Return when the issuer's statuses were last known to be right, and until when they may be given.

    What a CA revokes elsewhere is known as of its newest CRL and until that CRL's end.
    Raises: StaleForeignCRL — that is over.
    """
    known_s = standing.time_ms // 1000
    foreign_crl = served.issuer.foreign_crl
    if foreign_crl is None:
        return known_s, known_s + _FOR_EVER_S
    this_update_s, next_update_s = foreign_crl
    if now_s >= next_update_s:
        raise StaleForeignCRL(
            f"{served.issuer.path}: the newest CRL taken over ended {now_s - next_update_s} s ago"
        )
    return min(this_update_s, known_s), next_update_s
