"""Connecting to Valkey or Redis, by one URL.

Knows: ``unix:///path``, ``redis://``, ``rediss://``, ``valkey://`` for a single server,
``sentinel://host:port,host:port/name`` and ``cluster://host:port`` for the others; short time-outs,
because every caller must notice a server that is gone; and reading values in bounds.  Does not know: what is
kept there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from certstatus.errors import ConfigError
from certstatus.feed_keys import WRONG_TYPE

# What calls raise when the server is away; that of a whole cluster is no RedisError.
VALKEY_AWAY = (redis.RedisError, RedisClusterException)
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0


def connect(url: str, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> redis.Redis:
    """Return a client for *url*; nothing is sent yet for a single server.

    Calls on it raise one of ``VALKEY_AWAY`` when the server is away; ``redis.RedisError`` in other modules'
    docstrings means these.  No call is retried behind the caller's back: an append that was lost must be
    found out, not repeated.
    Raises: ConfigError — a URL of no known form; VALKEY_AWAY — a cluster, which is asked at once, is away.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": answer_timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    scheme, _, rest = url.partition("://")
    try:
        if scheme == "sentinel":
            hosts, _, name = rest.partition("/")
            # redis-py leaves these classes untyped.
            sentinel: Any = Sentinel([_host_and_port(item) for item in hosts.split(",")], **options)  # type: ignore[no-untyped-call]
            master: redis.Redis = sentinel.master_for(name or "mymaster", **options)
            return master
        if scheme == "cluster":
            options.pop("retry")
            nodes = [ClusterNode(*_host_and_port(item)) for item in rest.split(",")]  # type: ignore[no-untyped-call]
            # A cluster client offers the same calls; all our keys share one hash tag.
            cluster: Any = RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **options)
            return cluster  # type: ignore[no-any-return]
        if scheme == "valkey":
            url = f"redis://{rest}"
        return redis.Redis.from_url(url, **options)
    except ValueError as exc:
        raise ConfigError("(configuration)", "valkey.url", "a Valkey or Redis URL", url) from exc


def read_values(client: redis.Redis, octets_max: Mapping[str, int]) -> dict[str, bytes]:
    """Return the values of keys, of each no more than one octet beyond what it may have at most.

    Takes:   *octets_max*: by key.  A value may have 512 MB: what is too long is never brought whole.
    Gives:   what is there, by key; a key that is empty or of another type is as good as none.
    Raises:  redis.RedisError.
    """
    if not octets_max:
        return {}
    # redis-py types every answer as "this, or an awaitable of this".
    pipeline: Any = client.pipeline(transaction=False)
    for name, most in octets_max.items():
        pipeline.getrange(name, 0, most)
    answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and WRONG_TYPE not in str(answer):
            raise answer
    return {
        name: answer
        for name, answer in zip(octets_max, answers, strict=True)
        if answer and type(answer) is bytes
    }


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
