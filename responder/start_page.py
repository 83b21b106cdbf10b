"""The operators' page: what runs, for which issuers, how fresh, what was answered.

Knows: laying one reading of everything out as plain HTML, complete in itself (no script, nothing
fetched from elsewhere).  Does not know: where the numbers come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from certstatus import __version__, clock
from certstatus.beat import Beat
from certstatus.crl_catalogue import CatalogueEntry
from certstatus.issuer_table import Issuer
from certstatus.x509_reading import load_certificate
from responder.run_status import RunStatus, Status

REFRESH_S = 5
_CRLS_SHOWN = 100
# A tick of the builder and one large CRL before this one are no trouble yet.
_OVERDUE_S = 60

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --wait: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #f85149; --wait: #d29922; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .5rem; }
p { margin: .3rem 0; }
.dim { opacity: .7; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: 1.2rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; min-width: 9rem; }
.card b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; }
tr { border-bottom: 1px solid var(--line); }
th { font-weight: 600; font-size: .85rem; opacity: .75; }
td.n, th.n { text-align: right; padding-right: 1.2rem; }
code { font: .9em ui-monospace, monospace; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
"""

_GIVEN = {
    "good": "OCSP good",
    "revoked": "OCSP revoked",
    "unknown": "OCSP unknown",
    "ocsp_not_modified": "OCSP not modified (304)",
    "ocsp_head": "OCSP HEAD",
    "crl_complete": "complete CRL",
    "crl_delta": "delta CRL",
    "crl_partial": "CRL in part (206)",
    "crl_not_modified": "CRL not modified (304)",
    "crl_head": "CRL HEAD",
    "crl_aborted": "CRL broken off",
}
_REFUSED = {
    "refused_unauthorized": "unauthorized",
    "refused_try_later": "try later",
    "refused_malformed": "malformed",
    "refused_crl": "CRL refused (403)",
}


@dataclass(frozen=True, slots=True)
class PageContent:
    """One reading of everything.  ``problem``: why the publisher's part could not be read, or empty."""

    host: str
    public_url: str
    workers_configured: int
    status: RunStatus
    beat: Beat | None
    issuers: tuple[Issuer, ...]
    crls: tuple[CatalogueEntry, ...]
    problem: str
    now_ms: int


def render(page: PageContent) -> str:
    """Return the page."""
    parts = [_head(page), _cards(page), _issuers(page), _crls(page), _given(page), _processes(page)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}">'
        f"<title>certstatus · {escape(page.host)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>"
    )


def _head(page: PageContent) -> str:
    trouble = f'<p class="bad">{escape(page.problem)}</p>' if page.problem else ""
    return (
        f"<h1>certstatus <span class=dim>on {escape(page.host)}</span></h1>"
        f"<p class=dim>version {escape(__version__)} · answers at <code>{escape(page.public_url)}</code>"
        f" · <a href=/metrics>metrics</a> · {_time(page.now_ms // 1000)}</p>{trouble}"
    )


def _cards(page: PageContent) -> str:
    ready, wanted = page.status.ready_workers, page.workers_configured
    look = "good" if ready == wanted else "bad" if ready == 0 else "wait"
    ages = [worker["beat_age_ms"] for worker in page.status.workers if worker.get("beat_age_ms") is not None]
    given = sum(page.status.total("provisions", kind) for kind in _GIVEN)
    refused = sum(page.status.total("provisions", kind) for kind in _REFUSED)
    cards = [
        (f'<span class="{look}">{ready} of {wanted}</span>', "workers ready"),
        (f"{max(ages) / 1000:.1f} s" if ages else "–", "age of the index"),
        (_number(page.beat.seq) if page.beat else "–", "changes in sequence"),
        (_number(given), "answers since start"),
        (_number(refused), "refusals since start"),
    ]
    return (
        "<div class=cards>"
        + "".join(f"<div class=card><b>{value}</b>{text}</div>" for value, text in cards)
        + "</div>"
    )


def _issuers(page: PageContent) -> str:
    certificates = {item["issuer_id"]: item for item in (page.status.agent or {}).get("certificates", [])}
    rows = []
    for issuer in page.issuers:
        stem = f"/ca/{issuer.service.lower()}/g{issuer.generation}"
        rows.append(
            [
                escape(issuer.service),
                str(issuer.generation),
                _name(issuer),
                escape(issuer.access),
                f'<a href="{stem}.pem">pem</a> <a href="{stem}.cer">cer</a>',
                *_responder_certificate(certificates.get(issuer.issuer_id), page.now_ms // 1000),
            ]
        )
    headings = ["service", "generation", "CA", "access", "certificate", "responder certificate", "until", ""]
    return "<h2>Issuers</h2>" + _table(headings, rows, "No issuer is published yet.")


def _name(issuer: Issuer) -> str:
    if not issuer.certificates_der:
        return "–"
    certificate = load_certificate(issuer.certificates_der[0])
    text = escape(certificate.subject.rfc4514_string())
    if issuer.ca_key_event_ms is not None:
        text += f" <span class=bad>all revoked {_time(issuer.ca_key_event_ms // 1000)}</span>"
    return f"{text}<br><span class=dim>until {certificate.not_valid_after_utc:%Y-%m-%d}</span>"


def _responder_certificate(item: Status | None, now_s: int) -> list[str]:
    if item is None:
        return ["–", "–", ""]
    look = {"ok": "good", "renewing": "wait"}.get(item["state"], "bad")
    state = f'<span class="{look}">{escape(item["state"])}</span>'
    if item["problem"]:
        state += f"<br><span class=dim>{escape(item['problem'])}</span>"
    if item["serial"] is None:
        return ["–", "–", state]
    return [
        f"<code>{escape(item['serial'][:16])}…</code>",
        f"{_time(item['not_after_s'])}<br><span class=dim>in {_span(item['not_after_s'] - now_s)}</span>",
        state,
    ]


def _crls(page: PageContent) -> str:
    services = {issuer.issuer_id: issuer for issuer in page.issuers}
    now_s = page.now_ms // 1000
    rows = []
    current = sorted((entry for entry in page.crls if entry.current), key=lambda entry: entry.next_update_s)
    # What ends first is shown, in the catalogue's order; thousands of scopes are for /crl/ and the metrics.
    shown = {(entry.name, entry.number) for entry in current[:_CRLS_SHOWN]}
    for entry in page.crls:
        if not entry.current or (entry.name, entry.number) not in shown:
            continue
        issuer = services.get(entry.issuer_id)
        late = entry.next_update_s <= now_s
        look = "bad" if late else ""
        rows.append(
            [
                escape(issuer.path if issuer else str(entry.issuer_id)),
                escape(entry.scope),
                f'<a href="{escape(page.public_url)}/crl/{escape(entry.name)}">{escape(entry.kind)}</a>',
                f"{entry.number}" + (f" on {entry.base_number}" if entry.base_number is not None else ""),
                _time(entry.this_update_s),
                f'<span class="{look}">{_time(entry.next_update_s)}</span>',
                _number(entry.size),
                f"change {_number(entry.seq)}",
            ]
        )
    headings = ["issuer", "scope", "CRL", "number", "this update", "next update", "bytes", "cut at"]
    more = f"<p class=dim>and {_number(len(current) - len(rows))} that end later</p>" * (
        len(current) > len(rows)
    )
    return (
        "<h2>CRLs</h2>"
        + _crl_troubles(page.status.builder or {})
        + _table(headings, rows, "No CRL is published yet.", {6})
        + more
    )


def _crl_troubles(builder: Status) -> str:
    """Return which CRLs are not made that should be: by issuer, then the scopes that the builder names."""
    crls = builder.get("crls", {})
    lines = []
    for item in crls.get("issuers", []):
        failing, overdue_s = item["failing"], int(item["overdue_s"])
        if failing or overdue_s >= _OVERDUE_S:
            who = f"{escape(item['service'])} generation {item['generation']}"
            what = f"{_number(failing)} of {_number(item['scopes'])} scopes fail"
            lines.append(f"{who}: {what}, overdue {_span(overdue_s)}")
    named = crls.get("troubles", [])
    lines += [f"{escape(item['scope'])}: {escape(item['error'])}" for item in named]
    if (unnamed := crls.get("troubles_total", 0) - len(named)) > 0:
        lines.append(f"and {_number(unnamed)} further scopes")
    return "".join(f'<p class="bad">{line}</p>' for line in lines)


def _given(page: PageContent) -> str:
    rows = [
        [name, _number(page.status.total("provisions", kind))]
        for table in (_GIVEN, _REFUSED)
        for kind, name in table.items()
        if page.status.total("provisions", kind)
    ]
    return (
        "<h2>Given and refused since the workers started</h2>"
        + _table(["what", "count"], rows, "Nothing yet.", {1})
        + "<p class=dim>By verifier and for good: <code>certstatus provisions</code></p>"
    )


def _processes(page: PageContent) -> str:
    rows = []
    for worker in page.status.workers:
        state = (
            '<span class="good">ready</span>' if worker.get("ready") else '<span class="bad">not ready</span>'
        )
        if worker.get("trouble"):
            state += f"<br><span class=dim>{escape(str(worker['trouble']))}</span>"
        rows.append(
            [
                f"worker {worker['slot']}",
                str(worker.get("pid", "")),
                state,
                _number(worker.get("applied_seq", 0)),
                _number(worker.get("connections", 0)),
                _number(worker.get("signatures", 0)),
                f"{worker.get('rss_bytes', 0) / (1 << 20):.0f} MB",
            ]
        )
    for name, found in (
        ("feed", page.status.feed),
        ("builder", page.status.builder),
        ("agent", page.status.agent),
    ):
        trouble = "" if found is None else _trouble(found)
        state = (
            '<span class="bad">not running here</span>'
            if found is None
            else '<span class="good">running</span>'
        )
        if trouble:
            state = f'<span class="wait">{escape(trouble)}</span>'
        pid = "" if found is None else str(found.get("pid", ""))
        seq = "" if found is None or "seq" not in found else _number(found["seq"])
        rows.append([name, pid, state, seq, "", "", ""])
    headings = ["process", "pid", "", "applied", "connections", "signatures", "memory"]
    return "<h2>Processes</h2>" + _table(headings, rows, "", {3, 4, 5, 6})


def _trouble(status: Status) -> str:
    """Return what a process says is wrong, which has its tasks in it; empty when all is well."""
    return str(status.get("error") or status.get("problem") or "")


def _table(headings: list[str], rows: list[list[str]], empty: str, numbers: set[int] = frozenset()) -> str:  # type: ignore[assignment]
    if not rows:
        return f"<p class=dim>{empty}</p>"

    def line(cells: list[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{' class=n' if at in numbers else ''}>{cell}</{tag}>" for at, cell in enumerate(cells)
            )
            + "</tr>"
        )

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table>{line(headings, 'th')}{body}</table></div>"


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _time(posix_s: int) -> str:
    return f"{clock.utc(posix_s):%Y-%m-%d %H:%M:%S}\u202fUTC"


def _span(seconds: int) -> str:
    if seconds < 0:
        return "the past"
    for unit_s, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s} {name}"
    return f"{seconds} s"
