"""Metrics of all processes of this machine, in Prometheus' exposition format.

Knows: which numbers of the status files are counters or gauges, their names and labels.
Does not know: how they came about.  Names: ``certstatus_<thing>_<unit>``, counters end in ``_total``.
A worker's counters begin at 0 with each incarnation, as counters of a process do.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from responder.run_status import RunStatus, Status

_Family = GaugeMetricFamily | CounterMetricFamily

# Key of a worker's status -> (name, kind, what it says, factor).
_WORKER_NUMBERS = {
    "applied_seq": ("certstatus_applied_seq", "gauge", "Last change that the worker has applied.", 1.0),
    "beat_age_ms": ("certstatus_beat_age_seconds", "gauge", "Age of the last verified beat.", 0.001),
    "overlay_entries": ("certstatus_overlay_entries", "gauge", "Changes held above the snapshot.", 1.0),
    "connections": ("certstatus_connections", "gauge", "Open connections, TLS handshakes included.", 1.0),
    "signing_waiting": ("certstatus_signing_waiting", "gauge", "Answers waiting to be signed.", 1.0),
    "rss_bytes": ("certstatus_resident_bytes", "gauge", "Greatest resident memory.", 1.0),
    "accepted": (
        "certstatus_accepted",
        "counter",
        "Connections accepted; over TLS, completed handshakes.",
        1.0,
    ),
    "refused": ("certstatus_refused_connections", "counter", "Connections over the limit.", 1.0),
    "timed_out": ("certstatus_timed_out", "counter", "Connections ended by a deadline.", 1.0),
    "delegated": ("certstatus_delegated", "counter", "Connections handed to the full web server.", 1.0),
    "reloads": ("certstatus_index_reloads", "counter", "Times the index was loaded anew.", 1.0),
    "signatures": ("certstatus_signatures", "counter", "Answers signed.", 1.0),
}
# Key of a worker's status with a table below it -> (name, kind, what it says, label).
_WORKER_TABLES = {
    "provisions": ("certstatus_provisions", "counter", "What was given and refused, by kind.", "kind"),
    "outcomes": ("certstatus_outcomes", "counter", "How requests were answered.", "outcome"),
    "caches": ("certstatus_cache", "gauge", "Entries and bytes of the caches.", "what"),
}
_FEED_NUMBERS = {
    "seq": ("certstatus_feed_seq", "gauge", "Last change that a beat has covered.", 1.0),
    "beats": ("certstatus_feed_beats", "counter", "Beats sent.", 1.0),
    "rebuilds": ("certstatus_feed_rebuilds", "counter", "Times the stream was started anew.", 1.0),
}


class RunCollector:
    """Collects once, from one reading of the status files."""

    def __init__(self, status: RunStatus, configured_workers: int) -> None:
        self._status = status
        self._configured_workers = configured_workers

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        status = self._status
        configured = GaugeMetricFamily("certstatus_workers_configured", "Workers that are to run.")
        configured.add_metric([], self._configured_workers)
        yield configured
        ready = GaugeMetricFamily("certstatus_worker_ready", "1 if the worker answers.", labels=["slot"])
        for worker in status.workers:
            ready.add_metric([str(worker["slot"])], 1 if worker.get("ready") else 0)
        yield ready
        for key, (name, kind, text, factor) in _WORKER_NUMBERS.items():
            family = _family(name, kind, text, ["slot"])
            for worker in status.workers:
                if isinstance(value := worker.get(key), (int, float)):
                    family.add_metric([str(worker["slot"])], value * factor)
            yield family
        for key, (name, kind, text, label) in _WORKER_TABLES.items():
            family = _family(name, kind, text, ["slot", label])
            for worker in status.workers:
                for what, value in worker.get(key, {}).items():
                    family.add_metric([str(worker["slot"]), what], value)
            yield family
        yield from _turns(status)
        yield from _unfit_keys(status)
        yield from _processes(status)
        yield from _agent(status.agent)


def _turns(status: RunStatus) -> Iterator[Metric]:
    longest = GaugeMetricFamily(
        "certstatus_loop_turn_seconds",
        "CPU time of the longest turn of the worker's loop in the last one to two minutes; at most 2 ms too"
        " high, 50 ms while nobody is connected.",
        labels=["slot"],
    )
    long = CounterMetricFamily(
        "certstatus_long_loop_turns_total",
        "Turns of the worker's loop that took more than 10 ms of CPU time (60 ms while nobody is connected).",
        labels=["slot"],
    )
    for worker in status.workers:
        if isinstance(turns := worker.get("turns"), dict):
            longest.add_metric([str(worker["slot"])], turns["lately_ms"] / 1000)
            long.add_metric([str(worker["slot"])], turns["long"])
    yield longest
    yield long


def _unfit_keys(status: RunStatus) -> Iterator[Metric]:
    unfit = GaugeMetricFamily(
        "certstatus_key_pair_unfit",
        "1 if these files of a responder certificate and its key cannot be used; the worker's log says why.",
        labels=["slot", "pair"],
    )
    for worker in status.workers:
        for pair in worker.get("unfit_keys", {}):
            unfit.add_metric([str(worker["slot"]), pair], 1)
    yield unfit


def _processes(status: RunStatus) -> Iterator[Metric]:
    up = GaugeMetricFamily("certstatus_process_up", "1 if the process runs.", labels=["process"])
    for name, found in (("feed", status.feed), ("builder", status.builder), ("agent", status.agent)):
        up.add_metric([name], 0 if found is None else 1)
    yield up
    if status.builder is not None:
        failing = GaugeMetricFamily(
            "certstatus_builder_task_failing", "1 if the task failed when it was last tried.", labels=["task"]
        )
        for name, task in status.builder.get("tasks", {}).items():
            failing.add_metric([name], 1 if task.get("error") else 0)
        yield failing
        yield from _crls(status.builder)
        yield from _register(status.builder)
    if status.feed is not None:
        for key, (name, kind, text, factor) in _FEED_NUMBERS.items():
            if isinstance(value := status.feed.get(key), (int, float)):
                family = _family(name, kind, text, [])
                family.add_metric([], value * factor)
                yield family


def _crls(builder: Status) -> Iterator[Metric]:
    """By issuer, because there may be thousands of scopes; which ones, the operators' page says."""
    labels = ["service", "generation"]
    failing = GaugeMetricFamily(
        "certstatus_crl_failing", "Scopes whose CRL could not be made when last tried.", labels=labels
    )
    overdue = GaugeMetricFamily(
        "certstatus_crl_overdue_seconds",
        "For how long a CRL of the issuer has been due and is not made, the longest.",
        labels=labels,
    )
    for item in builder.get("crls", {}).get("issuers", []):
        names = [str(item["service"]), str(item["generation"])]
        failing.add_metric(names, item["failing"])
        overdue.add_metric(names, item["overdue_s"])
    yield failing
    yield overdue


def _register(builder: Status) -> Iterator[Metric]:
    register = builder.get("register")
    if not isinstance(register, dict):
        return
    wrong = GaugeMetricFamily(
        "certstatus_register_changes_wrong",
        "Changes in the store that are lost or altered, as far as the daily audit has seen.",
    )
    wrong.add_metric([], register["wrong"])
    ended = GaugeMetricFamily(
        "certstatus_register_audited_timestamp_seconds", "When the last pass of the audit ended; 0: none yet."
    )
    ended.add_metric([], register["ended_ms"] / 1000)
    yield wrong
    yield ended


def _agent(agent: Status | None) -> Iterator[Metric]:
    if agent is None:
        return
    labels = ["service", "generation"]
    until = GaugeMetricFamily(
        "certstatus_responder_certificate_not_after_seconds",
        "End of the responder certificate.",
        labels=labels,
    )
    alarm = GaugeMetricFamily(
        "certstatus_responder_certificate_alarm",
        "1 if it is missing or ends without a successor.",
        labels=labels,
    )
    for item in agent.get("certificates", []):
        names = [str(item["service"]), str(item["generation"])]
        if item.get("not_after_s") is not None:
            until.add_metric(names, item["not_after_s"])
        alarm.add_metric(names, 1 if item["state"] in ("alarm", "missing") else 0)
    yield until
    yield alarm
    files = GaugeMetricFamily("certstatus_counter_files", "Counter files on this host.", labels=["state"])
    for state, value in agent.get("counters", {}).items():
        files.add_metric([state], value)
    yield files
    if (fetched := agent.get("crl_files")) is not None:
        awaited = GaugeMetricFamily(
            "certstatus_fetched_crl_files_awaited",
            "CRL files of the catalogue that have not come to this host.",
        )
        awaited.add_metric([], fetched["awaited"])
        yield awaited


def _family(name: str, kind: str, text: str, labels: list[str]) -> _Family:
    if kind == "counter":
        return CounterMetricFamily(name, text, labels=labels)
    return GaugeMetricFamily(name, text, labels=labels)
