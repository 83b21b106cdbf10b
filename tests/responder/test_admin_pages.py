"""The operators' page and the metrics, from what the processes wrote down."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

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
    worker(tmp_path, 0, trouble="a beat's signature does not verify")
    write(tmp_path, "builder", tasks={"crl": {"error": "no space left"}, "snapshot": {"error": ""}})
    certificate = {
        **{"issuer_id": 1, "service": "SIGN", "generation": 1, "state": "alarm", "serial": "ab" * 16},
        **{"problem": "expires in 90 s and there is no successor", "not_after_s": NOW_S + 90},
    }
    write(tmp_path, "agent", certificates=[certificate], counters={"waiting": 2})
    status = read_run_status(tmp_path, NOW_S)
    text = page(status)
    for expected in ("a beat&#x27;s signature", "crl: no space left", "there is no successor", "in 90 s"):
        assert expected in text, expected
    metrics = exposed(status)
    assert metrics['certstatus_builder_task_failing{task="crl"}'] == 1
    assert metrics['certstatus_builder_task_failing{task="snapshot"}'] == 0
    assert metrics['certstatus_responder_certificate_alarm{generation="1",service="SIGN"}'] == 1
    assert metrics['certstatus_counter_files{state="waiting"}'] == 2


def test_current_crls_are_linked_and_late_ones_stand_out(tmp_path: Path) -> None:
    """Old bases are not listed; a CRL past its nextUpdate is marked."""
    entry = CatalogueEntry(
        issuer_id=1,
        scope="all",
        kind="complete",
        file="sign/g1/all/7.crl",
        name="sign/g1/all/complete.crl",
        current=True,
        number=7,
        base_number=None,
        seq=9,
        this_update_s=NOW_S - 100,
        next_update_s=NOW_S - 1,
        next_issue_s=NOW_S - 50,
        size=1234,
        sha256="00",
    )
    text = page(read_run_status(tmp_path, NOW_S), crls=(entry,))
    assert 'href="http://127.0.0.1:8080/crl/sign/g1/all/complete.crl"' in text
    assert '<span class="bad">' in text.partition("next update")[2].partition("</table>")[0]


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    """Names and messages are text, whatever they hold; nothing is fetched from elsewhere."""
    worker(tmp_path, 0, trouble="<script>alert(1)</script>")
    text = page(read_run_status(tmp_path, NOW_S))
    assert "<script" not in text
    assert "h&lt;1&gt;" in text
    assert "http-equiv" in text
    assert "src=" not in text
