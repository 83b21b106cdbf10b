"""What the cost table stands on: CPU time of processes, the generator and its words, the counters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import legs
from bench.cpu_time import children, cpu_ns
from bench.generator import Load, Requests, read_said, write_requests
from bench.legs import Bench, PullsLeg, Replaced, SignatureLeg
from bench.measure import Measured, Timing, run, wait_for_sent
from bench.paths import measure, measure_station
from bench.plain_aiohttp import PlainAiohttp
from bench.questions import WrongAnswer
from bench.rows import RowPlan
from bench.server import ask
from bench.signature_speed import signature_us
from bench.stations import Legs, Scene
from bench.subject import Processors
from bench.table import Station, chosen
from bench.tally import Count, NotCounted, Tally, check_counted
from bench.tls_files import make_tls_files
from certstatus.counters import CounterFile, Provision

# A process with a thread that has ended, a child, and a clock to compare with.
_BUSY = """
import subprocess, sys, threading, time
def work():
    until = time.thread_time() + 0.1
    while time.thread_time() < until: pass
thread = threading.Thread(target=work); thread.start(); thread.join()
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(time.process_time_ns(), child.pid, flush=True)
input()
"""


def test_cpu_time_counts_threads_that_have_ended_and_not_the_children() -> None:
    """Another process's clock says what that process says of itself; children are found, not counted."""
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        own_ns, child = map(int, process.stdout.readline().split())
        assert own_ns >= 100_000_000
        assert own_ns <= cpu_ns(process.pid) < own_ns + 50_000_000
        assert children(process.pid) == [child]
        # It may not have had a processor yet.
        until_s = time.monotonic() + 10
        while not cpu_ns(child):
            assert time.monotonic() < until_s
        assert cpu_ns(process.pid, child) > cpu_ns(process.pid)
        process.communicate("\n")
    with pytest.raises(OSError, match=r".*"):
        cpu_ns(process.pid)


def test_a_process_that_sleeps_costs_nothing() -> None:
    """Wall time is not CPU time."""
    with subprocess.Popen(["sleep", "10"]) as process:
        before = cpu_ns(process.pid)
        time.sleep(0.1)
        assert cpu_ns(process.pid) - before < 20_000_000
        process.kill()


def test_failures_are_found_in_what_wrk_says() -> None:
    """Answers of 400 and above and every kind of socket error are failures; nonsense is no result."""
    text = "  1234 requests in 1.00s, 1.00MB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n"
    said = read_said(text + "  Non-2xx or 3xx responses: 5\n")
    assert (said.requests, said.failures) == (1234, 15)
    assert read_said("  7 requests in 2.00ms, 1.00KB read\n").failures == 0
    with pytest.raises(RuntimeError, match="nothing of use"):
        read_said("unable to connect")


# --- counters --------------------------------------------------------------------------------------


@pytest.fixture
def counters(tmp_path: Path) -> Iterator[tuple[CounterFile, Tally]]:
    """A counter file and who reads it."""
    with closing(Tally(tmp_path)) as tally:
        yield CounterFile(tmp_path, bytes(16), "host", 0, 0, 16), tally


def test_the_tally_follows_a_file_that_is_removed(
    counters: tuple[CounterFile, Tally], tmp_path: Path
) -> None:
    """What a sealed file said in the end is not lost when the host removes it, and a new one adds to it."""
    file, tally = counters
    row = file.row(7, 1)
    file.cells[row + Provision.GOOD] = 5
    assert tally.read() == Count(5, 0)
    file.cells[row + Provision.REVOKED] = 2
    file.cells[row + Provision.REFUSED_TRY_LATER] = 1
    file.path.unlink()
    another = CounterFile(tmp_path, bytes(16), "host", 0, 3600, 16)
    another.cells[another.row(7, 1) + Provision.UNKNOWN] = 3
    assert tally.read() == Count(10, 1)


def test_an_answer_to_somebody_who_is_not_registered_is_found(counters: tuple[CounterFile, Tally]) -> None:
    """Row 0 is anybody: whoever measures it has not measured entitlement."""
    file, tally = counters
    file.cells[file.row(0, 1) + Provision.GOOD] = 1
    with pytest.raises(NotCounted, match="not registered"):
        tally.read()


def test_what_was_answered_must_have_been_counted() -> None:
    """From what was answered to what was sent; each certificate of a request counts; no refusals."""
    single = Requests(Path("x"), 10, True)
    for given in (8, 9, 10):
        check_counted(Count(100, 4), Count(100 + given, 4), single, 10, 8)
    for given in (7, 11):
        with pytest.raises(NotCounted):
            check_counted(Count(0, 0), Count(given, 0), single, 10, 8)
    several = Requests(Path("x"), 3, False, (0, 1, 6, 7))
    check_counted(Count(0, 0), Count(7, 0), several, 3, 3)
    check_counted(Count(0, 0), Count(2, 0), several, 3, 2)
    with pytest.raises(NotCounted):
        check_counted(Count(0, 0), Count(3, 0), several, 3, 3)
    with pytest.raises(NotCounted, match="refused"):
        check_counted(Count(0, 0), Count(10, 1), single, 10, 10)


# --- servers and generator ---------------------------------------------------------------------------


@pytest.fixture
def processors() -> Iterator[Processors]:
    """Where server and generator run; this process stays where it is."""
    before = os.sched_getaffinity(0)
    yield Processors.available()
    os.sched_setaffinity(0, before)


def test_requests_are_sent_in_order_once_each_and_counted(tmp_path: Path, processors: Processors) -> None:
    """The generator says how many it has sent; whoever sends more than were prepared has no result."""
    requests = [b"GET /ocsp/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)]
    with PlainAiohttp(tmp_path, b"answer", processors.server) as server:
        assert ask(server.port, requests[0]) == (200, b"answer")
        again = write_requests(tmp_path / "again", requests, again=True)
        ran = run(tmp_path, server, again, 4, processors.others, Timing(0.0, 0.1))
        assert ran.said.requests <= ran.sent <= ran.said.requests + 8
        assert 0 < ran.measured.us < 1e6 / ran.measured.per_s * 1.1
        once = write_requests(tmp_path / "once", requests)
        with Load(tmp_path, server.port, once, 4, processors.others) as load:
            wait_for_sent(load, once.count + 1)
            with pytest.raises(RuntimeError, match="only 20 prepared"):
                load.stop()


def test_failed_requests_are_no_measurement(tmp_path: Path, processors: Processors) -> None:
    """A server that answers 404 is not fast, it is wrong."""
    nowhere = write_requests(tmp_path / "r", [b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"], again=True)
    with (
        PlainAiohttp(tmp_path, b"answer", processors.server) as server,
        pytest.raises(RuntimeError, match="failures="),
    ):
        run(tmp_path, server, nowhere, 4, processors.others, Timing(0.0, 0.05))


def test_a_signature_is_timed_beside_a_generator_that_waits(
    tmp_path: Path, processors: Processors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As busy as beside a server that is still signing; and it is gone after that."""
    spent_ns: list[int] = []

    def watch(algorithm: str, processor: int) -> float:
        assert (algorithm, processor) == ("p256", processors.server)
        (generator,) = _generators()
        before_ns = cpu_ns(generator)
        time.sleep(0.2)
        spent_ns.append(cpu_ns(generator) - before_ns)
        return signature_us(algorithm, processor)

    monkeypatch.setattr(legs, "signature_us", watch)
    leg = SignatureLeg(Bench(tmp_path, processors.others, Timing()), "p256", processors.server)
    assert 1 < leg.take().us < 10_000
    # It never sleeps; where the machine has other things to do, it had some of the time.
    assert spent_ns[0] > 10_000_000
    assert not _generators()


def _generators() -> list[int]:
    """Processes of this one that are wrk."""
    return [pid for pid in children(os.getpid()) if Path(f"/proc/{pid}/comm").read_text() == "wrk\n"]


def test_both_ends_of_tls_trust_each_other(tmp_path: Path) -> None:
    """Certificates made for the benchmark verify under OpenSSL, with their purposes."""
    files = make_tls_files(tmp_path)
    for purpose, name in (("sslserver", files.server_certificate), ("sslclient", files.client_certificate)):
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            *map(str, (files.ca, name)),
        ]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_row_is_really_measured(tmp_path: Path, processors: Processors) -> None:
    """A real installation against openssl, with all checks, for a moment."""
    (station,) = chosen(["openssl: never asked before"])
    os.sched_setaffinity(0, {processors.others})
    bench = Bench(tmp_path, processors.others, Timing(0.05, 0.1))
    (row,), size = measure_station(station, Scene(bench, processors, 1000, 150_000), 1, 0)
    assert size > 500
    assert len(row.rounds) == 1
    assert 1 < row.subject_us.median < 1000
    assert row.ratio.median == pytest.approx(row.subject_us.median / row.yardstick_us.median, rel=0.01)


def test_a_station_that_fails_costs_no_other_rows(
    tmp_path: Path, processors: Processors, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured before and after it is there, and it is named."""

    class Constant:
        def take(self) -> Measured:
            return Measured(10.0, 1.0, 5.0)

    @contextmanager
    def open_quietly(_: Scene) -> Iterator[Legs]:
        yield Legs(ours=Constant(), theirs=Constant())

    @contextmanager
    def open_in_vain(_: Scene) -> Iterator[Legs]:
        raise ConnectionError("no such server")
        yield Legs()

    plan = RowPlan("a path", 1, "another", "ours", {"theirs": 1.0})
    stations = [
        Station("first", open_quietly, (plan,)),
        Station("second", open_in_vain, (plan,)),
        Station("third", open_quietly, (plan,)),
    ]
    bench = Bench(tmp_path, processors.others, Timing(0.05, 0.1))
    rows, sizes, failed = measure(stations, Scene(bench, processors, 1000, 1000), 2, 0)
    assert [row.ratio.median for row in rows] == [1.0, 1.0]
    assert (len(sizes), failed) == (2, ["second"])
    assert "no such server" in capsys.readouterr().err


@dataclass
class Renewing:
    """A measurement of something that is replaced in the first *replaced* of them."""

    replaced: int
    taken: int = 0
    learned: int = 0

    def learn(self) -> None:
        self.learned += 1

    def take(self) -> Measured:
        self.taken += 1
        if self.taken <= self.replaced:
            raise Replaced
        return Measured(float(self.taken))


@pytest.mark.parametrize("replaced", [0, 1, 2])
def test_pulls_of_a_crl_that_is_replaced_are_measured_again(replaced: int) -> None:
    load = Renewing(replaced)
    assert PullsLeg(load.learn, load).take().us == replaced + 1
    assert load.learned == load.taken == replaced + 1


def test_pulls_of_a_crl_that_is_always_replaced_are_given_up() -> None:
    load = Renewing(99)
    with pytest.raises(WrongAnswer, match="each time"):
        PullsLeg(load.learn, load).take()
    assert load.taken == 3
