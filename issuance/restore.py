"""Bringing an installation back from a backup, without ever unsaying what was said since.

Knows: that the restored store begins a new, later epoch; that its sequence and CRL numbers start
above anything that can have been published; that revocations found in published CRLs (and in the
store that is being replaced, where it can still be read) are recorded anew, also for certificates
of which the backup knows nothing, and so are that store's holds, CA-key events, ended or added
verifiers and dropped responder certificates; that hosts elsewhere may still answer from before the restore.
Does not know: how a backup is laid out (``backup``), or what Valkey and the responders do with a
new epoch.
Source: Act arts. 15(1), 34(1) (no way back from a revocation); RFC 5280 §5.2.3 (CRL numbers).

What cannot be brought back: issue records made after the backup.  Their certificates are answered
``unknown``, or ``revoked`` if a CRL lists them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import TIME_MAX_S, ChangeKind, fingerprint, first_chain
from certstatus.crl_archive import INDEX_SUFFIX, PACK_SUFFIX
from certstatus.crl_catalogue import COMPLETE
from certstatus.crl_reason import CRLReason, reason_text
from certstatus.durable import sync_folder
from certstatus.errors import IntegrityError, StoreError
from certstatus.publisher_key import load_index_key
from certstatus.snapshot import written_durably
from certstatus.store_use import replacing_store
from issuance import backup, crl_register, crl_register_last, provisions, schema
from issuance.act import RECOVERED, Act
from issuance.crl_register import LAST_NUMBER_MIN, CRLKey
from issuance.import_register import ELSEWHERE
from issuance.issuers import IssuerRecord, publish_issuers, read_issuers
from issuance.new_store import new_store
from issuance.provisions import ProvisionCell
from issuance.published_crls import PREPARED_FOLDER, LastCRL, PublishedState, read_published
from issuance.restore_scopes import ScopesBefore, lift_scopes, partition_id, read_scopes
from issuance.schema import CertificateState
from issuance.store import DEFAULT_LEASE_MS, Store, StoreState, make_epoch
from issuance.verifiers import publish_entitlements

# What may have been published beyond the last trace of it that was found.
SEQ_GAP = 1_000_000
CRL_NUMBER_GAP = 1_000
_FENCE_GAP = 1_000_000
_COPIED_AT_ONCE = 1 << 20
_REPLACED = "the replaced store"
# Stands for all workers of a host; their own slots count from 0.
_ANY_SLOT = -1


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    ``recorded_again``: revocations and holds newer than the backup; ``without_record``: how many of
    them are of certificates that the backup does not know; ``packs_missing``: sealed packs of archived
    CRLs that the backup names and that are not here.
    """

    epoch: bytes
    base_seq: int
    seq: int
    recorded_again: int
    without_record: int
    crls_read: int
    packs_missing: tuple[str, ...] = ()


class _Revoked(NamedTuple):
    """A revocation (or hold) that must stand after the restore."""

    reason: int | None
    revoked_at_s: int
    invalidity_s: int
    not_after_s: int | None
    told_by: str
    # The CRL partition that it was in, if that is known.
    scope: str | None


class _KeyEvent(NamedTuple):
    seq: int
    recorded_ms: int


@dataclass(slots=True)
class _Before:
    """What the replaced store still had to say, if it could be read."""

    state: StoreState | None = None
    scopes: ScopesBefore = field(default_factory=ScopesBefore)
    fences: dict[str, int] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    lease_ends: dict[str, int] = field(default_factory=dict)
    # By the issuer's key and the serial number; the others by the issuer's key, or as rows.
    revoked: dict[tuple[bytes, bytes], _Revoked] = field(default_factory=dict)
    key_events: dict[bytes, _KeyEvent] = field(default_factory=dict)
    responders: list[tuple[bytes, dict[str, Any]]] = field(default_factory=list)
    verifiers: list[dict[str, Any]] = field(default_factory=list)
    provisions: list[ProvisionCell] = field(default_factory=list)
    # Whether it could be read to its end.
    is_whole: bool = False


def restore(
    backup_path: Path,
    state: Path,
    url: str,
    now_ms: int,
    *,
    crl_folders: Sequence[Path] = (),
    last_seq: int = 0,
    lease_ms: int | Callable[[], int] = DEFAULT_LEASE_MS,
) -> RestoreReport:
    """Make the installation in *state* and the store at *url* anew from a backup.

    Takes:  ``crl_folders``: further places with published CRLs, for instance a responder host's
            copies; ``last_seq``: the highest number ever seen in a beat, if known; ``lease_ms``: how long
            a host that knows nothing of the restore may go on answering from before it, or what tells
            so once the backup's files are in place, its configuration among them.
    Safe to run again after it was interrupted.  What was there is kept beside it, by another name.
    Raises: StoreError — it cannot be read, or the installation is being served, or used by a command;
            BackupDamaged — it is no backup, or a damaged one; KeyFileError — it has no index key.
    """
    state.mkdir(parents=True, exist_ok=True)
    with _nobody_serves(state), replacing_store(state), backup.opened(backup_path, state) as opened:
        before = _read_before(url, opened.state)
        # Files first: a store is never there without the keys its rows rely on.
        for top in ("ca", "secrets"):
            _put_files(opened, top, state, replace=True)
        for top in ("crl", PREPARED_FOLDER):
            _put_files(opened, top, state, replace=False)
        if not (state / "certstatus.toml").exists() and (opened.folder / "certstatus.toml").exists():
            shutil.copy(opened.folder / "certstatus.toml", state / "certstatus.toml")
        index_key = load_index_key(state / "secrets" / "index.key")
        folders = [folder for folder in (state / "crl", *crl_folders) if folder.is_dir()]
        with new_store(url) as connection:
            for table in schema.metadata.sorted_tables:
                for rows in opened.rows(table):
                    connection.execute(sa.insert(table), rows)
            issuers = read_issuers(connection)
            services = {issuer.issuer_id: issuer.service for issuer in issuers}
            revoked = partial(_revoked_among, connection, services)
            published = read_published(folders, issuers, opened.state.time_ms // 1000, known=revoked)
            _end_scopes(connection, published, state, opened.state.seq)
            report = _begin_epoch(connection, opened, before, published, index_key, now_ms, last_seq)
            lasts_ms = lease_ms if isinstance(lease_ms, int) else lease_ms()
            _lease_hosts(connection, before, _host_here(state), lasts_ms)
            return replace(report, packs_missing=tuple(backup.missing_packs(opened, state)))


# --- the new epoch -----------------------------------------------------------------------------------


def _begin_epoch(
    connection: sa.Connection,
    opened: backup.OpenedBackup,
    before: _Before,
    published: dict[int, PublishedState],
    index_key: bytes,
    now_ms: int,
    last_seq: int,
) -> RestoreReport:
    known = [opened.state] + ([before.state] if before.state is not None else [])
    epoch = make_epoch(max([now_ms, *(int.from_bytes(item.epoch[:8], "big") + 1 for item in known)]))
    base_seq = max([last_seq, *(item.seq for item in known)]) + SEQ_GAP
    newest_crl_ms = max((item.this_update_s * 1000 for item in published.values()), default=0)
    time_ms = max([now_ms, newest_crl_ms, *(item.time_ms for item in known)])
    connection.execute(
        sa.update(schema.store_state).values(
            epoch=epoch, base_seq=base_seq, seq=base_seq, time_ms=time_ms, chain=first_chain(epoch)
        )
    )
    connection.execute(
        sa.insert(schema.epoch).values(epoch=epoch, base_seq=base_seq, started_ms=time_ms, cause="restored")
    )
    # Those of the old epoch: snapshots lie before the base.
    connection.execute(sa.delete(schema.publication))
    _lift_fences(connection, before)
    lift_scopes(connection, read_issuers(connection), before.scopes, published, CRL_NUMBER_GAP)
    _withdraw_allocated(connection)
    # What was provided was provided, whatever becomes of the register.
    for piece in provisions.pieces(before.provisions):
        provisions.record(connection, piece)
    act = Act(connection, base_seq, time_ms, first_chain(epoch))
    again, unknown = _record_again(act, read_issuers(connection), published, before, index_key)
    _record_key_events(act, before)
    _record_dropped(act, before)
    _record_verifiers(act, before)
    if not before.is_whole:
        _silence_followed(connection)
    act.record(ChangeKind.ISSUERS, ground="restored")
    publish_issuers(act)
    act.record(ChangeKind.ENTITLEMENTS, ground="restored")
    publish_entitlements(act)
    act.flush()
    connection.execute(sa.update(schema.store_state).values(seq=act.seq, chain=act.chain))
    crls = sum(item.crls for item in published.values())
    return RestoreReport(epoch, base_seq, act.seq, again, unknown, crls)


def _silence_followed(connection: sa.Connection) -> None:
    """Give no answers for CAs that revoke elsewhere before one of their CRLs has been taken over again.

    Newer ones than the backup's may have been, and answered by; no CRL of ours tells what they said.
    """
    table = schema.imported_issuer
    connection.execute(
        sa.update(table)
        .where(table.c.revocations == ELSEWHERE)
        .values(crl_next_update_s=None, crl_sha256=None)
    )


def _lease_hosts(connection: sa.Connection, before: _Before, host_here: str | None, lease_ms: int) -> None:
    """Put one lease per host in the place of its workers' leases.

    A host elsewhere has not heard of the restore and answers from the old epoch until its index is too
    old; whoever revokes before that must wait for it.  Which workers it had is not known for sure.
    """
    table = schema.responder_host
    enrolled = set(connection.execute(sa.select(table.c.host).where(table.c.ended_ms.is_(None))).scalars())
    time_ms = connection.execute(sa.select(schema.store_state.c.time_ms)).scalar_one()
    connection.execute(sa.delete(schema.worker_lease))
    # Nobody serves here, or the installation's lock would not have been ours.
    for host in sorted((enrolled | before.hosts) - {host_here}):
        connection.execute(
            sa.insert(schema.worker_lease).values(
                host=host,
                slot=_ANY_SLOT,
                incarnation="before restore",
                lease_until_ms=max(time_ms + lease_ms, before.lease_ends.get(host, 0)),
                applied_seq=0,
            )
        )


def _host_here(state: Path) -> str | None:
    """Return the name of the responder host in the installation itself, if there is one."""
    try:
        name = tomllib.loads((state / "host" / "host.toml").read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError):
        # Then it is waited for like any other.
        return None
    return name if isinstance(name, str) else None


def _lift_fences(connection: sa.Connection, before: _Before) -> None:
    """Put every fence above any that a publisher of the old epoch may still hold."""
    table = schema.publisher_lease
    fences = {row.name: row.fence for row in connection.execute(sa.select(table.c.name, table.c.fence))}
    connection.execute(sa.delete(table))
    for name in fences.keys() | before.fences.keys():
        fence = max(fences.get(name, 0), before.fences.get(name, 0)) + _FENCE_GAP
        connection.execute(sa.insert(table).values(name=name, holder="restored", fence=fence, until_ms=0))


def _withdraw_allocated(connection: sa.Connection) -> None:
    """Nobody will finish what the backup has as begun."""
    connection.execute(
        sa.update(schema.crl)
        .where(schema.crl.c.state == crl_register.ALLOCATED)
        .values(state=crl_register.WITHDRAWN)
    )


def _end_scopes(
    connection: sa.Connection, published: dict[int, PublishedState], state: Path, seq: int
) -> None:
    """Put the last CRLs back that were out: their files, and that nothing follows them."""
    for issuer in read_issuers(connection):
        for scope, last in published[issuer.issuer_id].last.items():
            path = state / "crl" / issuer.service.lower() / f"g{issuer.generation}" / scope
            file = path / f"{last.number}.crl"
            if not file.exists():
                path.mkdir(parents=True, exist_ok=True)
                with written_durably(file) as copy:
                    _copy(last, copy)
            if crl_register.last_number(connection, issuer.issuer_id, scope) >= LAST_NUMBER_MIN:
                continue
            crl_register_last.publish_last(
                connection,
                issuer.issuer_id,
                scope,
                last.number,
                seq,
                last.this_update_s,
                last.next_update_s,
                last.sha256,
                last.size,
            )
            key = CRLKey(issuer.issuer_id, scope, last.number, COMPLETE)
            crl_register.note_shown(connection, {key}, last.published_ms)


def _copy(last: LastCRL, copy: BinaryIO) -> None:
    """Raises: IntegrityError — it is not there any more as it was read."""
    digest, left = hashlib.sha256(), last.size
    with last.file.open("rb") as file:
        file.seek(last.offset)
        while block := file.read(min(left, _COPIED_AT_ONCE)):
            digest.update(block)
            copy.write(block)
            left -= len(block)
    if digest.digest() != last.sha256:
        raise IntegrityError(f"{last.file}: it changed while it was read")


def _record_again(
    act: Act,
    issuers: list[IssuerRecord],
    published: dict[int, PublishedState],
    before: _Before,
    index_key: bytes,
) -> tuple[int, int]:
    """Record what was revoked after the backup.  Gives: (all, those without an issue record)."""
    again = unknown = 0
    for issuer in issuers:
        wanted = {
            serial: revoked for (spki, serial), revoked in before.revoked.items() if spki == issuer.spki_der
        }
        state = published[issuer.issuer_id]
        # What a CRL says was published, so it goes before what only the lost store knew.
        for serial, entry in (*state.held.items(), *state.revoked.items()):
            if serial in wanted and entry.reason == CRLReason.CERTIFICATE_HOLD != wanted[serial].reason:
                # Revoked since, and there is no way back to a hold.
                continue
            known = wanted.get(serial)
            wanted[serial] = _Revoked(
                entry.reason,
                entry.revoked_at_s,
                entry.invalidity_s,
                None if known is None else known.not_after_s,
                f"CRL {entry.crl_number}",
                state.partitions.get(serial, None if known is None else known.scope),
            )
        for serial, revoked in wanted.items():
            found = _state_of(act, issuer, serial)
            held = revoked.reason == CRLReason.CERTIFICATE_HOLD
            if found is CertificateState.REVOKED or (held and found is CertificateState.HELD):
                continue
            if held and not issuer.policy.hold:
                continue
            if found is None:
                _record_unknown(act, issuer, serial, revoked, index_key)
                unknown += 1
            act.record(
                ChangeKind.HELD if held else ChangeKind.REVOKED,
                issuer_id=issuer.issuer_id,
                serial=serial,
                reason=revoked.reason,
                # Recorded now, for the sequence knows no past; without effect since then.
                invalidity_s=_invalidity_s(issuer, revoked),
                ground="restored",
                detail=_detail(revoked),
                # Of an imported issuer the date is the old CA's, as before.
                revoked_ms=_revoked_ms(issuer, revoked),
            )
            again += 1
    return again, unknown


def _revoked_ms(issuer: IssuerRecord, revoked: _Revoked) -> int | None:
    """Return since when it counts as revoked; None: since now, also where no record has room for the date."""
    is_told = issuer.imported is not None and 0 <= revoked.revoked_at_s <= TIME_MAX_S
    return revoked.revoked_at_s * 1000 if is_told else None


def _invalidity_s(issuer: IssuerRecord, revoked: _Revoked) -> int:
    """Return its invalidity date; 0: none, also where no record has room for it."""
    if revoked.reason == CRLReason.CERTIFICATE_HOLD:
        return 0
    since_s = revoked.invalidity_s or (0 if issuer.imported is not None else revoked.revoked_at_s)
    return since_s if 0 <= since_s <= TIME_MAX_S else 0


def _record_unknown(
    act: Act, issuer: IssuerRecord, serial: bytes, revoked: _Revoked, index_key: bytes
) -> None:
    """Record that a certificate existed of which nothing but its revocation is known."""
    # It cannot outlive the CA certificate, so until then its entry stays on the CRLs.
    ca_ends_s = int(issuer.ca_certificate.not_valid_after_utc.timestamp())
    act.record(
        ChangeKind.ISSUED,
        issuer_id=issuer.issuer_id,
        serial=serial,
        fingerprint=fingerprint(serial, index_key),
        not_after_s=revoked.not_after_s or ca_ends_s,
        ground="restored",
        detail=_detail(revoked),
        origin=RECOVERED,
        scope_id=partition_id(act.connection, issuer, serial, revoked.scope),
    )


def _record_key_events(act: Act, before: _Before) -> None:
    """Record CA-key events after the backup, last of all that concerns an issuer's certificates.

    So each certificate that was revoked already has its own date and reason, and this one change revokes
    whatever else there is and ends the issuing.
    """
    for issuer in read_issuers(act.connection):
        event = before.key_events.get(issuer.spki_der)
        if event is not None and issuer.key_event_seq is None:
            detail = {"told_by": _REPLACED, "recorded_at": clock.utc_text(event.recorded_ms // 1000)}
            act.record(
                ChangeKind.CA_KEY_EVENT,
                issuer_id=issuer.issuer_id,
                ground="restored",
                detail=json.dumps(detail, sort_keys=True),
            )


def _record_dropped(act: Act, before: _Before) -> None:
    """Bring back the responder certificates signed after the backup, and drop those dropped after it."""
    table = schema.responder_certificate
    issuer_ids = {issuer.spki_der: issuer.issuer_id for issuer in read_issuers(act.connection)}
    for spki, values in before.responders:
        issuer_id = issuer_ids.get(spki)
        if issuer_id is None:
            continue
        which = sa.and_(table.c.issuer_id == issuer_id, table.c.serial == values["serial"])
        row = act.connection.execute(sa.select(table.c.dropped_seq).where(which)).one_or_none()
        if row is None:
            request = values["request_sha256"]
            taken = sa.select(table.c.serial).where(table.c.request_sha256 == request)
            if act.connection.execute(taken).first() is not None:
                # The same request, signed once on either side of an earlier restore: it has its answer.
                request = hashlib.sha256(values["certificate_der"]).digest()
            again = {"issuer_id": issuer_id, "request_sha256": request, "dropped_seq": None}
            act.connection.execute(sa.insert(table).values({**values, **again}))
        if values["dropped_seq"] is None or (row is not None and row.dropped_seq is not None):
            continue
        recorded = act.record(
            ChangeKind.ISSUERS, issuer_id=issuer_id, ground="restored", detail=values["serial"]
        )
        act.connection.execute(sa.update(table).where(which).values(dropped_seq=recorded.seq))


def _record_verifiers(act: Act, before: _Before) -> None:
    """End the verifiers that were ended after the backup, and register again those added after it.

    A number that was given out stays its verifier's: provisions are kept under it.
    """
    table = schema.verifier
    known = {row.verifier_id: row for row in act.connection.execute(sa.select(table))}
    services = {issuer.service for issuer in read_issuers(act.connection)}
    for values in before.verifiers:
        verifier_id = values["verifier_id"]
        row = known.get(verifier_id)
        ended, until_day = values["ended_seq"] is not None, values["until_day"]
        if row is None:
            # An agreement over a service that is no longer there entitles to nothing.
            ended = ended or not services.issuperset(json.loads(values["grants"]))
            recorded = act.record(ChangeKind.ENTITLEMENTS, ground="restored", detail=str(verifier_id))
            again = {"registered_seq": recorded.seq, "ended_seq": recorded.seq if ended else None}
            act.connection.execute(sa.insert(table).values({**values, **again}))
            continue
        if row.registered_seq != values["registered_seq"] or row.ended_seq is not None:
            # Another one under the same number, or ended anyway.
            continue
        sooner = until_day is not None and (row.until_day is None or until_day < row.until_day)
        if not ended and not sooner:
            continue
        recorded = act.record(ChangeKind.ENTITLEMENTS, ground="restored", detail=str(verifier_id))
        change = {"ended_seq": recorded.seq} if ended else {"until_day": until_day}
        act.connection.execute(sa.update(table).where(table.c.verifier_id == verifier_id).values(change))


def _revoked_among(
    connection: sa.Connection, services: dict[int, str], issuer_id: int, serials: Sequence[bytes]
) -> set[bytes]:
    """Return those of an issuer's serial numbers that the backup knows to be revoked: they stay so, whatever
    CRLs say, and a list of millions has hardly any other."""
    table = schema.certificate
    found: set[bytes] = set()
    for piece in crl_register.pieces(serials):
        rows = connection.execute(
            sa.select(table.c.serial).where(
                table.c.issuer_id == issuer_id,
                table.c.service == services[issuer_id],
                table.c.state == int(CertificateState.REVOKED),
                table.c.serial.in_([serial.hex() for serial in piece]),
            )
        )
        found.update(bytes.fromhex(row.serial) for row in rows)
    return found


def _state_of(act: Act, issuer: IssuerRecord, serial: bytes) -> CertificateState | None:
    table = schema.certificate
    row = act.connection.execute(
        sa.select(table.c.issued_seq, table.c.state).where(
            table.c.issuer_id == issuer.issuer_id,
            table.c.service == issuer.service,
            table.c.serial == serial.hex(),
        )
    ).one_or_none()
    if row is None:
        return None
    if issuer.key_event_seq is not None and row.issued_seq < issuer.key_event_seq:
        # Whether or not its own row has been reached.
        return CertificateState.REVOKED
    return CertificateState(row.state)


def _detail(revoked: _Revoked) -> str:
    return json.dumps(
        {
            "told_by": revoked.told_by,
            "revoked_at": clock.utc_text(revoked.revoked_at_s),
            "reason": reason_text(revoked.reason),
        },
        sort_keys=True,
    )


# --- the store that is replaced ----------------------------------------------------------------------


def _read_before(url: str, backed_up: StoreState) -> _Before:
    """Return what the present store says, or nothing where there is none or it cannot be read."""
    before = _Before()
    try:
        store = Store.open(url)
    except StoreError:
        return before
    try:
        with store, store.reading(repeatable=True) as connection:
            row = connection.execute(sa.select(schema.store_state)).one()
            before.state = StoreState(row.epoch, row.base_seq, row.seq, row.time_ms, row.chain)
            # From an older store a hold may have been released since; nothing else here can be undone.
            is_later = (row.epoch, row.seq) >= (backed_up.epoch, backed_up.seq)
            before.scopes = read_scopes(connection)
            before.fences = {
                item.name: item.fence for item in connection.execute(sa.select(schema.publisher_lease))
            }
            hosts = schema.responder_host
            before.hosts = set(
                connection.execute(sa.select(hosts.c.host).where(hosts.c.ended_ms.is_(None))).scalars()
            )
            leases = schema.worker_lease
            before.lease_ends = {
                item.host: item.ends
                for item in connection.execute(
                    sa.select(leases.c.host, sa.func.max(leases.c.lease_until_ms).label("ends")).group_by(
                        leases.c.host
                    )
                )
            }
            before.provisions = [
                ProvisionCell(*item) for item in connection.execute(sa.select(schema.provision))
            ]
            issuers = {item.issuer_id: item for item in connection.execute(sa.select(schema.issuer))}
            before.key_events = {
                item.spki_der: _KeyEvent(item.key_event_seq, item.key_event_ms)
                for item in issuers.values()
                if item.key_event_seq is not None
            }
            before.verifiers = [
                dict(item._mapping)
                for item in connection.execute(
                    sa.select(schema.verifier).order_by(schema.verifier.c.verifier_id)
                )
            ]
            before.responders = [
                (issuers[item.issuer_id].spki_der, dict(item._mapping))
                for item in connection.execute(sa.select(schema.responder_certificate))
            ]
            spki = {number: item.spki_der for number, item in issuers.items()}
            before.revoked.update(
                _revoked_before(connection, spki, before.key_events, before.scopes.names, holds=is_later)
            )
            before.is_whole = True
    except (StoreError, sa.exc.DatabaseError):
        # Damaged: that is what backups are for.  What was read before the damage still counts.
        return before
    return before


def _revoked_before(
    connection: sa.Connection,
    spki: dict[int, bytes],
    key_events: dict[bytes, _KeyEvent],
    scopes: dict[int, str],
    *,
    holds: bool,
) -> Iterator[tuple[tuple[bytes, bytes], _Revoked]]:
    """Yield what is revoked (with *holds*: or held) in the replaced store, by issuer's key and serial."""
    table = schema.certificate
    for issuer_id, key in spki.items():
        event = key_events.get(key)
        wanted = table.c.state != int(CertificateState.VALID)
        if event is not None:
            # Revoked by the event, whether or not their own rows have been reached.
            wanted = sa.or_(wanted, table.c.issued_seq < event.seq)
        for row in connection.execute(sa.select(table).where(table.c.issuer_id == issuer_id, wanted)):
            where = key, bytes.fromhex(row.serial)
            scope = scopes.get(row.scope_id)
            if row.state != CertificateState.REVOKED and event is not None and row.issued_seq < event.seq:
                yield (
                    where,
                    _Revoked(
                        CRLReason.CA_COMPROMISE,
                        event.recorded_ms // 1000,
                        0,
                        row.not_after_s,
                        _REPLACED,
                        scope,
                    ),
                )
            elif row.state == CertificateState.REVOKED or holds:
                yield (
                    where,
                    _Revoked(
                        row.reason,
                        row.revoked_at_ms // 1000,
                        row.invalidity_s,
                        row.not_after_s,
                        _REPLACED,
                        scope,
                    ),
                )


# --- putting things in place -------------------------------------------------------------------------


@contextmanager
def _nobody_serves(state: Path) -> Iterator[None]:
    """Hold the lock that a supervisor holds while it serves.  Raises: StoreError — one does."""
    descriptor = os.open(state / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreError(f"{state}: being served; stop it before restoring") from exc
        yield
    finally:
        os.close(descriptor)


def _put_files(opened: backup.OpenedBackup, top: str, state: Path, *, replace: bool) -> None:
    """Copy a folder of the backup into the installation; a different file of the same name is kept aside."""
    # Packs before their indexes, so that no index is there without what it speaks of.
    for relative in sorted(opened.below(top), key=lambda path: path.suffix != PACK_SUFFIX):
        source, target = opened.folder / top / relative, state / top / relative
        if target.suffix == PACK_SUFFIX and target.with_suffix(INDEX_SUFFIX).exists():
            # A pack and its index belong together: what is there has its own, or had.
            continue
        if target.exists():
            if not replace or target.read_bytes() == source.read_bytes():
                continue
            target.rename(target.with_name(f"{target.name}.before-{secrets.token_hex(4)}"))
        # The mode is for the one folder made: for what is below a closed one it makes no difference.
        (state / top).mkdir(mode=0o755 if top == "crl" else 0o700, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        neighbour = target.with_name(f".{target.name}.new")
        shutil.copy(source, neighbour)
        with neighbour.open("rb") as file:
            os.fsync(file.fileno())
        neighbour.rename(target)
        sync_folder(target.parent)
