"""The answer path: one request in, the bytes of one HTTP answer out, in this order and no other.

    step              where                 µs    allocates   fails as
    fresh?            Standing.is_fresh    0.1    no          tryLater
    who is asking     Asker                0.1    no          tryLater (cannot be counted)
    entitled?         Asker.rows           0.1    no          unauthorized
    seen verbatim?    repeat               0.7    the answer  next step
    known?            the second cache     0.1    no          next step
    parse             ocsp_request         1.1    yes         malformedRequest, unauthorized
    which issuer      Access.by_hash       0.3    no          unauthorized
    own signature?    NonceBudget          0.3    no          next step, or tryLater (nonces only)
    wait in line      SigningDesk            -    yes         tryLater (queue full, no signer)
    look up           status.look_up       2.1    yes         -
    say               status.say           2.2    yes         unauthorized, tryLater
    sign              SigningDesk         21.8    yes         tryLater (the key did not sign)
    look up again     under ``settled``    2.7    yes         sign again
    fresh?, who is asking, entitled? once more: ``provide``
    count             Asker.cells          0.1    no          tryLater (cannot be counted)
    write             wire                 0.4    the answer  -

(One core of an EPYC, P-256, one certificate, everything warm, by ``python -m bench.steps``; ``repeat``
is all of fresh, who, entitled, count and write for a request that is known; a signed answer is 34.7 in
all.  A new address costs 8 µs once.)

From "look up" on, what waits is taken a lot at a time (``_fly_here``), each step for the whole lot;
a slow key signs one at a time, on a thread (``_fly_on_thread``).

A request that was seen byte for byte goes through ``repeat``; whatever is not plainly in order
there is left to ``answer``, which asks every question from the top.
Knows: the order of things, times of an answer, caches, single-flight, refusals.
Does not know: what is said of a certificate (``status``), HTTP requests, sockets, Valkey.

Caches need no registry of who must be told of a change.  An answer carries the mark of the
standing under which it was last looked up; under another mark it is looked up again, in the
overlay (0.5 µs) or, when the era is another, in the whole index.  A worker acknowledges a
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
from certstatus.changes import Fingerprinter
from certstatus.counters import Provision
from certstatus.errors import (
    MALFORMED_REQUEST,
    TRY_LATER,
    UNAUTHORIZED,
    CertStatusError,
    CountersUnavailable,
    NonceBudgetSpent,
    NotEntitled,
    Overloaded,
    RequestError,
    SignerUnavailable,
    StaleIndex,
)
from certstatus.ocsp_request import OCSPRequest, parse_request, read_usual_request
from certstatus.ocsp_response import (
    GOOD_DER,
    encode_updates,
    error_response,
    join_response_data,
    join_single_response,
)
from responder import wire
from responder.answers import Answer, Flight, Key, Query, key_bytes, shared_key
from responder.asker import Asker, Askers
from responder.cache import GenerationCache
from responder.keys import SignerSet
from responder.nonce_budget import NonceBudget
from responder.signing import SigningDesk
from responder.standing import Follows, ServedIssuer, Standing
from responder.status import Found, Moment, Status, look_up, say, watched
from responder.terms import TermsOfIssuers, issuer_of

log = logging.getLogger(__name__)

# A status that changes this often within one request's signing is not this request's to catch.
_SIGNED_AGAIN_MAX = 5
# The refresh point lies this part of the validity after its half, at random: caches do not all come at once.
_JITTER = 0.1
# What a verifier gets beyond its budget for nonces; the other choice is tryLater.
IGNORE_NONCE = "ignore"
_MEMO_MESSAGE_MAX = 4096
_SEEN_MAX = 16_384
# By kind, the kinds of an answer about one certificate: one object for all of them, of plain numbers.
_KINDS_OF_ONE = tuple([(int(kind),) for kind in Provision])
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


class Settles(Follows, Protocol):
    """What the path needs of the follower: the standing, and the lock under which it changes."""

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


class _Refusal(NamedTuple):
    head: bytes
    body: bytes


class AnswerPath:
    """One worker's answer path; used by the event loop's thread only."""

    def __init__(
        self,
        follower: Settles,
        signers: SignerSet,
        askers: Askers,
        desk: SigningDesk,
        index_key: bytes,
        limits: Limits,
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        # Fixed.
        self._follower = follower
        self._askers = askers
        self._desk = desk
        self._fingerprint = Fingerprinter(index_key)
        self._now_ms = now_ms
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
        self._terms = TermsOfIssuers()
        self._refusals: dict[tuple[int, str], _Refusal] = {}
        self._date_s = -1
        self._date = b""
        # Counters.
        self.repeats = 0
        self.outcomes: dict[str, int] = {}
        desk.attend(self._fly_here)

    # --- seen byte for byte --------------------------------------------------------------------------

    def repeat(self, peer: Peer, message: bytes, now_ms: int, monotonic_s: float) -> bytes | None:
        """Return what *message* is answered if it was seen before and nothing has changed; else None.

        Takes:   a whole HTTP request.
        Cost:    0.7 µs.
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
            (
                answer.start,
                answer.etag,
                answer.tag_end,
                wire.seconds(answer.refresh_s - now_s),
                answer.middle,
                self._date,
                end,
                answer.own_der,
                answer.signer_der,
            )
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
                    flight = self._refresh(self._read(request_der, standing), now_s)
                    if flight is not None:
                        return flight
                return self._give_again(asker, row, answer, how, now_s)
            query = self._read(request_der, standing)
            issuer_id = query.issuer_id
            row = self._entitled_row(asker, issuer_id, standing, now_s)
            if not query.cacheable and not self._nonces.take(
                asker.verifier_id, self.limits.nonce_signatures_per_s, monotonic_s
            ):
                # What is given in place of an answer of its own must not be known by these octets.
                query, how = self._without_nonce(query), how._replace(message=None)
            # Written in another way than most write it, what is asked may be known all the same.
            answer = None if query.key == request_der else self._known(query.key, standing, now_s)
            if answer is None:
                return self._make(query, now_s)
            if now_s >= answer.refresh_s:
                flight = self._refresh(query, now_s)
                if flight is not None:
                    return flight
            return self._give_again(asker, row, answer, how, now_s)
        except CertStatusError as exc:
            return self._refuse(exc, peer, issuer_id, how, now_s)
        except Exception as exc:
            return self._broken(exc, how, now_s)

    def provide(
        self, peer: Peer, result: Answer | CertStatusError, how: How, now_ms: int, monotonic_s: float
    ) -> bytes | None:
        """Return the HTTP answer for what a flight brought; None if it is outdated: ask again."""
        now_s = now_ms // 1000
        if isinstance(result, CertStatusError):
            return self._refuse(result, peer, 0, how, now_s)
        standing = self._follower.standing
        if now_s >= result.expires_s or (
            result.mark != standing.mark and not self._is_still_true(result, standing)
        ):
            return None
        try:
            # It took time to make: fresh and entitled are asked again.
            asker = self._admit(peer, standing, now_ms, monotonic_s)
            row = self._entitled_row(asker, result.issuer_id, standing, now_s)
            return self._give(asker, row, result, how, now_s)
        except CertStatusError as exc:
            return self._refuse(exc, peer, result.issuer_id, how, now_s)
        except Exception as exc:
            return self._broken(exc, how, now_s)

    def refuse(self, peer: Peer, error: CertStatusError, how: How, now_s: int) -> bytes:
        """Return the HTTP answer that says *error* as an OCSP response, counted as a refusal."""
        return self._refuse(error, peer, 0, how, now_s)

    def limit(self, limits: Limits) -> None:
        """Go by other limits from here on; what was kept under the old ones is asked anew."""
        if limits.certificates_max < self.limits.certificates_max:
            self._memo.forget()
            self._answers.forget()
        self.limits = limits

    def hurry(self) -> None:
        """Land now what a fast key has to sign, as far as a turn has time for it."""
        self._desk.hurry()

    def let_go(self) -> None:
        """Forget what was made out of an index that is no longer served; called once a second."""
        self._terms.let_go(self._follower.standing)

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
        issuer_id = issuer_of(request, standing.access).issuer.issuer_id
        # Only now: a CertID by a hash function that is not served cannot be written, and has no issuer.
        cacheable = request.cacheable
        if cacheable and not is_usual:
            key = shared_key(request)
        return Query(key, request, issuer_id, cacheable)

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

    def _refresh(self, query: Query, now_s: int) -> Flight | None:
        """Have a newer answer made; return its flight if it is worth waiting for, None if the old one is."""
        try:
            is_near = self._desk.is_near
            flight = self._make(query, now_s)
        except CertStatusError as exc:
            # The old one holds until it expires; until then there is time for what is missing to return.
            self._note(f"not refreshed: {exc.outcome}")
            return None
        return flight if flight.is_here and is_near else None

    def _without_nonce(self, query: Query) -> Query:
        """Return what others ask too, for a verifier that has had its signatures for itself alone.

        Raises: NonceBudgetSpent — the policy is to have it wait.
        """
        if self.limits.nonce_beyond != IGNORE_NONCE:
            raise NonceBudgetSpent("more nonces and signed requests than one verifier may send")
        self._note("nonce_ignored")
        request = query.request._replace(nonce=None, signed=False)
        return Query(shared_key(request), request, query.issuer_id, cacheable=True)

    def _is_still_true(self, answer: Answer, standing: Standing) -> bool:
        """Say whether what *answer* says still holds under *standing*, and mark it so."""
        view = standing.view
        if answer.era == standing.era:
            overlay = view.overlay
            for watched_key in watched(answer.served, answer.found, answer.certificates):
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

    def _make(self, query: Query, now_s: int) -> Flight:
        """Join or begin the flight that makes the answer.

        Raises: Overloaded, SignerUnavailable, NotAuthoritative, StaleForeignCRL — none begins.
        """
        standing = self._follower.standing
        key, request, issuer_id, cacheable = query
        fast = self._terms.of(request, issuer_id, self.signers, standing, now_s).signer.is_fast
        if cacheable:
            flight = self._flights.get(key)
            # One that has looked up already may be joined only if nothing has changed since.
            if flight is not None and (flight.draft is None or flight.draft.mark == standing.mark):
                return flight
        flight = Flight(query, is_here=fast)
        if fast:
            self._desk.wait_in_line(flight)
        else:
            self._fly_on_thread(flight)
        if cacheable:
            self._flights[key] = flight
        return flight

    def _fly_here(self, flights: list[Flight]) -> None:
        """Land a lot: draft each, sign all, look each up again; what holds no more is made again."""
        for _ in range(_SIGNED_AGAIN_MAX):
            drafts = self._draft_lot(flights)
            signatures = self._desk.sign_lot([(draft.signer, draft.tbs) for _, draft in drafts])
            now_s = self._now_ms() // 1000
            flights = []
            for (flight, draft), signature in zip(drafts, signatures, strict=True):
                try:
                    if signature is None:
                        raise SignerUnavailable(f"issuer {draft.issuer_id}: the key did not sign")
                    if self._finish(flight.query, draft, signature, now_s):
                        self._land(flight, draft)
                    else:
                        flights.append(flight)
                except Exception as exc:
                    self._fail(flight, exc)
            if not flights:
                return
        for flight in flights:
            self._fail(flight, Overloaded("the status changed again and again while it was signed"))

    def _fly_on_thread(self, flight: Flight, attempts: int = _SIGNED_AGAIN_MAX) -> None:
        """Raises: Overloaded, SignerUnavailable, NotAuthoritative — the flight does not begin."""
        now_s = self._now_ms() // 1000
        with self._follower.settled:
            draft = self._draft(flight.query, self._follower.standing, now_s)

        def signed(signature: bytes | None) -> None:
            try:
                if signature is None:
                    raise SignerUnavailable(f"issuer {draft.issuer_id}: the key did not sign")
                if self._finish(flight.query, draft, signature, self._now_ms() // 1000):
                    self._land(flight, draft)
                elif attempts > 1:
                    self._fly_on_thread(flight, attempts - 1)
                else:
                    raise Overloaded("the status changed again and again while it was signed")
            except Exception as exc:
                self._fail(flight, exc)

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

    def _fail(self, flight: Flight, exc: Exception) -> None:
        """Land what there is in place of an answer: the one before while it holds, else the error."""
        if isinstance(exc, CertStatusError):
            error = exc
        else:
            log.error("signing for issuer %d", flight.query.issuer_id, exc_info=exc)
            error = CertStatusError(type(exc).__name__)
        before = self._known(flight.query.key, self._follower.standing, self._now_ms() // 1000)
        if before is not None:
            self._note(f"not refreshed: {error.outcome}")
        self._land(flight, error if before is None else before)

    def _draft_lot(self, flights: Iterable[Flight]) -> list[tuple[Flight, Answer]]:
        """Draft for each what is to be signed, all out of one standing; land those that come to nothing.

        A slow key may have come in the place of a fast one meanwhile: what it is to sign goes to a thread.
        """
        now_s = self._now_ms() // 1000
        drafts: list[tuple[Flight, Answer]] = []
        slow: list[Flight] = []
        failed: list[tuple[Flight, Exception]] = []
        # The lock binds rows and time together: at thisUpdate the rows were exactly these.
        with self._follower.settled:
            standing = self._follower.standing
            for flight in flights:
                try:
                    draft = flight.draft = self._draft(flight.query, standing, now_s)
                    if draft.signer.is_fast:
                        drafts.append((flight, draft))
                    else:
                        slow.append(flight)
                except Exception as exc:
                    failed.append((flight, exc))
        for flight in slow:
            flight.is_here = False
            try:
                self._fly_on_thread(flight)
            except Exception as exc:
                failed.append((flight, exc))
        # Landing calls whoever waits, which has no business under the lock.
        for flight, error in failed:
            self._fail(flight, error)
        return drafts

    def _draft(self, query: Query, standing: Standing, now_s: int) -> Answer:
        """Look everything up and write what is to be signed; called while *standing* is settled."""
        _, request, issuer_id, _ = query
        cert_ids = request.cert_ids
        terms = self._terms.of(request, issuer_id, self.signers, standing, now_s)
        served, moment, view = terms.served, terms.moment, standing.view
        known_s = standing.time_ms // 1000
        draft = Answer()
        certificates: tuple[bytes, ...]
        found: tuple[Found, ...]
        statuses: tuple[Status, ...]
        kinds: tuple[int, ...]
        # Nearly every request asks about one; where it is written out for one, it costs 6 µs less in all.
        if len(cert_ids) == 1:
            cert_id = cert_ids[0]
            certificate = self._fingerprint(cert_id.serial)
            row = look_up(view, served, certificate)
            certificates, found = (certificate,), (row,)
            status = say(served, cert_id.serial, row, moment)
            statuses, kinds = (status,), _KINDS_OF_ONE[status.kind]
            status_der, _, validity_s, expires_s, extensions, never_issued = status
            fits_frame = status_der is GOOD_DER and not extensions and not served.issuer.both_hashes
        else:
            certificates = tuple([self._fingerprint(cert_id.serial) for cert_id in cert_ids])
            found = tuple([look_up(view, served, certificate) for certificate in certificates])
            statuses, kinds, validity_s, expires_s, never_issued = _say_all(served, cert_ids, found, moment)
            fits_frame = False
        # Whatever is good is so for the same time (``status``), which the frame's nextUpdate goes by.
        next_update_s = terms.good_until_s if fits_frame else min(known_s + validity_s, terms.until_s)
        if next_update_s <= now_s:
            raise SignerUnavailable(f"issuer {issuer_id}: no answer can be valid beyond {next_update_s}")
        if fits_frame:
            cert_id_der = request.cert_id_der or encode_cert_id(*cert_ids[0])
            draft.tbs = terms.good(cert_id_der, request.nonce)
        else:
            singles_der = _singles(
                request, served, statuses, encode_updates(terms.this_update_s, next_update_s)
            )
            draft.tbs = join_response_data(
                terms.start_der, singles_der, request.nonce, extended_revoke=never_issued
            )
        draft.served, draft.signer, draft.issuer_id = served, terms.signer, issuer_id
        draft.seq, draft.mark, draft.era = standing.seq, standing.mark, standing.era
        draft.certificates, draft.found, draft.kinds = certificates, found, kinds
        # RFC 9919 names producedAt in one place and thisUpdate in another; this is the later of the two.
        draft.last_modified_s, draft.next_update_s = moment.produced_at_s, next_update_s
        draft.expires_s = expires_s = min(next_update_s, expires_s)
        refresh_s = known_s + int(validity_s * (0.5 + _JITTER * random.random()))
        draft.refresh_s = min(refresh_s, expires_s)
        return draft

    def _finish(self, query: Query, draft: Answer, signature: bytes, now_s: int) -> bool:
        """Make *draft* an answer, kept for others if it may be; False if what it says holds no more."""
        with self._follower.settled:
            standing = self._follower.standing
            if standing.mark != draft.mark:
                view = standing.view
                served = standing.access.by_id.get(draft.issuer_id)
                if served is None or served != draft.served:
                    return False
                for certificate, row in zip(draft.certificates, draft.found, strict=True):
                    if look_up(view, served, certificate) != row:
                        return False
        if now_s >= draft.expires_s:
            return False
        self._note("signed")
        draft.signed(signature, standing)
        # It may have been asked when more certificates were allowed than are now.
        if query.cacheable and len(draft.certificates) <= self.limits.certificates_max:
            self._answers.put(query.key, draft, draft.size + key_bytes(query.key))
        return True

    # --- giving --------------------------------------------------------------------------------------

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
        start, own_der, signer_der = answer.start, answer.own_der, answer.signer_der
        if how.if_none_match is not None and _has_it(answer, how.if_none_match):
            cells[row + Provision.OCSP_NOT_MODIFIED] += 1
            start, own_der, signer_der = wire.not_modified_start(answer.last_modified_s), b"", b""
        elif how.head_only:
            cells[row + Provision.OCSP_HEAD] += 1
            own_der = signer_der = b""
        else:
            for kind in answer.kinds:
                cells[row + kind] += 1
        return b"".join(
            (
                start,
                answer.etag,
                answer.tag_end,
                wire.seconds(answer.refresh_s - now_s),
                answer.middle,
                wire.http_date(now_s),
                end,
                own_der,
                signer_der,
            )
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


def _say_all(
    served: ServedIssuer, cert_ids: Iterable[CertID], found: Iterable[Found], moment: Moment
) -> tuple[tuple[Status, ...], tuple[int, ...], int, int, bool]:
    """Return what is said of several, their kinds, and validity, end and oddity of the whole."""
    statuses = tuple(
        [say(served, cert_id.serial, item, moment) for cert_id, item in zip(cert_ids, found, strict=True)]
    )
    return (
        statuses,
        tuple([status.kind for status in statuses]),
        min(status.validity_s for status in statuses),
        min(status.until_s for status in statuses),
        any(status.never_issued for status in statuses),
    )


def _singles(
    request: OCSPRequest, served: ServedIssuer, statuses: tuple[Status, ...], updates_der: bytes
) -> bytes:
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
