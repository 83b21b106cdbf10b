"""The operators' page and the metrics, from what the processes wrote down."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from catalogue_cases import catalogue_line
from prometheus_client import CollectorRegistry, generate_latest
from responder_cases import CA

from certstatus.crl_catalogue import CatalogueEntry
from responder.metrics import RunCollector
from responder.run_status import SILENT_S, RunStatus, read_run_status
from responder.start_page import PageContent, render

NOW_S = int(time.time())
CA_1 = CA(1, "SIGN", NOW_S)


def write(folder: Path, name: str, **content: Any) -> Path:
    """Write a status file as its process would."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"pid": os.getpid(), **content}))
    return path


def worker(folder: Path, slot: int, **more: Any) -> Path:
    """Write a worker's status file."""
    counts = {"good": 3, "refused_crl": 1}
    return write(folder, f"worker-{slot}", slot=slot, ready=True, beat_age_ms=1500, provisions=counts, **more)


def page(status: RunStatus, problem: str = "", crls: tuple[CatalogueEntry, ...] = ()) -> str:
    """Render the page of an installation with one issuer."""
    content = PageContent(
        host="h<1>",
        public_url="http://127.0.0.1:8080",
        workers_configured=2,
        status=status,
        beat=None,
        issuers=(CA_1.issuer,),
        crls=crls,
        problem=problem,
        now_ms=NOW_S * 1000,
    )
    return render(content)


def exposed(status: RunStatus) -> dict[str, float]:
    """Return the metrics by name and labels."""
    registry = CollectorRegistry()
    registry.register(RunCollector(status, 2))
    lines = generate_latest(registry).decode().splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")
    }


def test_numbers_are_added_up_over_all_workers(tmp_path: Path) -> None:
    """The page shows sums; the metrics show each worker, so that Prometheus can add them up."""
    worker(tmp_path, 0)
    worker(tmp_path, 1)
    status = read_run_status(tmp_path, NOW_S)
    assert status.totals("provisions") == {"good": 6, "refused_crl": 2}
    text = page(status)
    assert '<span class="good">2 of 2</span>' in text
    assert "<td>OCSP good</td><td class=n>6</td>" in text
    metrics = exposed(status)
    assert metrics['certstatus_provisions_total{kind="good",slot="0"}'] == 3
    assert metrics['certstatus_provisions_total{kind="good",slot="1"}'] == 3
    assert metrics['certstatus_beat_age_seconds{slot="0"}'] == 1.5
    assert metrics["certstatus_workers_configured"] == 2


def test_who_is_gone_or_silent_does_not_count(tmp_path: Path) -> None:
    """A status file outlives its writer; what it says then is the past."""
    worker(tmp_path, 0)
    path = worker(tmp_path, 1)
    path.write_text(path.read_text().replace(str(os.getpid()), str(2**22)))
    write(tmp_path, "feed", seq=5)
    old = time.time() - SILENT_S - 5
    os.utime(tmp_path / "feed.json", (old, old))
    (tmp_path / "builder.json").write_text("half a fi")
    status = read_run_status(tmp_path, time.time())
    assert [item["slot"] for item in status.workers] == [0]
    assert status.feed is None
    assert status.builder is None
    assert '<span class="wait">1 of 2</span>' in page(status)
    assert exposed(status)['certstatus_process_up{process="feed"}'] == 0


def test_nothing_running_is_a_page_too(tmp_path: Path) -> None:
    """Operators look exactly when something is wrong."""
    status = read_run_status(tmp_path / "absent", NOW_S)
    text = page(status, problem="Valkey: connection refused")
    assert '<span class="bad">0 of 2</span>' in text
    assert "Valkey: connection refused" in text
    assert exposed(status)["certstatus_workers_configured"] == 2


def test_trouble_is_shown_where_it_is(tmp_path: Path) -> None:
    """A builder's failing task, a worker's doubt, a certificate that will end."""
    worker(tmp_path, 0, trouble="a beat's signature does not verify", unfit_keys={"1-02ab": "no key"})
    tasks = {"crl": {"error": "no space left"}, "snapshot": {"error": ""}}
    write(tmp_path, "builder", tasks=tasks, error="crl: no space left")
    certificate = {
        **{"issuer_id": 1, "service": "SIGN", "generation": 1, "state": "alarm", "serial": "ab" * 16},
        **{"problem": "expires in 90 s and there is no successor", "not_after_s": NOW_S + 90},
    }
    write(tmp_path, "agent", certificates=[certificate], counters={"waiting": 2}, crl_files={"awaited": 3})
    status = read_run_status(tmp_path, NOW_S)
    text = page(status)
    for expected in ("a beat&#x27;s signature", "crl: no space left", "there is no successor", "in 90 s"):
        assert expected in text, expected
    # The builder's own words have those of its tasks in them.
    assert text.count("no space left") == 1
    metrics = exposed(status)
    assert metrics['certstatus_builder_task_failing{task="crl"}'] == 1
    assert metrics['certstatus_builder_task_failing{task="snapshot"}'] == 0
    assert metrics['certstatus_responder_certificate_alarm{generation="1",service="SIGN"}'] == 1
    assert metrics['certstatus_key_pair_unfit{pair="1-02ab",slot="0"}'] == 1
    assert metrics['certstatus_counter_files{state="waiting"}'] == 2
    assert metrics["certstatus_fetched_crl_files_awaited"] == 3


def test_current_crls_are_linked_and_late_ones_stand_out(tmp_path: Path) -> None:
    """Old bases are not listed; a CRL past its nextUpdate is marked."""
    entry = catalogue_line("sign/g1/all", 7, NOW_S - 100, next_update_s=NOW_S - 1, next_issue_s=NOW_S - 50)
    text = page(read_run_status(tmp_path, NOW_S), crls=(entry,))
    assert 'href="http://127.0.0.1:8080/crl/sign/g1/all/complete.crl"' in text
    assert '<span class="bad">' in text.partition("next update")[2].partition("</table>")[0]


def _crls(failing: int, overdue_s: float, named: int) -> dict[str, Any]:
    """What a builder says of the CRLs of two issuers, one of which has troubles."""
    sums = {"generation": 1, "scopes": 2000, "due": failing}
    return {
        "issuers": [
            {"service": "SIGN", "failing": failing, "overdue_s": overdue_s, **sums},
            {"service": "AUTH", "failing": 0, "overdue_s": 0.3, **sums},
        ],
        "troubles": [
            {"scope": f"sign/g1/m1/{n:05}", "error": "KeyFileError: <gone>", "since_ms": 1, "overdue_s": 9.0}
            for n in range(named)
        ],
        "troubles_total": failing,
    }


def test_crls_that_are_not_made_raise_an_alarm_by_issuer(tmp_path: Path) -> None:
    """Two series for each issuer, however many scopes; the page names some of them and counts the rest."""
    write(tmp_path, "builder", tasks={}, crls=_crls(27, 7300.5, 20))
    status = read_run_status(tmp_path, NOW_S)
    metrics = exposed(status)
    assert metrics['certstatus_crl_failing{generation="1",service="SIGN"}'] == 27
    assert metrics['certstatus_crl_failing{generation="1",service="AUTH"}'] == 0
    assert metrics['certstatus_crl_overdue_seconds{generation="1",service="SIGN"}'] == 7300.5
    assert sum(name.startswith("certstatus_crl_") for name in metrics) == 4
    text = page(status)
    assert "SIGN generation 1: 27 of 2\u202f000 scopes fail, overdue 2 hours" in text
    assert "AUTH generation 1" not in text
    assert text.count("KeyFileError: &lt;gone&gt;") == 20
    assert "and 7 further scopes" in text


def test_what_the_register_has_lost_raises_an_alarm(tmp_path: Path) -> None:
    """A number to watch, and the builder's words on the page; one of an earlier version says nothing."""
    trouble = "register: the store is not what was recorded: change 8: lost, up to 9"
    register = {"wrong": 2, "trouble": trouble, "checked": 9, "ended_ms": 7000}
    write(tmp_path, "builder", tasks={}, error=trouble, register=register)
    status = read_run_status(tmp_path, NOW_S)
    metrics = exposed(status)
    assert metrics["certstatus_register_changes_wrong"] == 2
    assert metrics["certstatus_register_audited_timestamp_seconds"] == 7
    assert trouble in page(status)
    write(tmp_path, "builder", tasks={})
    assert not any("register" in name for name in exposed(read_run_status(tmp_path, NOW_S)))


def test_a_crl_that_is_overdue_for_long_is_shown_though_nothing_failed(tmp_path: Path) -> None:
    """A builder that does not get to it fails at nothing; a moment's wait is no trouble."""
    write(tmp_path, "builder", tasks={}, crls=_crls(0, 61, 0))
    status = read_run_status(tmp_path, NOW_S)
    assert "SIGN generation 1: 0 of 2\u202f000 scopes fail, overdue 61 s" in page(status)
    write(tmp_path, "builder", tasks={}, crls=_crls(0, 59, 0))
    assert "scopes fail" not in page(read_run_status(tmp_path, NOW_S))


def test_of_thousands_of_crls_those_that_end_first_are_shown(tmp_path: Path) -> None:
    """The page stays readable; the rest is counted."""
    entries = tuple(
        catalogue_line(f"sign/g1/m1/{n:05}", 1, NOW_S, next_update_s=NOW_S + 9000 - n, next_issue_s=NOW_S)
        for n in range(250)
    )
    text = page(read_run_status(tmp_path, NOW_S), crls=entries)
    assert text.count("complete.crl") == 100
    assert "sign/g1/m1/00249/" in text
    assert "sign/g1/m1/00149/" not in text
    assert "and 150 that end later" in text


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    """Names and messages are text, whatever they hold; nothing is fetched from elsewhere."""
    worker(tmp_path, 0, trouble="<script>alert(1)</script>")
    text = page(read_run_status(tmp_path, NOW_S))
    assert "<script" not in text
    assert "h&lt;1&gt;" in text
    assert "http-equiv" in text
    assert "src=" not in text
