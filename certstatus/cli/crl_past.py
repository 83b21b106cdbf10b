"""``certstatus crl at``: what was published about a certificate at a time."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from certstatus import clock
from certstatus.cli.certificates import serial_octets, service_option
from certstatus.cli.context import Installation, pass_installation, table
from certstatus.crl_reason import CRLReason, reason_text

if TYPE_CHECKING:
    from datetime import datetime

    from certstatus.crl_entry import CRLEntry
    from issuance.transitions import Standing
    from publisher.crl_past import Listing, PastAnswer, PastCRL


@click.command
@click.argument("serial", type=serial_octets)
@click.argument("time", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"]))
@service_option
@pass_installation
def at(installation: Installation, serial: bytes, time: datetime, service: str | None) -> None:
    """Say what was published about the certificate with number SERIAL at TIME (UTC).

    TIME is an instant, 2026-11-29T06:00:00Z or with a fraction: what came out later in that second was not
    out yet.  Shown are the complete CRL and the newest delta that were out, what each says of the
    certificate, what the register held then, and which CRLs listed it first and last.
    """
    from issuance.revoke import find_certificate
    from publisher.crl_past import published_at

    when = time.replace(tzinfo=UTC)
    answer = published_at(
        installation.store,
        installation.config.state,
        find_certificate(installation.store, serial, service),
        int(when.timestamp()) * 1000 + when.microsecond // 1000,
        clock.now_ms(),
    )
    installation.emit(_values(answer), lambda: _text(answer))


def _ms_text(posix_ms: int | None) -> str | None:
    """Return an instant to the millisecond: ``2026-11-29T06:00:00.123Z``."""
    return None if posix_ms is None else f"{clock.utc_text(posix_ms // 1000)[:-1]}.{posix_ms % 1000:03d}Z"


# --- as JSON -----------------------------------------------------------------------------------------


def _values(answer: PastAnswer) -> dict[str, Any]:
    return {
        "service": answer.service,
        "generation": answer.generation,
        "serial": answer.serial.hex(),
        "at": _ms_text(answer.at_ms),
        "register": _standing(answer.standing),
        "published": None if answer.complete is None else _entry(answer.listed),
        "complete": _crl(answer, answer.complete),
        "delta": _crl(answer, answer.delta),
        "first_listed": _listing(answer.first),
        "last_listed": _listing(answer.last),
        "is_listed_now": answer.is_listed_now,
    }


def _standing(standing: Standing | None) -> dict[str, Any] | None:
    if standing is None:
        return None
    revoked_at_ms = standing.revoked_at_ms
    return {
        "state": standing.state.name.lower(),
        "revoked_at": _ms_text(revoked_at_ms) if revoked_at_ms else None,
        "reason": reason_text(standing.reason) if revoked_at_ms else None,
        "invalid_since": clock.utc_text(standing.invalidity_s) if standing.invalidity_s else None,
    }


def _entry(entry: CRLEntry | None) -> dict[str, Any]:
    if entry is None:
        return {"listed": False}
    return {
        "listed": True,
        "revoked_at": clock.utc_text(entry.revoked_at_s),
        "reason": reason_text(entry.reason),
        "invalid_since": None if entry.invalidity_at_s is None else clock.utc_text(entry.invalidity_at_s),
    }


def _crl(answer: PastAnswer, crl: PastCRL | None) -> dict[str, Any] | None:
    if crl is None:
        return None
    return {
        "number": crl.number,
        "base_number": crl.base_number,
        "this_update": clock.utc_text(crl.this_update_s),
        "next_update": clock.utc_text(crl.next_update_s),
        "was_over": answer.at_ms >= crl.next_update_s * 1000,
        "published_at": _ms_text(crl.published_ms),
        "sha256": crl.sha256.hex(),
        "says": _entry(crl.entry),
        "read_from": crl.source,
    }


def _listing(listing: Listing | None) -> dict[str, Any] | None:
    if listing is None:
        return None
    return {
        "kind": listing.kind,
        "number": listing.number,
        "this_update": clock.utc_text(listing.this_update_s),
        "published_at": _ms_text(listing.published_ms),
    }


# --- for people --------------------------------------------------------------------------------------


def _text(answer: PastAnswer) -> str:
    facts = [
        ("certificate", f"{answer.service} {answer.serial.hex()} (generation {answer.generation})"),
        ("at", _ms_text(answer.at_ms)),
        ("register", _standing_text(answer.standing)),
        ("published", "no CRL was out yet" if answer.complete is None else _entry_text(answer.listed)),
        ("first listed", _listing_text(answer.first) or "never"),
    ]
    if answer.last is not None:
        still = ", and still is" if answer.is_listed_now else ""
        facts.append(("last listed", f"{_listing_text(answer.last)}{still}"))
    rows: list[list[object]] = [
        [
            crl.kind,
            crl.number,
            crl.base_number,
            clock.utc_text(crl.this_update_s),
            clock.utc_text(crl.next_update_s),
            _ms_text(crl.published_ms) or "not written down",
            _entry_text(crl.entry) if crl.kind == "complete" or crl.entry else "nothing",
            crl.source,
        ]
        for crl in (answer.complete, answer.delta)
        if crl is not None
    ]
    lines = [f"{name:<14}{value}" for name, value in facts]
    if rows:
        headings = ["out then", "number", "base", "this update", "next update", "published at", "says"]
        lines += ["", table([*headings, "read from"], rows), ""]
        lines += [
            f"SHA-256 of {crl.kind} {crl.number}: {crl.sha256.hex()}"
            for crl in (answer.complete, answer.delta)
            if crl is not None
        ]
    return "\n".join(lines)


def _standing_text(standing: Standing | None) -> str:
    if standing is None:
        return "not issued yet"
    if not standing.revoked_at_ms:
        return standing.state.name.lower()
    since = _ms_text(standing.revoked_at_ms)
    return f"{standing.state.name.lower()} since {since} ({reason_text(standing.reason)})"


def _entry_text(entry: CRLEntry | None) -> str:
    if entry is None:
        return "not listed"
    when = clock.utc_text(entry.revoked_at_s)
    if entry.reason == CRLReason.REMOVE_FROM_CRL:
        return f"removed at {when}"
    return f"listed since {when} ({reason_text(entry.reason)})"


def _listing_text(listing: Listing | None) -> str | None:
    if listing is None:
        return None
    published = _ms_text(listing.published_ms)
    return f"{listing.kind} CRL {listing.number}, " + (
        f"published at {published}" if published else f"thisUpdate {clock.utc_text(listing.this_update_s)}"
    )
