"""Seeing to it that this host has a valid responder certificate for every issuer.

::

    none, or 2/3 of its life over ──▶ key + signed request ──▶ Valkey ──▶ publisher
                                                                             │
    installed, old one stays valid ◀── checked ◀── certificate (DER) ◀── Valkey ◀┘

Knows: when to ask, to ask again when Valkey lost the question or the question has become too old,
and to take nothing that the issuer's key did not sign.
Does not know: whether this host is enrolled; the publisher says so, and its refusal is shown.
Source: RFC 6960 §4.2.2.2; 9919 §3.2.2 (short-lived certificates).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import redis

from certstatus.errors import CertStatusError
from certstatus.feed_keys import FeedKeys
from certstatus.issuer_table import Issuer
from responder.keys import HostKeys, Signer, SignerSet

log = logging.getLogger(__name__)

# A request is signed anew after so long without a certificate: its time may be why none comes.
REQUEST_LIFE_S = 60
# DER of a certificate begins with a SEQUENCE of two length octets; a refusal is text.
_CERTIFICATE_START = b"\x30\x82"


@dataclass(frozen=True, slots=True)
class IssuerStanding:
    """How this host stands with one issuer: its signer, and what is the matter, if anything.

    ``state``: ok, renewing (asked for a successor in time), missing, or alarm (no valid signer, or
    the end of the last one is near).
    """

    issuer: Issuer
    signer: Signer | None
    state: str
    problem: str


class CertificateRenewal:
    """The certificates of one host; ``step`` is called about once a second."""

    def __init__(self, keys: HostKeys, algorithm: str) -> None:
        self._keys = keys
        self._algorithm = algorithm
        self._refusals: dict[int, str] = {}
        self._signers: SignerSet | None = None

    def reload(self) -> None:
        """Read the key files again: somebody may have installed a certificate by hand."""
        self._signers = None

    def step(
        self, client: redis.Redis, feed_keys: FeedKeys, issuers: list[Issuer], now_s: int
    ) -> list[IssuerStanding]:
        """Ask for what is missing or will be, install what has come; return how it stands.

        Raises: redis.RedisError — Valkey is away; KeyFileError — this host's own files are unfit.
        """
        return [self._see_to(client, feed_keys, issuer, now_s) for issuer in issuers]

    def standing(self, issuers: list[Issuer], now_s: int) -> list[IssuerStanding]:
        """Return how it stands without asking anybody."""
        return [self._standing(issuer, now_s) for issuer in issuers]

    def _see_to(self, client: redis.Redis, feed_keys: FeedKeys, issuer: Issuer, now_s: int) -> IssuerStanding:
        signer = self._current(issuer, now_s)
        if signer is None or now_s >= signer.renew_at_s:
            self._ask(client, feed_keys, issuer, now_s)
        return self._standing(issuer, now_s)

    def _ask(self, client: redis.Redis, feed_keys: FeedKeys, issuer: Issuer, now_s: int) -> None:
        # redis-py types every answer as "this, or an awaitable of this".
        valkey: Any = client
        host = self._keys.host
        waiting = self._keys.request(issuer.issuer_id, self._algorithm, now_s)
        answer = valkey.hget(feed_keys.responder_certificates(host), waiting.digest)
        if answer is not None and answer.startswith(_CERTIFICATE_START):
            self._install(issuer, answer, now_s)
            return
        if answer is not None:
            self._note_refusal(issuer, answer.decode(errors="replace"))
        # Either too old or, the clock having been set back, from the future.
        if abs(now_s - waiting.made_s) >= REQUEST_LIFE_S:
            waiting = self._keys.renew_request(issuer.issuer_id, now_s)
        name = f"{host}:{issuer.issuer_id}"
        if valkey.hget(feed_keys.certificate_requests(), name) != waiting.text:
            valkey.hset(feed_keys.certificate_requests(), name, waiting.text)

    def _install(self, issuer: Issuer, certificate_der: bytes, now_s: int) -> None:
        try:
            signer = self._keys.install(issuer, certificate_der, now_s)
        except CertStatusError as exc:
            # A wrong certificate must not be asked after for ever: begin anew with another key.
            self._note_refusal(issuer, str(exc))
            self._keys.forget(issuer.issuer_id)
            return
        self._signers = None
        self._refusals.pop(issuer.issuer_id, None)
        log.info("%s: responder certificate %s installed", issuer.path, signer.serial)

    def _note_refusal(self, issuer: Issuer, text: str) -> None:
        if self._refusals.get(issuer.issuer_id) != text:
            log.warning("%s: no responder certificate: %s", issuer.path, text)
            self._refusals[issuer.issuer_id] = text

    def _current(self, issuer: Issuer, now_s: int) -> Signer | None:
        if self._signers is None:
            self._signers = self._keys.load()
        return self._signers.current(issuer.issuer_id, now_s, issuer.dropped)

    def _standing(self, issuer: Issuer, now_s: int) -> IssuerStanding:
        signer = self._current(issuer, now_s)
        refusal = self._refusals.get(issuer.issuer_id, "")
        if signer is None:
            return IssuerStanding(issuer, None, "alarm" if refusal else "missing", refusal)
        if now_s >= signer.alarm_at_s:
            left_s = signer.not_after_s - now_s
            return IssuerStanding(
                issuer, signer, "alarm", refusal or f"expires in {left_s} s and there is no successor"
            )
        if now_s >= signer.renew_at_s:
            return IssuerStanding(issuer, signer, "renewing", refusal)
        return IssuerStanding(issuer, signer, "ok", "")
