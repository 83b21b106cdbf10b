"""The load test against a responder that lies: whatever is wrong fails the run, by name, with its octets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.x509 import ocsp
from load_cases import Liar, begin, load, octets

from bench.revoked_meanwhile import this_boot

# Loads and rates, which others beside them would spoil.
pytestmark = pytest.mark.alone

FIRST = 0x4A << 112
WRONG = {
    "revoked": "wrong: revoked instead of good",
    "stale": "wrong: its nextUpdate has passed",
    "future": "wrong: its thisUpdate lies in the future",
    "about another": "wrong: no answer about the CertID that was asked for",
    "other nonce": "wrong: with another nonce",
    "other key": "wrong: not verified: the signature is wrong",
    "type": "wrong: not of type application/ocsp-response",
    "good after all": "wrong: good although its revocation had been acknowledged before the question",
}
MISSING = {
    "no nonce": "missing: without the nonce",
    "tryLater": "missing: tryLater",
    "500": "missing: HTTP 500",
    "ends the connection": "missing: the connection ended without an answer",
}


def lies(*names: str) -> dict[int, str]:
    """The truth about the first certificate, and one lie about each of the others."""
    return dict(enumerate(("truth", *names), FIRST))


def test_every_lie_is_found_and_told(tmp_path: Path) -> None:
    """Each kind of wrong and of missing answer is a failure of its own, and the run's exit code is 1."""
    liar = Liar(lies(*WRONG, *MISSING))
    population = liar.write(tmp_path / "population")
    after_all = octets(next(serial for serial, lie in liar.lies.items() if lie == "good after all"))
    (population / "revoked.log").write_text(f"? {after_all.hex()}\n! {after_all.hex()} 0.001 {this_boot()}\n")
    with liar.running(population) as url:
        words = ("--verify-one-in", "1", "--give-up-after", "0", "--rate-min", "1e9", "--p99-ms", "0")
        run = load(tmp_path, url, population, *words, "Cold")
    assert run.code == 1, run.output
    causes = run.causes()
    assert set(causes) == {*WRONG.values(), *MISSING.values()}
    for kind, names in (("wrong", WRONG), ("missing", MISSING)):
        assert sum(causes[cause] for cause in names.values()) == run.summary[kind]
    failed = {item["name"] for item in run.summary["checks"] if not item["passed"]}
    assert failed == {"wrong answers", "missing answers", "p99", "rate"}
    assert "FAIL  wrong answers" in run.output
    assert "OBJECTIVES NOT MET" in run.output
    wrong = [case for case in run.summary["failed_answers"] if case["kind"] == "wrong"]
    assert wrong
    for case in wrong:
        request = bytes.fromhex(case["request_hex"]).partition(b"\r\n\r\n")[2]
        serial = ocsp.load_der_ocsp_request(request).serial_number
        assert f"wrong: {case['what']}" == WRONG[liar.lies[serial]]
        assert case["answer_hex"].startswith(b"HTTP/1.1 200".hex())


def test_one_missing_answer_is_forgiven_if_told_so_and_a_wrong_one_never(tmp_path: Path) -> None:
    """failures-max and nonce-optional are for missing answers alone."""
    allowed = ("--failures-max", "1000000", "--give-up-after", "0", "--nonce-optional", "Cold")
    missing = Liar(lies("tryLater", "no nonce"))
    population = missing.write(tmp_path / "missing")
    with missing.running(population) as url:
        run = load(tmp_path, url, population, *allowed)
    assert run.code == 0, run.output
    assert set(run.causes()) == {"missing: tryLater"}
    wrong = Liar(lies("revoked"))
    population = wrong.write(tmp_path / "wrong")
    with wrong.running(population) as url:
        run = load(tmp_path, url, population, *allowed)
    assert run.code == 1, run.output


def test_processes_sum_up_what_each_has_found(tmp_path: Path) -> None:
    """With two processes requests, failures, causes and octets are those of both; none is lost at the end."""
    liar = Liar(lies("revoked", *["truth"] * 6))
    population = liar.write(tmp_path / "population")
    report = tmp_path / "report.html"
    words = ("--processes", "2", "--users", "8", "--give-up-after", "0", "--html", str(report), "Cold")
    with liar.running(population) as url:
        run = load(tmp_path, url, population, *words)
    assert run.code == 1, run.output
    assert run.summary["processes"] == 2
    # One before the load; and those that were on their way when the users were stopped.
    served = sum(liar.asked.values()) - 1
    assert served - 8 <= run.summary["requests"] == run.summary["answers"] <= served
    lied = liar.asked[FIRST + 1]
    assert lied - 8 <= run.summary["wrong"] == run.causes()[WRONG["revoked"]] <= lied
    assert 20 < len(run.summary["failed_answers"]) <= 40
    text = report.read_text()
    assert "Cold: nonce" in text
    assert "revoked instead of good" in text


def test_interrupted_processes_still_sum_up(tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to all of them, ends the run with everything that was counted."""
    liar = Liar(lies("truth", "truth"))
    population = liar.write(tmp_path / "population")
    with liar.running(population) as url:
        words = ("--processes", "2", "--users", "8", "--run-time", "1h", "Cold")
        loading = begin(tmp_path, url, population, *words)
        until = time.monotonic() + 20
        while sum(liar.asked.values()) < 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        run = loading.interrupt()
    assert run.code == 0, run.output
    served = sum(liar.asked.values()) - 1
    assert served - 8 <= run.summary["requests"] == run.summary["answers"] <= served


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    """A run that only fails does not go on for its hour."""
    liar = Liar(lies("tryLater"))
    population = liar.write(tmp_path / "population")
    with liar.running(population) as url:
        run = load(tmp_path, url, population, "--run-time", "1h", "--give-up-after", "20", "Cold")
    assert run.code == 1
    assert "given up after" in run.output
    assert not next(item for item in run.summary["checks"] if item["name"] == "end")["passed"]


def test_https_with_a_client_certificate(tmp_path: Path) -> None:
    """A private CA and a certificate of one's own: without either it is said what is missing."""
    liar = Liar(lies("truth", "truth"), tls=True)
    population = liar.write(tmp_path / "population")
    own = ("--client-cert", str(population / "both.pem"))
    trusted = ("--ca-file", str(population / "ca.pem"))
    with liar.running(population) as url:
        run = load(tmp_path, url, population, *own, *trusted, "RealClients")
        assert run.code == 0, run.output
        assert run.named("RealClients: ") > 0
        untrusted = load(tmp_path, url, population, *own)
        assert (untrusted.code, "not trusted" in untrusted.output) == (2, True), untrusted.output
        unknown = load(tmp_path, url, population, *trusted)
        assert (unknown.code, "--client-cert" in unknown.output) == (2, True), unknown.output


@pytest.mark.parametrize(
    ("host", "lie", "expected"),
    [
        ("http://127.0.0.1:1", "", "Connection refused; is it running"),
        ("http://nobody.invalid:80", "", "no such host"),
        ("127.0.0.1:80", "", "expected http://HOST"),
        ("", "tryLater", "tryLater: the responder is not ready"),
        ("", "500", "HTTP 500"),
        ("", "ends the connection", "is this an OCSP responder"),
        ("", "other key", "not verified under the population's ca.pem"),
        ("", "revoked", "revoked there and good in the population"),
    ],
)
def test_what_is_wrong_at_the_start_is_said_before_the_load(
    tmp_path: Path, host: str, lie: str, expected: str
) -> None:
    """A wrong host, a responder that is not ready, a population of another day: a sentence, and no load."""
    liar = Liar({FIRST: lie})
    population = liar.write(tmp_path / "population")
    with liar.running(population) as url:
        run = load(tmp_path, host or url, population)
    assert run.code == 2, run.output
    assert "not begun: " in run.output
    assert expected in run.output
    assert sum(liar.asked.values()) <= 1
