"""Responder certificates on request: hosts ask through Valkey, issuance signs, the answer goes back.

Knows: where requests and answers are kept, and that a refusal may pass (a host not enrolled yet), so
it is tried again after a while; what is wrong on our side is no answer at all.
Does not know: what is in a request or who may ask (``issuance.responder_certs``).
Source: RFC 6960 §4.2.2.2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis

from certstatus import clock
from certstatus.certificate_request import read_request, request_digest
from certstatus.errors import IssuanceError, KeyFileError, MalformedRequest, NotEntitled
from certstatus.feed_keys import FeedKeys
from issuance.ca_keys import CAKeyFolder
from issuance.responder_certs import sign_request
from issuance.store import Store

log = logging.getLogger(__name__)

REFUSED_AGAIN_S = 10.0
_REFUSED = b"error: "
# Every host has one request per issuer and key algorithm; more than so many are somebody's mistake.
_REQUESTS_AT_ONCE = 1000


class CertificateRequests:
    """The requests of one installation."""

    def __init__(
        self,
        store: Store,
        valkey: redis.Redis,
        ca_keys: CAKeyFolder,
        life_s: int,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._store = store
        self._valkey: Any = valkey
        self._ca_keys = ca_keys
        self._life_s = life_s
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        # Digest of a refused request -> when it may be tried again.
        self._refused: dict[str, float] = {}

    def answer(self, keys: FeedKeys) -> int:
        """Answer the requests that are waiting; return how many certificates were signed.

        Raises: KeyFileError, StoreError, redis.RedisError — the requests stay where they are.
        """
        signed = 0
        missing_key: KeyFileError | None = None
        waiting = self._valkey.hgetall(keys.certificate_requests())
        now_s = self._monotonic_s()
        self._refused = {digest: until for digest, until in self._refused.items() if until > now_s}
        for name, text in list(waiting.items())[:_REQUESTS_AT_ONCE]:
            digest = request_digest(text)
            if digest in self._refused:
                continue
            try:
                host = read_request(text)[0].host
            except MalformedRequest as exc:
                # It names no host, so there is nobody to tell.
                log.warning("certificate request %s: %s", name.decode(errors="replace"), exc)
                self._valkey.hdel(keys.certificate_requests(), name)
                continue
            try:
                certificate_der = sign_request(self._store, self._ca_keys, text, self._now_ms, self._life_s)
            except KeyFileError as exc:
                # Ours to mend; other issuers' requests need not wait for it.
                missing_key = exc
                continue
            except (MalformedRequest, NotEntitled, IssuanceError) as exc:
                log.warning("certificate request of host %s refused: %s", host, exc)
                self._refused[digest] = now_s + REFUSED_AGAIN_S
                self._valkey.hset(keys.responder_certificates(host), digest, _REFUSED + str(exc).encode())
                continue
            self._valkey.hset(keys.responder_certificates(host), digest, certificate_der)
            # Unless the host has put another in its place since; that one is answered next time.
            if self._valkey.hget(keys.certificate_requests(), name) == text:
                self._valkey.hdel(keys.certificate_requests(), name)
            log.info("responder certificate for host %s", host)
            signed += 1
        if missing_key is not None:
            raise missing_key
        return signed
