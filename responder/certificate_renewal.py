"""Seeing to it that this host has a valid responder certificate for every issuer and key algorithm.

::

    none, or 2/3 of its life over ──▶ key + signed request ──▶ Valkey ──▶ publisher
                                                                             │
    installed, old one stays valid ◀── checked ◀── certificate (DER) ◀── Valkey ◀┘

Knows: when to ask, to ask again when Valkey lost the question or the question has become too old,
and to take nothing that the issuer's key did not sign.  Where a certificate was adopted from elsewhere
nobody is asked, because its CA's key is not here.
Does not know: whether this host is enrolled; the publisher says so, and its refusal is shown.
Source: RFC 6960 §4.2.2.2; 9919 §3.2.2 (short-lived certificates).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from certstatus.errors import CertStatusError
from certstatus.feed_keys import FeedKeys
from certstatus.issuer_table import Issuer
from responder.keys import HostKeys, Signer, SignerSet, Unfit

log = logging.getLogger(__name__)

# A request is signed anew after so long without a certificate: its time may be why none comes.
REQUEST_LIFE_S = 60
# DER of a certificate begins with a SEQUENCE of two length octets; a refusal is text.
_CERTIFICATE_START = b"\x30\x82"


# From good to bad.
_STATES = ("ok", "renewing", "missing", "alarm")


@dataclass(frozen=True, slots=True)
class IssuerStanding:
    """How this host stands with one issuer: its signer, and what is the matter, if anything.

    ``state``: ok, renewing (asked for a successor in time), missing, or alarm (no valid signer, or
    the end of the last one is near); with several algorithms that of the worst.
    """

    issuer: Issuer
    signer: Signer | None
    state: str
    problem: str


class CertificateRenewal:
    """The certificates of one host; ``step`` is called about once a second.

    *algorithms*: of the keys every issuer is to have, the default one first.  *key_uri*: the PKCS#11 token
    to make them in, "" for files.
    """

    def __init__(self, keys: HostKeys, algorithms: Sequence[str], key_uri: str = "") -> None:
        self._keys = keys
        self._algorithms = tuple(algorithms)
        self._key_uri = key_uri
        self._refusals: dict[tuple[int, str], str] = {}
        self._signers = SignerSet()
        self._is_loaded = False
        self._seen: tuple[tuple[str, int], ...] = ()

    def reload(self) -> None:
        """Read the key files again, also those that look as before."""
        self._is_loaded = False

    @property
    def unfit(self) -> tuple[Unfit, ...]:
        """The pairs of files that could not be read when that was last tried."""
        return self._signers.unfit

    def step(
        self, client: redis.Redis, feed_keys: FeedKeys, issuers: list[Issuer], now_s: int
    ) -> list[IssuerStanding]:
        """Ask for what is missing or will be, install what has come; return how it stands.

        Raises: redis.RedisError — Valkey is away; KeyFileError — this host's own files are unfit, said
                after all issuers have been seen to that this does not hinder.
        """
        # Somebody may have installed or adopted one by hand; and what could not be read may be mended
        # without a sign of it.
        seen = self._keys.look()
        if seen != self._seen or self.unfit:
            self._is_loaded, self._seen = False, seen
        standing, troubles = [], []
        for issuer in issuers:
            try:
                standing.append(self._see_to(client, feed_keys, issuer, now_s))
            except CertStatusError as exc:
                troubles.append(exc)
        if troubles:
            raise troubles[0]
        return standing

    def standing(self, issuers: list[Issuer], now_s: int) -> list[IssuerStanding]:
        """Return how it stands without asking anybody."""
        return [self._standing(issuer, now_s) for issuer in issuers]

    def _see_to(self, client: redis.Redis, feed_keys: FeedKeys, issuer: Issuer, now_s: int) -> IssuerStanding:
        if self._adopted(issuer, now_s) is None:
            for algorithm in self._algorithms:
                signer = self._signer(issuer, algorithm, now_s)
                if signer is None or now_s >= signer.renew_at_s:
                    self._ask(client, feed_keys, issuer, algorithm, now_s)
        return self._standing(issuer, now_s)

    def _ask(
        self, client: redis.Redis, feed_keys: FeedKeys, issuer: Issuer, algorithm: str, now_s: int
    ) -> None:
        # redis-py types every answer as "this, or an awaitable of this".
        valkey: Any = client
        host = self._keys.host
        waiting = self._keys.request(issuer.issuer_id, algorithm, now_s, self._key_uri)
        answer = valkey.hget(feed_keys.responder_certificates(host), waiting.digest)
        if answer is not None and answer.startswith(_CERTIFICATE_START):
            self._install(issuer, algorithm, answer, now_s)
            return
        if answer is not None:
            self._note_refusal(issuer, algorithm, answer.decode(errors="replace"))
        # Either too old or, the clock having been set back, from the future.
        if abs(now_s - waiting.made_s) >= REQUEST_LIFE_S:
            waiting = self._keys.renew_request(issuer.issuer_id, algorithm, now_s)
        name = f"{host}:{issuer.issuer_id}:{algorithm}"
        if valkey.hget(feed_keys.certificate_requests(), name) != waiting.text:
            valkey.hset(feed_keys.certificate_requests(), name, waiting.text)

    def _install(self, issuer: Issuer, algorithm: str, certificate_der: bytes, now_s: int) -> None:
        try:
            signer = self._keys.install(issuer, certificate_der, now_s)
        except CertStatusError as exc:
            # A wrong certificate must not be asked after for ever: begin anew with another key.
            self._note_refusal(issuer, algorithm, str(exc))
            self._keys.forget(issuer.issuer_id, algorithm)
            return
        self._is_loaded = False
        self._refusals.pop((issuer.issuer_id, algorithm), None)
        log.info("%s: responder certificate %s installed", issuer.path, signer.serial)

    def _note_refusal(self, issuer: Issuer, algorithm: str, text: str) -> None:
        if self._refusals.get((issuer.issuer_id, algorithm)) != text:
            log.warning("%s: no responder certificate: %s", issuer.path, text)
            self._refusals[issuer.issuer_id, algorithm] = text

    def _loaded(self) -> SignerSet:
        if not self._is_loaded:
            self._signers = self._keys.load(self._algorithms[0], self._signers)
            self._is_loaded = True
        return self._signers

    def _signer(self, issuer: Issuer, algorithm: str, now_s: int) -> Signer | None:
        return self._loaded().of_algorithm(issuer, algorithm, now_s)

    def _adopted(self, issuer: Issuer, now_s: int) -> Signer | None:
        return self._loaded().adopted(issuer, now_s)

    def _standing(self, issuer: Issuer, now_s: int) -> IssuerStanding:
        adopted = self._adopted(issuer, now_s)
        if adopted is not None:
            return _judge(issuer, adopted, "", now_s)
        each = [
            _judge(
                issuer,
                self._signer(issuer, algorithm, now_s),
                self._refusals.get((issuer.issuer_id, algorithm), ""),
                now_s,
            )
            for algorithm in self._algorithms
        ]
        worst = max(each, key=lambda item: _STATES.index(item.state))
        current = self._loaded().current(issuer, now_s)
        return replace(worst, signer=current)


def _judge(issuer: Issuer, signer: Signer | None, refusal: str, now_s: int) -> IssuerStanding:
    if signer is None:
        return IssuerStanding(issuer, None, "alarm" if refusal else "missing", refusal)
    if now_s >= signer.alarm_at_s:
        left_s = signer.not_after_s - now_s
        return IssuerStanding(
            issuer, signer, "alarm", refusal or f"expires in {left_s} s and there is no successor"
        )
    if now_s >= signer.renew_at_s and not signer.is_adopted:
        return IssuerStanding(issuer, signer, "renewing", refusal)
    return IssuerStanding(issuer, signer, "ok", "")
