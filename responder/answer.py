"""The answer path: one request in, the bytes of one HTTP answer out, in this order and no other.

    step              where                 µs    allocates   fails as
    fresh?            Standing.is_fresh    0.1    no          tryLater
    who is asking     Asker                0.1    no          tryLater (cannot be counted)
    entitled?         Asker.rows           0.2    no          unauthorized
    seen verbatim?    repeat               0.9    the answer  next step
    known?            the second cache     0.3    no          next step
    parse             ocsp_request         2.9    yes         malformedRequest, unauthorized
    which issuer      Access.by_hash       0.4    no          unauthorized
    own signature?    NonceBudget          0.3    no          next step, or tryLater (nonces only)
    look up           status.look_up       2.9    yes         -
    say               status.say            10    yes         unauthorized, tryLater (no signer)
    sign              SigningDesk           27    yes         tryLater (queue full)
    look up again     under ``settled``    7.6    yes         sign again
    count             Asker.cells          0.1    no          tryLater (cannot be counted)
    write             wire                 1.0    the answer  -

(One core of a 2.x GHz Xeon, P-256, one certificate, everything warm.  ``repeat`` is all of fresh,
who, entitled, count and write for a request that is known.  A new address costs 8 µs once.
Through HTTP, per request: 6.4 µs repeated, 40 by way of aiohttp, about 110 to sign and keep.)

A request that was seen byte for byte goes through ``repeat``; whatever is not plainly in order
there is left to ``answer``, which asks every question from the top.
Knows: the order of things, times of an answer, caches, single-flight, refusals.
Does not know: what is said of a certificate (``status``), HTTP requests, sockets, Valkey.

Caches need no registry of who must be told of a change.  An answer carries the mark of the
standing under which it was last looked up; under another mark it is looked up again, in the
overlay (0.2 µs) or, when the era is another, in the whole index.  A worker acknowledges a
change only after the mark has moved, so no later request is given what was true before.
Source: RFC 6960 §2, §4; RFC 9919 §3.2, §6, §7; Act arts. 18, 37.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from threading import Lock
from typing import NamedTuple, Protocol

from certstatus import clock
from certstatus.cert_id import SHA1, CertID, encode_cert_id
from certstatus.changes import fingerprint
from certstatus.counters import Provision
from certstatus.errors import (
    MALFORMED_REQUEST,
    TRY_LATER,
    UNAUTHORIZED,
    CertStatusError,
    CountersUnavailable,
    NonceBudgetSpent,
    NotAuthoritative,
    NotEntitled,
    Overloaded,
    RequestError,
    SignerUnavailable,
    StaleForeignCRL,
    StaleIndex,
)
from certstatus.index import View
from certstatus.ocsp_request import (
    OCSPRequest,
    parse_request,
    read_usual_request,
)
from certstatus.ocsp_response import (
    encode_response_start,
    encode_updates,
    error_response,
    join_response_data,
    join_single_response,
)
from responder import wire
from responder.answers import Answer, Flight, Key, Query, key_bytes, shared_key
from responder.asker import Asker, Askers
from responder.cache import GenerationCache
from responder.keys import Signer, SignerSet
from responder.nonce_budget import NonceBudget
from responder.signing import SigningDesk, is_fast
from responder.standing import Access, ServedIssuer, Standing
from responder.status import Found, Moment, Status, look_up, say, watched

log = logging.getLogger(__name__)

# A status that changes this often within one request's signing is not this request's to catch.
_SIGNED_AGAIN_MAX = 5
# The refresh point lies this part of the validity after its half, at random: caches do not all come at once.
_JITTER = 0.1
_FOR_EVER_S = 1 << 62
# What a verifier gets beyond its budget for nonces; the other choice is tryLater.
IGNORE_NONCE = "ignore"
_MEMO_MESSAGE_MAX = 4096
_SEEN_MAX = 16_384
_RETRY_AFTER_S = {
    "stale": 5,
    "stale_foreign_crl": 300,
    "overloaded": 1,
    "nonce_budget": 1,
    "no_signer": 30,
    "no_counters": 10,
}
_REFUSALS = {
    UNAUTHORIZED: Provision.REFUSED_UNAUTHORIZED,
    TRY_LATER: Provision.REFUSED_TRY_LATER,
    MALFORMED_REQUEST: Provision.REFUSED_MALFORMED,
}


class Follows(Protocol):
    """What the path needs of the follower: the standing, and the lock under which it changes."""

    @property
    def standing(self) -> Standing: ...

    @property
    def settled(self) -> Lock: ...


class Peer(Protocol):
    """A connection: where it comes from, and who that was found to be.

    is_last   set when an answer says that the connection ends with it
    """

    address: str
    asker: Asker | None
    is_last: bool


class How(NamedTuple):
    """How an answer is to be written.

    message   the HTTP request, to be known byte for byte next time; None where it must not be
    """

    keep_alive: bool
    head_only: bool = False
    if_none_match: frozenset[bytes] | None = None
    message: bytes | None = None


class Limits(NamedTuple):
    """``[responder]`` of the configuration, as far as it concerns the answer path."""

    certificates_max: int
    cache_bytes_max: int
    nonce_signatures_per_s: int = 0
    nonce_beyond: str = IGNORE_NONCE


class _Terms(NamedTuple):
    """What all answers share that one signer gives for one issuer out of one standing within one second.

    until_s     POSIX second beyond which none of them may be valid
    start_der   how each ResponseData begins
    """

    signers: SignerSet
    served: ServedIssuer
    signer: Signer
    fast: bool
    moment: Moment
    this_update_s: int
    until_s: int
    start_der: bytes


class _Refusal(NamedTuple):
    head: bytes
    body: bytes


class AnswerPath:
    """One worker's answer path; used by the event loop's thread only."""

    def __init__(
        self,
        follower: Follows,
        signers: SignerSet,
        askers: Askers,
        desk: SigningDesk,
        index_key: bytes,
        limits: Limits,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        # Fixed.
        self._follower = follower
        self._askers = askers
        self._desk = desk
        self._index_key = index_key
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        # Swapped on reload.
        self.signers = signers
        self.limits = limits
        # Caches.
        half = limits.cache_bytes_max // 2
        self._memo: GenerationCache[bytes, tuple[Answer, bytes]] = GenerationCache(half)
        # Hashes of requests that may come again.
        self._seen: set[int] = set()
        self._answers: GenerationCache[Key, Answer] = GenerationCache(half)
        self._flights: dict[Key, Flight] = {}
        self._nonces = NonceBudget()
        self._terms_of: dict[int, _Terms] = {}
        self._refusals: dict[tuple[int, str], _Refusal] = {}
        self._date_s = -1
        self._date = b""
        # Counters.
        self.repeats = 0
        self.outcomes: dict[str, int] = {}

    # --- seen byte for byte --------------------------------------------------------------------------

    def repeat(self, peer: Peer, message: bytes, now_ms: int, monotonic_s: float) -> bytes | None:
        """Return what *message* is answered if it was seen before and nothing has changed; else None.

        Takes:   a whole HTTP request.
        Cost:    0.9 µs.
        """
        standing = self._follower.standing
        if monotonic_s >= standing.fresh_until_s or not (
            standing.wall_from_ms <= now_ms <= standing.wall_until_ms
        ):
            return None
        now_s = now_ms // 1000
        asker = peer.asker
        if asker is None:
            # A new connection, as most clients make for each request.
            asker = peer.asker = self._askers.met(peer.address)
        if asker is None or asker.access is not standing.access or now_s >= asker.until_s:
            return None
        seen = self._memo.young.get(message)
        if seen is None:
            seen = self._memo.recall(message)
            if seen is None:
                return None
        answer, end = seen
        row = asker.rows.get(answer.issuer_id)
        if row is None or now_s >= answer.refresh_s:
            return None
        if answer.mark != standing.mark and not self._is_still_true(answer, standing):
            return None
        cells = asker.cells
        for kind in answer.kinds:
            cells[row + kind] += 1
        self.repeats += 1
        if end is not wire.END:
            peer.is_last = True
        if now_s != self._date_s:
            self._date_s, self._date = now_s, wire.http_date(now_s)
        return b"".join(
            (answer.head, wire.seconds(answer.refresh_s - now_s), answer.middle, self._date, end, answer.body)
        )

    # --- the whole path ------------------------------------------------------------------------------

    def answer(
        self, peer: Peer, request_der: bytes, how: How, now_ms: int, monotonic_s: float
    ) -> bytes | Flight:
        """Return the HTTP answer to *request_der*, or the flight that will bring it.

        Whoever is given a flight adds itself, and calls ``provide`` with what it is brought.
        """
        now_s = now_ms // 1000
        standing = self._follower.standing
        issuer_id = 0
        try:
            asker = self._admit(peer, standing, now_ms, monotonic_s)
            answer = self._known(request_der, standing, now_s)
            if answer is not None:
                issuer_id = answer.issuer_id
                row = self._entitled_row(asker, issuer_id, standing, now_s)
                if now_s >= answer.refresh_s:
                    answer = self._refreshed(self._read(request_der, standing), answer, now_s)
                return self._give_again(asker, row, answer, how, now_s)
            query = self._read(request_der, standing)
            issuer_id = query.issuer_id
            row = self._entitled_row(asker, issuer_id, standing, now_s)
            # Written in another way than most write it, what is asked may be known all the same.
            answer = None if query.key == request_der else self._known(query.key, standing, now_s)
            if answer is not None:
                if now_s >= answer.refresh_s:
                    answer = self._refreshed(query, answer, now_s)
                return self._give_again(asker, row, answer, how, now_s)
            if query.request.cacheable or self._nonces.take(
                asker.verifier_id, self.limits.nonce_signatures_per_s, monotonic_s
            ):
                made = self._make(query, now_s)
            else:
                made = self._without_nonce(query, standing, now_s)
            if isinstance(made, Flight):
                return made
            # Signing takes its time, and releases the interpreter's lock: ask again who is asking.
            return self._give_made(peer, made, how)
        except CertStatusError as exc:
            return self._refuse(exc, peer, issuer_id, how, now_s)
        except Exception as exc:
            return self._broken(exc, how, now_s)

    def provide(self, peer: Peer, result: Answer | CertStatusError, how: How) -> bytes | None:
        """Return the HTTP answer for what a flight brought; None if it is outdated: ask again."""
        now_ms = self._now_ms()
        if isinstance(result, CertStatusError):
            return self._refuse(result, peer, 0, how, now_ms // 1000)
        standing = self._follower.standing
        if result.mark != standing.mark and not self._is_still_true(result, standing):
            return None
        try:
            return self._give_made(peer, result, how)
        except CertStatusError as exc:
            return self._refuse(exc, peer, result.issuer_id, how, now_ms // 1000)
        except Exception as exc:
            return self._broken(exc, how, now_ms // 1000)

    def refuse(self, peer: Peer, error: CertStatusError, how: How, now_s: int) -> bytes:
        """Return the HTTP answer that says *error* as an OCSP response, counted as a refusal."""
        return self._refuse(error, peer, 0, how, now_s)

    def limit(self, limits: Limits) -> None:
        """Go by other limits from here on; what was kept under the old ones is asked anew."""
        if limits.certificates_max < self.limits.certificates_max:
            self._memo = GenerationCache(self._memo.bytes_max)
            self._answers = GenerationCache(self._answers.bytes_max)
        self.limits = limits

    def let_go(self) -> None:
        """Forget what was made out of an index that is no longer served; called once a second."""
        standing = self._follower.standing
        for issuer_id, terms in list(self._terms_of.items()):
            if terms.moment.standing is not standing:
                del self._terms_of[issuer_id]

    # --- steps ---------------------------------------------------------------------------------------

    def _admit(self, peer: Peer, standing: Standing, now_ms: int, monotonic_s: float) -> Asker:
        """Fresh?  Who is asking?  Entitled to anything?"""
        if not standing.is_fresh(now_ms, monotonic_s):
            raise StaleIndex(f"the index stands at {standing.time_ms} ms; it is {now_ms} ms")
        now_s = now_ms // 1000
        asker = peer.asker
        if asker is None or asker.access is not standing.access or now_s >= asker.until_s:
            asker = self._askers.find(peer.address, standing, now_s)
            peer.asker = asker
        if not asker.entitled:
            raise NotEntitled("nobody who may ask")
        return asker

    def _read(self, request_der: bytes, standing: Standing) -> Query:
        """Parse, and find which issuer is asked about."""
        key: Key = request_der
        request = read_usual_request(request_der)
        is_usual = request is not None
        if request is None:
            request = parse_request(request_der, self.limits.certificates_max)
        issuer_id = _issuer_of(request, standing.access).issuer.issuer_id
        # Only now: a CertID by a hash function that is not served cannot be written, and has no issuer.
        if request.cacheable and not is_usual:
            key = shared_key(request)
        return Query(key, request, issuer_id)

    def _entitled_row(self, asker: Asker, issuer_id: int, standing: Standing, now_s: int) -> int:
        row = asker.rows.get(issuer_id)
        if row is None:
            row = self._askers.row(asker, issuer_id, standing, now_s)
        if row is None:
            raise NotEntitled(f"verifier {asker.verifier_id} may not ask about issuer {issuer_id}")
        return row

    def _known(self, key: Key, standing: Standing, now_s: int) -> Answer | None:
        """Return the answer that the same question was given before, if it still holds."""
        answer = self._answers.get(key)
        if answer is None or now_s >= answer.expires_s:
            return None
        if answer.mark != standing.mark and not self._is_still_true(answer, standing):
            return None
        return answer

    def _refreshed(self, query: Query, answer: Answer, now_s: int) -> Answer:
        """Return a newer answer if one can be made at once, else *answer*, and have one made."""
        try:
            made = self._make(query, now_s)
        except CertStatusError as exc:
            # The old one holds until it expires; until then there is time for what is missing to return.
            self._note(f"not refreshed: {exc.outcome}")
            return answer
        return answer if isinstance(made, Flight) else made

    def _without_nonce(self, query: Query, standing: Standing, now_s: int) -> Answer | Flight:
        """Return the answer that others share, for a verifier that has had its signatures for itself alone.

        Raises: NonceBudgetSpent — the policy is to have it wait.
        """
        if self.limits.nonce_beyond != IGNORE_NONCE:
            raise NonceBudgetSpent("more nonces and signed requests than one verifier may send")
        self._note("nonce_ignored")
        request = query.request._replace(nonce=None, signed=False)
        query = Query(shared_key(request), request, query.issuer_id)
        answer = self._known(query.key, standing, now_s)
        if answer is None:
            return self._make(query, now_s)
        return answer if now_s < answer.refresh_s else self._refreshed(query, answer, now_s)

    def _is_still_true(self, answer: Answer, standing: Standing) -> bool:
        """Say whether what *answer* says still holds under *standing*, and mark it so."""
        view = standing.view
        if answer.era == standing.era:
            overlay = view.overlay
            for watched_key in answer.watched:
                later = overlay.get(watched_key)
                if later is not None and later[1] > answer.seq:
                    return False
        else:
            served = standing.access.by_id.get(answer.issuer_id)
            # The issuer as a whole: its policy, other keys of its name, dropped responder certificates.
            if served is None or served != answer.served:
                return False
            for certificate, found in zip(answer.certificates, answer.found, strict=True):
                if look_up(view, served, certificate) != found:
                    return False
            answer.served = served
        answer.seq, answer.mark, answer.era = standing.seq, standing.mark, standing.era
        return True

    # --- signing -------------------------------------------------------------------------------------

    def _make(self, query: Query, now_s: int) -> Answer | Flight:
        """Sign now if the key is fast and there is time, else join or begin a flight."""
        standing = self._follower.standing
        fast = self._terms(query, standing, now_s).fast
        if fast and self._desk.has_time():
            return self._sign_here(query)
        cacheable = query.request.cacheable
        if cacheable:
            flight = self._flights.get(query.key)
            # One that has looked up already may be joined only if nothing has changed since.
            if flight is not None and (flight.draft is None or flight.draft.mark == standing.mark):
                return flight
        flight = Flight(query)
        if fast:
            self._desk.wait_in_line(lambda: self._fly_here(flight))
        else:
            self._fly_on_thread(flight)
        if cacheable:
            self._flights[query.key] = flight
        return flight

    def _sign_here(self, query: Query) -> Answer:
        for _ in range(_SIGNED_AGAIN_MAX):
            draft = self._draft(query)
            if self._finish(query, draft, self._desk.sign(draft.signer, draft.tbs)):
                return draft
        raise Overloaded("the status changed again and again while it was signed")

    def _fly_here(self, flight: Flight) -> None:
        try:
            self._land(flight, self._sign_here(flight.query))
        except CertStatusError as exc:
            self._land(flight, exc)
        except Exception as exc:
            self._crash(flight, exc)

    def _fly_on_thread(self, flight: Flight, attempts: int = _SIGNED_AGAIN_MAX) -> None:
        """Raises: Overloaded, SignerUnavailable, NotAuthoritative — the flight does not begin."""
        draft = self._draft(flight.query)

        def signed(signature: bytes | None) -> None:
            try:
                if signature is None:
                    raise SignerUnavailable(f"issuer {draft.issuer_id}: the key did not sign")
                if self._finish(flight.query, draft, signature):
                    self._land(flight, draft)
                elif attempts > 1:
                    self._fly_on_thread(flight, attempts - 1)
                else:
                    raise Overloaded("the status changed again and again while it was signed")
            except CertStatusError as exc:
                self._land(flight, exc)
            except Exception as exc:
                self._crash(flight, exc)

        self._desk.sign_on_thread(draft.signer, draft.tbs, signed)
        flight.draft = draft

    def _land(self, flight: Flight, result: Answer | CertStatusError) -> None:
        key = flight.query.key
        if self._flights.get(key) is flight:
            del self._flights[key]
        waiting, flight.waiting = flight.waiting, []
        for deliver in waiting:
            try:
                deliver(result)
            except Exception:
                # One connection's trouble must not keep the others waiting.
                log.exception("an answer could not be delivered")

    def _crash(self, flight: Flight, exc: Exception) -> None:
        log.error("signing for issuer %d", flight.query.issuer_id, exc_info=exc)
        self._land(flight, CertStatusError(type(exc).__name__))

    def _signer(self, request: OCSPRequest, served: ServedIssuer, now_s: int) -> Signer:
        """Return who signs: by the client's preference, if it has one; else, of those it would have to
        know, by what the CA itself signs its CRLs with; else by our default (RFC 6960 §4.4.7.2)."""
        issuer = served.issuer
        wanted = () if request.preferred is None else (*request.preferred, *served.crl_algorithms)
        signer = self.signers.current(issuer, now_s, wanted)
        if signer is None:
            raise SignerUnavailable(f"issuer {issuer.issuer_id}: no responder certificate is valid now")
        return signer

    def _terms(self, query: Query, standing: Standing, now_s: int) -> _Terms:
        """Return the terms on which *query* is answered out of *standing*; most second after second the same.

        Raises: NotAuthoritative, SignerUnavailable, StaleForeignCRL.
        """
        _, request, issuer_id = query
        terms = self._terms_of.get(issuer_id)
        if (
            terms is not None
            and terms.moment.standing is standing
            and terms.moment.now_s == now_s
            and terms.signers is self.signers
            and request.preferred is None
        ):
            return terms
        served = standing.access.by_id.get(issuer_id)
        if served is None:
            raise NotAuthoritative(f"issuer {issuer_id} is gone")
        signer = self._signer(request, served, now_s)
        this_update_s, until_s = _known_span(served, standing, now_s)
        produced_at_s = max(now_s, this_update_s)
        terms = _Terms(
            signers=self.signers,
            served=served,
            signer=signer,
            fast=is_fast(signer),
            moment=Moment(now_s, produced_at_s, standing),
            this_update_s=this_update_s,
            until_s=min(until_s, signer.not_after_s),
            start_der=encode_response_start(signer.responder_key_hash, produced_at_s),
        )
        if request.preferred is None:
            self._terms_of[issuer_id] = terms
        return terms

    def _draft(self, query: Query) -> Answer:
        """Look everything up and write what is to be signed."""
        _, request, issuer_id = query
        cert_ids = request.cert_ids
        now_s = self._now_ms() // 1000
        # Nearly every request asks about one; where it is written out for one, it costs 6 µs less in all.
        is_one = len(cert_ids) == 1
        certificates = (
            [fingerprint(cert_ids[0].serial, self._index_key)]
            if is_one
            else _fingerprints(cert_ids, self._index_key)
        )
        # The lock binds rows and time together: at thisUpdate the rows were exactly these.
        with self._follower.settled:
            standing = self._follower.standing
            terms = self._terms(query, standing, now_s)
            _, served, signer, _, moment, this_update_s, until_s, start_der = terms
            view = standing.view
            found = (
                [look_up(view, served, certificates[0])]
                if is_one
                else _look_up_all(view, served, certificates)
            )
        if is_one:
            statuses = [say(served, cert_ids[0].serial, found[0], moment)]
            _, kind, validity_s, expires_s, _, never_issued = statuses[0]
            kinds = [kind]
        else:
            statuses, kinds, validity_s, expires_s, never_issued = _say_all(served, cert_ids, found, moment)
        known_s = standing.time_ms // 1000
        next_update_s = min(known_s + validity_s, until_s)
        if next_update_s <= now_s:
            raise SignerUnavailable(f"issuer {issuer_id}: no answer can be valid beyond {next_update_s}")
        singles_der = _singles(request, served, statuses, encode_updates(this_update_s, next_update_s))
        draft = Answer()
        draft.tbs = join_response_data(start_der, singles_der, request.nonce, extended_revoke=never_issued)
        draft.served, draft.signer, draft.issuer_id = served, signer, issuer_id
        draft.seq, draft.mark, draft.era = standing.seq, standing.mark, standing.era
        draft.certificates, draft.found, draft.kinds = certificates, found, kinds
        draft.watched = watched(served, found, certificates)
        # RFC 9919 names producedAt in one place and thisUpdate in another; this is the later of the two.
        draft.last_modified_s, draft.next_update_s = moment.produced_at_s, next_update_s
        draft.expires_s = expires_s = min(next_update_s, expires_s)
        refresh_s = known_s + int(validity_s * (0.5 + _JITTER * random.random()))
        draft.refresh_s = min(refresh_s, expires_s)
        return draft

    def _finish(self, query: Query, draft: Answer, signature: bytes) -> bool:
        """Make *draft* an answer, kept for others if it may be; False if what it says holds no more."""
        signer = draft.signer
        body = signer.frame(draft.tbs, signature)
        with self._follower.settled:
            standing = self._follower.standing
            if standing.mark != draft.mark:
                view = standing.view
                served = standing.access.by_id.get(draft.issuer_id)
                if served is None or served != draft.served:
                    return False
                if draft.found != [look_up(view, served, item) for item in draft.certificates]:
                    return False
        if self._now_ms() // 1000 >= draft.expires_s:
            return False
        self._note("signed")
        draft.signed(body, standing)
        if query.request.cacheable:
            self._answers.put(query.key, draft, draft.size + key_bytes(query.key))
        return True

    # --- giving --------------------------------------------------------------------------------------

    def _give_made(self, peer: Peer, answer: Answer, how: How) -> bytes:
        """Give an answer that took time to make: fresh and entitled are asked again."""
        now_ms = self._now_ms()
        standing = self._follower.standing
        asker = self._admit(peer, standing, now_ms, self._monotonic_s())
        row = self._entitled_row(asker, answer.issuer_id, standing, now_ms // 1000)
        return self._give(asker, row, answer, how, now_ms // 1000)

    def _give_again(self, asker: Asker, row: int, answer: Answer, how: How, now_s: int) -> bytes:
        """Give an answer that others were given, and keep it for whoever asks it byte for byte."""
        self._note("cached")
        message = how.message
        if message is not None and len(message) <= _MEMO_MESSAGE_MAX:
            # Only what comes again byte for byte is worth a place, so first it is merely noted that it came.
            seen = hash(message)
            if seen in self._seen:
                end = wire.END if how.keep_alive else wire.CLOSE_END
                self._memo.put(message, (answer, end), len(message) + answer.size)
            elif len(self._seen) < _SEEN_MAX:
                self._seen.add(seen)
            else:
                self._seen = {seen}
        return self._give(asker, row, answer, how, now_s)

    def _give(self, asker: Asker, row: int, answer: Answer, how: How, now_s: int) -> bytes:
        """Count, then write."""
        cells = asker.cells
        end = wire.END if how.keep_alive else wire.CLOSE_END
        head, body = answer.head, answer.body
        if how.if_none_match is not None and _has_it(answer, how.if_none_match):
            cells[row + Provision.OCSP_NOT_MODIFIED] += 1
            head, body = answer.not_modified_head(), b""
        elif how.head_only:
            cells[row + Provision.OCSP_HEAD] += 1
            body = b""
        else:
            for kind in answer.kinds:
                cells[row + kind] += 1
        return b"".join(
            (head, wire.seconds(answer.refresh_s - now_s), answer.middle, wire.http_date(now_s), end, body)
        )

    # --- refusing ------------------------------------------------------------------------------------

    def _refuse(self, exc: CertStatusError, peer: Peer, issuer_id: int, how: How, now_s: int) -> bytes:
        """The one place where an error becomes an OCSP answer."""
        self._note(exc.outcome)
        if not isinstance(exc, RequestError) and exc.ocsp_status != TRY_LATER:
            log.error("internal error: %s", exc)
        standing = self._follower.standing
        kind = _REFUSALS.get(exc.ocsp_status)
        if kind is not None and standing.epoch:
            try:
                asker = self._askers.find(peer.address, standing, now_s)
                self._askers.refuse(asker, kind, issuer_id, standing, now_s)
            except CountersUnavailable:
                # A refusal gives nothing away, so it may go out uncounted.
                self._note(CountersUnavailable.outcome)
        return self._render_refusal(exc, how, now_s)

    def _broken(self, exc: Exception, how: How, now_s: int) -> bytes:
        """Anything outside our errors is a bug: internalError, and the log says where."""
        log.error("answering", exc_info=exc)
        self._note(CertStatusError.outcome)
        return self._render_refusal(CertStatusError(type(exc).__name__), how, now_s)

    def _render_refusal(self, exc: CertStatusError, how: How, now_s: int) -> bytes:
        key = (exc.ocsp_status, exc.outcome)
        refusal = self._refusals.get(key)
        if refusal is None:
            body = error_response(exc.ocsp_status)
            retry = _RETRY_AFTER_S.get(exc.outcome, 5) if exc.ocsp_status == TRY_LATER else None
            refusal = self._refusals[key] = _Refusal(wire.refusal_head(len(body), retry), body)
        end = wire.END if how.keep_alive else wire.CLOSE_END
        body = b"" if how.head_only else refusal.body
        return b"".join((refusal.head, wire.http_date(now_s), end, body))

    def _note(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def sizes(self) -> dict[str, int]:
        """Return entries and bytes of both caches, and flights under way."""
        return {
            "memo_entries": len(self._memo),
            "memo_bytes": self._memo.size,
            "answer_entries": len(self._answers),
            "answer_bytes": self._answers.size,
            "flights": len(self._flights),
        }


def _issuer_of(request: OCSPRequest, access: Access) -> ServedIssuer:
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


def _fingerprints(cert_ids: Iterable[CertID], index_key: bytes) -> list[bytes]:
    return [fingerprint(cert_id.serial, index_key) for cert_id in cert_ids]


def _look_up_all(view: View, served: ServedIssuer, certificates: Iterable[bytes]) -> list[Found]:
    return [look_up(view, served, certificate) for certificate in certificates]


def _say_all(
    served: ServedIssuer, cert_ids: Iterable[CertID], found: Iterable[Found], moment: Moment
) -> tuple[list[Status], list[int], int, int, bool]:
    """Return what is said of several, their kinds, and validity, end and oddity of the whole."""
    statuses = [
        say(served, cert_id.serial, item, moment) for cert_id, item in zip(cert_ids, found, strict=True)
    ]
    return (
        statuses,
        [status.kind for status in statuses],
        min(status.validity_s for status in statuses),
        min(status.until_s for status in statuses),
        any(status.never_issued for status in statuses),
    )


def _singles(request: OCSPRequest, served: ServedIssuer, statuses: list[Status], updates_der: bytes) -> bytes:
    """Return a SingleResponse for every certificate, and its SHA-256 twin where the policy says so."""
    both = served.issuer.both_hashes
    if len(statuses) == 1 and not both:
        status_der, _, _, _, extensions, _ = statuses[0]
        return join_single_response(encode_cert_id(*request.cert_ids[0]), status_der, updates_der, extensions)
    singles_der = b""
    for cert_id, (status_der, _, _, _, extensions, _) in zip(request.cert_ids, statuses, strict=True):
        singles_der += join_single_response(encode_cert_id(*cert_id), status_der, updates_der, extensions)
        if both and cert_id.hash_alg == SHA1:
            twin = served.sha256_twin(cert_id)
            if twin not in request.cert_ids:
                twin_der = encode_cert_id(*twin)
                singles_der += join_single_response(twin_der, status_der, updates_der, extensions)
    return singles_der


def _has_it(answer: Answer, if_none_match: frozenset[bytes]) -> bool:
    """Say whether the client's copy is still this answer, by its tag alone (RFC 9110 §13.1.2).

    A date is no validator for a status: "good" and "revoked" can be signed within one second.
    """
    return b"*" in if_none_match or answer.etag in if_none_match
