"""Many requests into locust's statistics at once.

``events.request.fire`` costs about as much as a whole request over a raw socket; adding up a
lot of requests and putting the sums into locust's own entries costs next to nothing, and the
console, the web page, the report and ``--processes`` see no difference.
Knows: how locust rounds and keeps response times.  Does not know: what was asked.
"""

from __future__ import annotations

import time
from collections import Counter

from locust.stats import RequestStats, StatsEntry, bucket_response_time

_TENTHS_BELOW = 100


class Lot:
    """Requests of one name that are not in the statistics yet.  Times in milliseconds."""

    __slots__ = ("_bytes", "_max", "_min", "_sum", "_times", "count", "method", "name")

    def __init__(self, method: str, name: str) -> None:
        self.method = method
        self.name = name
        self._empty()

    def _empty(self) -> None:
        self.count = 0
        self._bytes = 0
        self._sum = 0.0
        self._min = float("inf")
        self._max = 0.0
        self._times: Counter[int] = Counter()

    def add(self, time_ms: float, size: int) -> None:
        """Count one answered request."""
        self.count += 1
        self._bytes += size
        self._sum += time_ms
        self._min = min(self._min, time_ms)
        self._max = max(self._max, time_ms)
        self._times[int(time_ms * 10)] += 1

    def flush(self, stats: RequestStats) -> None:
        """Put everything into *stats* and begin again."""
        if not self.count:
            return
        now_s = time.time()
        for entry in (stats.total, stats.entries[self.name, self.method]):
            self._into(entry, now_s)
        self._empty()

    def _into(self, entry: StatsEntry, now_s: float) -> None:
        second = int(now_s)
        last_s = entry.last_request_timestamp
        if entry.use_response_times_cache and last_s and second > int(last_s):
            entry._cache_response_times(second - 1)
        entry.num_requests += self.count
        entry.num_reqs_per_sec[second] += self.count
        entry.last_request_timestamp = now_s
        # Locust declares whole milliseconds, and calculates with whatever it is given.
        entry.total_response_time += self._sum  # type: ignore[assignment]
        entry.total_content_length += self._bytes
        least = entry.min_response_time
        entry.min_response_time = self._min if least is None else min(least, self._min)  # type: ignore[assignment]
        entry.max_response_time = max(entry.max_response_time, self._max)  # type: ignore[assignment]
        for tenths, count in self._times.items():
            # Locust rounds to whole milliseconds; most answers come within one, so tenths stay here.
            rounded = tenths / 10 if tenths < _TENTHS_BELOW else bucket_response_time(tenths / 10)
            entry.response_times[rounded] += count  # type: ignore[index]
