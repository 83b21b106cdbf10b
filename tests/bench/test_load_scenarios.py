"""The load test's scenarios against a real installation, as an operator runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from load_cases import ROOT, begin, load
from served_installation import Served

from bench.national_mix import CRL_PULLS, STATUS_REQUESTS
from bench.real_clients import real_clients

# Loads and rates, which others beside them would spoil.
pytestmark = pytest.mark.alone

MIXES = ("NationalMix", "ZipfMix")
ENTITLED = (*MIXES, "RealClients", "Repeated", "Cold", "Unknown", "MorningPeak", "CRLPull")
USERS = 16


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation whose verifiers are 127.0.0.1, 127.0.0.4 and, ended, 127.0.0.3."""
    installation = Served(tmp_path_factory.mktemp("load"))
    try:
        installation.run("init")
        installation.run("demo", "--population", "200")
        for item in installation.json("verifier", "list"):
            installation.run("verifier", "end", str(item["verifier_id"]), "--no-wait")
        add = ("verifier", "add", "--no-wait", "--grant", "AUTH", "--network")
        installation.run(*add, "127.0.0.1/32", "load test")
        installation.run(*add, "127.0.0.4/32", "counted")
        installation.run(*add, "127.0.0.3/32", "somebody else")
        ended = max(item["verifier_id"] for item in installation.json("verifier", "list"))
        installation.run("verifier", "end", str(ended), "--no-wait")
        yield installation.serve(workers=2)
    finally:
        installation.clean_up()


@pytest.fixture
def population(served: Served) -> Path:
    """The population of AUTH."""
    return served.state / "demo" / "auth"


def test_every_scenario_runs_while_certificates_are_revoked(
    served: Served, population: Path, tmp_path: Path
) -> None:
    """Eight scenarios at once, revocations and a new CRL meanwhile: nothing is wrong, all is reported."""
    report = tmp_path / "report.html"
    words = [sys.executable, "-m", "bench.revoke_some", "--config", str(served.config), "--service", "AUTH"]
    words += ["--population", str(population), "--rate", "20", "--count", "40"]
    revoking = subprocess.Popen(words, cwd=ROOT)
    path = "/crl/auth/g1/all/complete.crl"
    old, until = served.get(path), time.monotonic() + 30
    loading = begin(tmp_path, served.url, population, "--run-time", "1h", "--html", str(report), *ENTITLED)
    try:
        # Everybody has the old one, and asks for a newer one every second.
        time.sleep(2.5)
        served.run("publish", "now", "--all")
        while served.get(path) == old:
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(2.5)
    finally:
        run = loading.interrupt()
        revoking.terminate()
        revoking.wait()
    assert run.code == 0, run.output
    assert run.summary["wrong"] == run.summary["missing"] == 0
    text = report.read_text()
    expected = [f"{name}: {shape.name}" for name in MIXES for shape in STATUS_REQUESTS]
    expected += [f"RealClients: {client.name}" for client in real_clients()]
    expected += ["Repeated: ", "Cold: nonce", "Unknown: GET", "Unknown: POST", "MorningPeak: nonce"]
    expected += [f"CRLPull: /crl/auth/g1/all/{pull.kind}.crl" for pull in CRL_PULLS]
    for name in expected:
        assert run.named(name) > 0, name
        assert name in text
    log = (population / "revoked.log").read_text()
    assert log.count("!") > 10
    # Two relying parties fetched each CRL, and each again when it had changed; in between, it had not.
    assert run.named("CRLPull: /crl/auth/g1/all/complete.crl, not modified") > 0
    fetched = run.named("CRLPull: /crl/auth/g1/all/complete.crl") - run.named(
        "CRLPull: /crl/auth/g1/all/complete.crl, not modified"
    )
    assert fetched >= 2 * 2
    assert run.summary["verified"] > 0


def test_two_processes_are_counted_as_the_responder_counts(
    served: Served, population: Path, tmp_path: Path
) -> None:
    """The answers of all processes are the provisions that the verifier was given."""

    def given() -> int:
        return sum(item["count"] for item in served.json("provisions") if item["verifier"] == "counted")

    words = ("--source", "127.0.0.4", "--processes", "2", "--rate-min", "10", "Repeated")
    run = load(tmp_path, served.url, population, *words)
    assert run.code == 0, run.output
    assert run.summary["processes"] == 2
    until = time.monotonic() + 20
    while (counted := given()) < run.summary["certificates"]:
        assert time.monotonic() < until, counted
        time.sleep(0.1)
    # Not in the summary: the look before the load, and what was on its way when the users were stopped.
    assert counted <= run.summary["certificates"] + 3 + USERS
    # What the generator itself costs; several times what it is, so that a busy machine passes.
    assert run.summary["cpu_us"] < 150


def test_strangers_are_told_before_the_load(served: Served, population: Path, tmp_path: Path) -> None:
    """Whoever is not registered reads so, with the command that helps."""
    run = load(tmp_path, served.url, population, "--source", "127.0.0.2")
    assert run.code == 2, run.output
    assert "127.0.0.2 is not registered as a verifier" in run.output
    assert "certstatus verifier add" in run.output
    run = load(tmp_path, served.url, population, "NotEntitled")
    assert run.code == 2, run.output
    assert "this machine is a registered verifier" in run.output
    run = load(tmp_path, served.url, population, "NotEntitled", "Cold")
    assert (run.code, "run it alone" in run.output) == (2, True), run.output


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.3"])
def test_strangers_and_former_verifiers_are_refused_every_time(
    served: Served, population: Path, tmp_path: Path, source: str
) -> None:
    """Never registered, or ended: every answer is unauthorized, and the run passes because of that."""
    run = load(tmp_path, served.url, population, "--source", source, "NotEntitled")
    assert run.code == 0, run.output
    assert run.named("NotEntitled: ") > 100


def test_a_population_of_another_day_fails(served: Served, population: Path, tmp_path: Path) -> None:
    """Revoked since, and no log that says so: the run fails; written anew, it passes."""
    folder = shutil.copytree(population, tmp_path / "auth")
    (folder / "revoked.log").unlink(missing_ok=True)
    serial = served.serial("good").lower()
    served.run("revoke", serial, "--service", "AUTH", "--cause", "key-leaked")
    lines = (folder / "population.csv").read_text().splitlines()
    # The first is asked about before the load already.
    rest = [line for line in lines[1:] if not line.startswith(serial)]
    (folder / "population.csv").write_text("\n".join([lines[0], rest[0], f"{serial},good"]) + "\n")
    run = load(tmp_path, served.url, folder, "Cold")
    assert run.code == 1, run.output
    assert set(run.causes()) == {"wrong: revoked instead of good"}
    words = [sys.executable, "-m", "bench.write_population", "--config", str(served.config)]
    subprocess.run([*words, "--service", "AUTH", str(folder)], cwd=ROOT, check=True)
    assert f"{serial},revoked" in (folder / "population.csv").read_text()
    assert load(tmp_path, served.url, folder, "Cold").code == 0


def test_one_command_loads_what_runs_here(served: Served) -> None:
    """load_here finds the installation, writes whom to ask about, and leaves report and summary."""
    words = [sys.executable, "-m", "bench.load_here", "--state", str(served.state)]
    words += ["--host", served.url, "--run-time", "1s", "--users", "8", "--p99-ms", "5000", "RealClients"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 certificates of AUTH" in done.stdout
    assert "objectives met" in done.stdout
    for name in ("report.html", "summary.json", "auth/population.csv"):
        assert (served.state / "bench" / name).exists()


def test_load_here_says_that_nothing_runs(tmp_path: Path) -> None:
    """Before the first start, and after the last stop."""
    words = [sys.executable, "-m", "bench.load_here", "--state", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not begun: " in done.stdout
