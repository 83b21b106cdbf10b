"""``certstatus probe``: from a committed revocation to the last worker that answers it, measured."""

from __future__ import annotations

import math
import statistics
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from certstatus.cli.context import Installation, pass_installation

if TYPE_CHECKING:
    from certstatus.status_probe import Spread

_METRIC = "certstatus_probe_revocation_seconds"


@click.command
@click.option("--service", required=True, help="Whose certificates to use; best an issuer for this alone.")
@click.option("--url", help="The responder [the one of this configuration].")
@click.option("--rounds", type=click.IntRange(1, 10_000), default=10, show_default=True)
@click.option("--connections", type=click.IntRange(1, 1024), default=32, show_default=True)
@click.option("--nonces", is_flag=True, help="A nonce in every question: each answer must be signed.")
@click.option("--objective-ms", type=click.FloatRange(1), help="Fail if the 99th percentile is above this.")
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures for Prometheus (node_exporter's textfile collector).",
)
@pass_installation
def probe(
    installation: Installation,
    service: str,
    url: str | None,
    rounds: int,
    connections: int,
    nonces: bool,
    objective_ms: float | None,
    textfile: Path | None,
) -> None:
    """Revoke certificates and measure when the last worker answers `revoked`.

    Each round issues a certificate that is good for a day, waits until every connection is answered
    good, revokes it, and takes the time from the commit until every connection is answered revoked,
    which includes what that answer itself takes; and when anybody was last answered good.
    The machine it runs on must be registered as a verifier of the service.
    """
    from certstatus.durable import write_durable
    from certstatus.errors import ProbeFailed

    config = installation.config.responder
    url = url or f"http://{config.bind}:{config.port}/ocsp"
    spreads = _measure(installation, service, url, rounds, connections, nonces)
    found_s = [spread.answered_s for spread in spreads]
    good_s = [spread.outdated_s for spread in spreads]
    figures = {
        "rounds": rounds,
        "median_ms": round(statistics.median(found_s) * 1000, 1),
        "p99_ms": round(_percentile(found_s, 0.99) * 1000, 1),
        "max_ms": round(max(found_s) * 1000, 1),
        "last_good_median_ms": round(statistics.median(good_s) * 1000, 1),
        "last_good_p99_ms": round(_percentile(good_s, 0.99) * 1000, 1),
        "last_good_max_ms": round(max(good_s) * 1000, 1),
    }
    if textfile is not None:
        write_durable(textfile, _exposition(service, found_s).encode())
    installation.emit(
        figures,
        f"{service}: revoked everywhere after {figures['median_ms']} ms (median of {rounds}), "
        f"99 % within {figures['p99_ms']} ms, at most {figures['max_ms']} ms; "
        f"nobody was answered good after {figures['last_good_max_ms']} ms",
    )
    if objective_ms is not None and figures["p99_ms"] > objective_ms:
        raise ProbeFailed(f"{service}: p99 is {figures['p99_ms']} ms, the objective {objective_ms:g} ms")


def _measure(
    installation: Installation, service: str, url: str, rounds: int, connections: int, nonces: bool
) -> list[Spread]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.ocsp import OCSPCertStatus

    from certstatus import clock
    from certstatus.status_probe import StatusProbe
    from certstatus.x509_reading import load_certificate
    from issuance.issue import Issuing, issue
    from issuance.issuers import issuer_of
    from issuance.revoke import find_certificate, revoke

    store = installation.store
    issuer = issuer_of(store, service)
    issuing = Issuing.of(issuer, installation.ca_keys.private_key(issuer.issuer_id))
    spreads = []
    with StatusProbe(url, issuer.ca_certificate, connections, nonces=nonces) as status:
        for _ in range(rounds):
            issued = issue(
                store,
                issuing,
                installation.index_key,
                ec.generate_private_key(ec.SECP256R1()).public_key(),
                clock.now_ms,
                not_after_s=clock.now_s() + clock.DAY_S,
            )
            certificate = load_certificate(issued.certificate_der)
            status.watch(certificate, OCSPCertStatus.GOOD, lambda: None)
            act = partial(revoke, store, find_certificate(store, issued.serial, service), clock.now_ms)
            spreads.append(status.watch(certificate, OCSPCertStatus.REVOKED, act))
    return spreads


def _percentile(values: list[float], part: float) -> float:
    """Return the smallest value that at least *part* of all do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(part * len(ordered)) - 1]


def _exposition(service: str, values: list[float]) -> str:
    label = f'service="{service}"'
    lines = [
        f"# HELP {_METRIC} From a committed revocation until every worker answers it.",
        f"# TYPE {_METRIC} summary",
        *(
            f'{_METRIC}{{{label},quantile="{part}"}} {_percentile(values, part):.6f}'
            for part in (0.5, 0.99, 1)
        ),
        f"{_METRIC}_sum{{{label}}} {sum(values):.6f}",
        f"{_METRIC}_count{{{label}}} {len(values)}",
    ]
    return "\n".join(lines) + "\n"
