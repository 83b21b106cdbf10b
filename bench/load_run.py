"""Start and end of a load test: options, the look before the load, the summary after it.

With ``--processes`` locust's first process starts the others, looks before the load and sums up;
each of them tells it its findings with every report of its statistics.
Knows: locust's events.  Does not know: the scenarios, but for those it is told of.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.event import Event
from locust import User, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import STATE_CLEANUP, STATE_STOPPED, MasterRunner, WorkerRunner

from bench.findings import together
from bench.objectives import Objectives, judge
from bench.population import REVOKED_LOG, Population
from bench.preflight import NotReady, check, check_crls, tls_context
from bench.raw_connection import Place
from bench.raw_user import GOOD_AFTER_ALL, StatusUser, Target
from bench.revoked_meanwhile import RevokedMeanwhile

_TICK_S = 0.05
_WATCH_S = 1.0
_PEAK_S = 60.0
_EXIT_NOT_BEGUN = 2
_NO_CRLS = "none"
_REPORT_NOW = "certstatus_report_now"
_LAST_REPORTS_S = 10.0


@dataclass(slots=True)
class _Run:
    """What this process knows of the run.

    reports  the other processes' findings by their names
    others   the names of all of them
    ready    this process knows whom to ask: locust may tell it to start before that
    """

    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    ready: Event = field(default_factory=Event)

    def unreported(self) -> int:
        """Return how many of the other processes have not told their last findings."""
        return sum(not self.reports.get(name, {}).get("ended") for name in self.others)


def listen(default: type[User], refused: type[User], pulling: type[User]) -> None:
    """Take part in locust's run.

    default  the scenario when none is named
    refused  the one that must be told nothing
    pulling  the one that can do nothing without CRLs
    """
    run = _Run()

    def begin(environment: Environment, **_: Any) -> None:  # noqa: ANN401
        if not _options(environment).user_classes:
            environment.user_classes = [default]
        try:
            _begin(environment, refused, pulling)
        except (NotReady, ValueError) as exc:
            print(f"not begun: {exc}", flush=True)
            raise SystemExit(_EXIT_NOT_BEGUN) from None
        _report(environment, run)
        # Ctrl-C as it comes would end whichever user is running, with what it has not yet counted.
        gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
        run.ready.set()

    def start(environment: Environment, **_: Any) -> None:  # noqa: ANN401
        run.ready.wait()
        _start(environment)
        runner = _runner(environment)
        run.others = (
            {client.id for client in runner.clients.all} if isinstance(runner, MasterRunner) else set()
        )

    events.init_command_line_parser.add_listener(_arguments)
    events.init.add_listener(begin)
    events.test_start.add_listener(start)
    events.quitting.add_listener(lambda environment, **_: _sum_up(environment, run))


def _arguments(parser: LocustArgumentParser) -> None:
    whom = parser.add_argument_group("certstatus: whom to ask about what")
    whom.add_argument("--population", default="var/dev/demo/auth", help="folder: ca.pem, population.csv")
    whom.add_argument("--path", default="/ocsp", help="of the responder [/ocsp]")
    whom.add_argument("--source", default="", help="address to ask from, one of this machine's")
    whom.add_argument("--ca-file", default="", help="https: CAs to trust, PEM [this machine's]")
    whom.add_argument("--client-cert", default="", help="https: certificate to show, PEM")
    whom.add_argument("--client-key", default="", help="https: its key, PEM [in the same file]")
    whom.add_argument("--crls", default="", help="'PATH PATH' of CRLs, or none [the demo's]")
    whom.add_argument(
        "--revoked-log", default="", help=f"what bench.revoke_some writes [POPULATION/{REVOKED_LOG}]"
    )
    whom.add_argument("--peak-scale", type=float, default=1.0, help="MorningPeak: of the nation's rate [1.0]")
    right = parser.add_argument_group("certstatus: what is right")
    right.add_argument(
        "--unknown-answer",
        default="unknown",
        choices=["unknown", "revoked", "good"],
        help="what a number never issued is answered [unknown]",
    )
    right.add_argument("--nonce-optional", action="store_true", help="an answer without the nonce will do")
    right.add_argument(
        "--verify-one-in", type=float, default=500.0, help="of so many answers one is verified [500]"
    )
    wanted = parser.add_argument_group("certstatus: objectives")
    wanted.add_argument("--p99-ms", type=float, default=50.0, help="99 of 100 answers come within it [50]")
    wanted.add_argument("--rate-min", type=float, default=0.0, help="requests a second at least [0]")
    wanted.add_argument("--failures-max", type=int, default=0, help="missing answers at most [0]")
    wanted.add_argument(
        "--give-up-after", type=int, default=1000, help="stop after so many failures; 0: never [1000]"
    )
    wanted.add_argument("--summary", default="", help="file for the summary as JSON")


def _begin(environment: Environment, refused: type[User], pulling: type[User]) -> None:
    options = _options(environment)
    target = _target(environment.host or options.host or "", options)
    StatusUser.target = target
    classes = environment.user_classes
    if refused in classes and len(classes) > 1:
        raise NotReady(f"{refused.__name__} asks from an address that others cannot use: run it alone")
    is_first = not isinstance(environment.runner, WorkerRunner)
    if is_first:
        target.tick()
        check(target, entitled=refused not in classes)
        if refused not in classes and options.crls != _NO_CRLS:
            try:
                check_crls(target)
            except NotReady as exc:
                if options.crls or pulling in classes:
                    raise
                # A guess that was wrong: the mix goes without, in every process.
                options.crls = _NO_CRLS
                print(f"no CRLs will be pulled: {exc}", flush=True)
        options.peak_seconds = float(options.run_time or _PEAK_S)
    gevent.spawn(_follow, environment, target, is_first)


def _options(environment: Environment) -> Any:  # noqa: ANN401
    """Return the options: there when locust is run by its command line."""
    return environment.parsed_options


def _runner(environment: Environment) -> Any:  # noqa: ANN401
    """Return the runner: there when the first event comes."""
    return environment.runner


def _target(host: str, options: Any) -> Target:  # noqa: ANN401
    """Return whom and what is asked about.  Raises: NotReady, ValueError."""
    if not host:
        raise NotReady("whom to ask? --host http://HOST:PORT")
    where = urlsplit(host)
    try:
        port = where.port
    except ValueError as exc:
        raise NotReady(f"--host {host}: {exc}") from exc
    if where.scheme not in ("http", "https") or not where.hostname or where.path not in ("", "/"):
        raise NotReady(f"--host {host}: expected http://HOST[:PORT] or https://HOST[:PORT]; --path is apart")
    folder = Path(options.population)
    population = Population.load(folder)
    tls = None
    if where.scheme == "https":
        tls = tls_context(options.ca_file, options.client_cert, options.client_key)
    elif options.client_cert or options.ca_file:
        raise NotReady(f"--host {host}: --ca-file and --client-cert are for https")
    try:
        place = Place.resolve(where.hostname, port or (80 if tls is None else 443), tls, options.source)
    except OSError as exc:
        raise NotReady(f"--host {host}: no such host: {exc.strerror or exc}") from exc
    target = Target(population, place, options.path)
    log = Path(options.revoked_log) if options.revoked_log else folder / REVOKED_LOG
    target.revoked = RevokedMeanwhile(log)
    target.unknown_answer = options.unknown_answer
    target.nonce_optional = options.nonce_optional
    target.verify_one_in = options.verify_one_in
    target.crls = _crls(options)
    return target


def _crls(options: Any) -> tuple[str, ...]:  # noqa: ANN401
    if options.crls:
        return () if options.crls == _NO_CRLS else tuple(options.crls.split())
    # The demo's folders are called as the services are.
    service = Path(options.population).name.lower()
    return tuple(f"/crl/{service}/g1/all/{kind}.crl" for kind in ("complete", "delta"))


def _follow(environment: Environment, target: Target, is_first: bool) -> None:
    watched_s = 0.0
    while True:
        for serial in target.tick():
            target.findings.flaw(True, "revocations", f"{serial.hex()}: {GOOD_AFTER_ALL}")
            environment.stats.log_error("", "revocations", f"wrong: {GOOD_AFTER_ALL}")
        now_s = time.perf_counter()
        if now_s - watched_s > _WATCH_S:
            watched_s = now_s
            for connection in list(target.connections):
                connection.give_up_if_overdue(now_s)
            limit = _options(environment).give_up_after
            if is_first and limit and environment.stats.total.num_failures >= limit:
                _options(environment).gave_up = True
                print(f"given up after {environment.stats.total.num_failures} failures", flush=True)
                _runner(environment).quit()
                return
        gevent.sleep(_TICK_S)


def _start(environment: Environment) -> None:
    """A run begins, in each process."""
    options, runner, target = _options(environment), _runner(environment), StatusUser.target
    if not isinstance(runner, WorkerRunner):
        options.peak_users = runner.target_user_count or options.num_users or 1
    target.crls = _crls(options)
    target.begun_s = time.perf_counter()
    target.findings.begin()


def _report(environment: Environment, run: _Run) -> None:
    """Let this process's findings reach the first one."""
    runner = _runner(environment)

    def tell(data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
        data["certstatus"] = _findings(runner.state == STATE_STOPPED)

    def hear(client_id: str, data: dict[str, Any]) -> None:
        if "certstatus" in data:
            run.reports[client_id] = data["certstatus"]

    def last_words(**_: Any) -> None:  # noqa: ANN401
        until_s = time.monotonic() + _LAST_REPORTS_S
        while runner.state == STATE_CLEANUP and time.monotonic() < until_s:
            # Told to stop, too: its users have not all put into the statistics what they counted.
            gevent.sleep(_TICK_S)
        runner.stop()
        runner._send_stats()

    if isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(tell)
        runner.register_message(_REPORT_NOW, lambda **_: runner._send_stats())
        # Runs before locust's own listener, which takes leave of the first process.
        environment.events.quitting.add_listener(last_words)
    elif isinstance(runner, MasterRunner):
        environment.events.worker_report.add_listener(hear)
        # Locust waits half a second for the last reports, and does without those that come later.
        runner.quit = _reports_first(runner, run, runner.quit)  # type: ignore[method-assign]


def _reports_first(runner: MasterRunner, run: _Run, leave: Callable[[], None]) -> Callable[[], None]:
    first = gevent.getcurrent()

    def stop_and_leave() -> None:
        runner.stop()
        if runner.clients.all:
            runner.send_message(_REPORT_NOW)
        until_s = time.monotonic() + _LAST_REPORTS_S
        while time.monotonic() < until_s and run.unreported():
            gevent.sleep(_TICK_S)
        leave()

    def leave_later() -> None:
        # Locust also leaves from the greenlet that reads the reports: that one must not wait for them.
        if gevent.getcurrent() is first:
            stop_and_leave()
        else:
            gevent.spawn(stop_and_leave)

    return leave_later


def _findings(ended: bool) -> dict[str, Any]:
    findings = StatusUser.target.findings
    values = findings.as_json()
    if ended:
        findings.ended = values["ended"] = True
    return values


def _sum_up(environment: Environment, run: _Run) -> None:
    runner, options = _runner(environment), _options(environment)
    if isinstance(runner, WorkerRunner):
        return
    if runner.state != STATE_STOPPED:
        # Interrupted: what the users have counted is still theirs.
        runner.quit()
    reports = list(run.reports.values()) if isinstance(runner, MasterRunner) else [_findings(ended=True)]
    summary = judge(
        environment.stats,
        together(reports),
        Objectives(options.p99_ms, options.failures_max, options.rate_min),
        unreported=run.unreported(),
        exceptions=len(runner.exceptions),
        stopped=getattr(options, "gave_up", False),
    )
    print(summary.text(), flush=True)
    if options.summary:
        Path(options.summary).write_text(json.dumps(summary.as_json(), indent=2) + "\n", encoding="utf-8")
    environment.process_exit_code = 0 if summary.passed else 1
