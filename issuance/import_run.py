"""Importing an existing CA: everything read and checked, then recorded in pieces, then shown.

::

    CA, key, CRL ─▶ sheet (all files, checked) ─▶ compared with the register     nothing written so far
      ─▶ issuer, not ready ─▶ certificates and revocations, short acts           restartable
      ─▶ one act: names, policy, CRL number, ready, issuer table                 from now on answered for

Knows: that order, who revokes from now on (with the CA key: here; without: the CA itself, elsewhere), and
that the same command again goes on where it was killed, and otherwise records only what is new.
Does not know: formats (``import_*``), nor polling.
Source: RFC 5280 §5.2.3 (CRL numbers go on rising), §4.1.2.4 (names).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certstatus.changes import ChangeKind
from certstatus.config import SERVICE_EXPECTED, STATUTORY_SERVICES, is_service_name
from certstatus.crl_catalogue import UNPARTITIONED
from certstatus.errors import ImportRefused, KeyFileError, PolicyViolation, StoreAway
from certstatus.x509_reading import load_certificate
from issuance import schema
from issuance.act import Act, RecordedChange
from issuance.ca_keys import CAKey, CAKeyFolder
from issuance.crl_register import LAST_NUMBER_MIN, next_scope_id
from issuance.crl_scopes import ScopeRecord
from issuance.database import insert
from issuance.import_ca import CAToImport, read_ca, read_ca_key
from issuance.import_crl import ForeignCRL, check_crl, read_crl
from issuance.import_divided import (
    add_published,
    as_one_crl,
    check_published,
    division_of,
    newest_s,
    parts_here,
    registered,
)
from issuance.import_files import FilesRead, Progress, Sources, read_sources
from issuance.import_parts import settle
from issuance.import_points import FIELD, crl_points, points_text
from issuance.import_records import GROUND, Difference, PartsHere, Recorder
from issuance.import_register import ELSEWHERE, HERE, ImportedIssuer, read_imported, write_imported
from issuance.import_scopes import GivenCRL, newest_of_each
from issuance.import_sheet import Sheet
from issuance.import_turn import turn_of
from issuance.issuers import (
    IssuerPolicy,
    IssuerRecord,
    add_certificate,
    issuer_by_id,
    issuers,
    key_id,
    publish_issuers,
    read_issuers,
)
from issuance.published_crls import PublishedState, read_published
from issuance.store import Now, Store, read_clock
from issuance.taken_scopes import lift_taken, open_taken, taken_scopes

# With the number of the process that works there behind it.
_WORK = ".import-"
# The scope of all that a CA has issued; one that divides its certificates has others beside it.
# CRL numbers are kept as 64-bit numbers; ours go on from the CA's last.
CRL_NUMBER_MAX = LAST_NUMBER_MIN
# A followed CRL is recorded in less; another import takes longer and is not waited for.
_TURN_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What is to be imported.

    ``policy``: of an issuer that is new; ``changes``: what is to be another in it, also of one that is
    there.  ``crl_der``: a CRL fetched from ``crl_url``; else ``crl_paths``, of a CA that divides its
    certificates one for each of their points.  ``crl_number``: the number of the CA's last CRL, where no CRL
    says it.  ``poll_period_s``: poll ``crl_url`` from now on.
    """

    service: str
    ca_path: Path
    policy: IssuerPolicy
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    key_path: Path | None = None
    passphrase: bytes | None = None
    certificates: tuple[Path, ...] = ()
    index_txt: Path | None = None
    crl_paths: tuple[Path, ...] = ()
    crl_der: bytes | None = None
    crl_url: str | None = None
    crl_number: int | None = None
    poll_period_s: int | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did; ``recorded`` is its last change, None when everything was there already.

    ``scopes``: those that the CA's certificates are divided into.
    """

    issuer: IssuerRecord
    is_new: bool
    read: FilesRead
    difference: Difference
    recorded: RecordedChange | None
    scopes: tuple[ScopeRecord, ...] = ()


@dataclass(slots=True)
class _Plan:
    """What has been decided before anything is written."""

    ca: CAToImport
    key: CAKey | None
    existing: IssuerRecord | None
    policy: IssuerPolicy
    changes: dict[str, Any]
    imported: ImportedIssuer
    last_number: int | None
    read: FilesRead
    parts: PartsHere | None = None


def import_ca(
    store: Store,
    keys: CAKeyFolder,
    index_key: bytes,
    order: ImportOrder,
    work_folder: Path,
    now: Now,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a CA, or what is new of one that was imported before.

    Takes:  *work_folder*: where there is room for a copy of all the files.
    Raises: ImportRefused — a file is not what it must be; PolicyViolation — what is asked for cannot be
            together; LeaseHeld — the CA is being imported already.  Nothing was recorded then.  Killed
            later, the same call goes on.
    """
    ca = read_ca(order.ca_path)
    with turn_of(ca.spki_der, work_folder, _TURN_WAIT_S):
        return _import(store, keys, index_key, order, ca, work_folder, now, progress or _nobody)


def _import(
    store: Store,
    keys: CAKeyFolder,
    index_key: bytes,
    order: ImportOrder,
    ca: CAToImport,
    work_folder: Path,
    now: Now,
    told: Progress,
) -> ImportReport:
    now_s = read_clock(now) // 1000
    key = None if order.key_path is None else read_ca_key(order.key_path, ca, order.passphrase)
    existing = _existing(issuers(store), order, ca)
    given = newest_of_each(_crls(order, ca, now_s))
    division = division_of(store, existing, given, has_key=key is not None)
    crl, crl_name = as_one_crl(given, division, existing)
    imported = _imported(order, existing, key, crl, crl_name)
    policy = _policy(order, existing, imported)
    published = _published(work_folder, order, ca, policy, existing)
    last_number = _last_number(store, order, existing, imported, crl, published)
    with _sheet(work_folder) as sheet:
        sources = Sources(
            order.certificates, order.index_txt, crl if division is None else None, crl_name, division
        )
        read = read_sources(sheet, ca, sources, told)
        if division is None and crl is not None and existing is not None and not read.certificates:
            _check_points(existing.imported, crl, crl_name)
        division = read.division
        check_published(division, published)
        add_published(sheet, published, division)
        plan = _Plan(ca, key, existing, policy, order.changes, imported, last_number, read)
        if division is not None:
            settle(sheet, division, now_s, lambda serials: registered(store, existing, serials))
            plan.imported = dataclasses.replace(imported, crl_idp_der=division.whole_idp_der)
            known = {part.place: part.record.scope_id for part in division.parts if part.record}
            plan.parts = parts_here(division, known, now_s)
        _check_holds(sheet, plan)
        recorder = _recorder(store, sheet, order.service, plan, index_key, existing, crl)
        missing = Difference()
        if existing is not None or any(item.service == order.service for item in issuers(store)):
            missing = recorder.compare(lambda done: told("comparing with the register", done))
        if existing is not None and not existing.is_ready:
            _check_strays(recorder)
        if existing is not None and missing.total == 0 and not _changes_issuer(keys, plan):
            scopes = tuple(taken_scopes(store, existing))
            return ImportReport(existing, False, read, missing, None, scopes)
        issuer = _begin(store, keys, order, plan, now) if existing is None else existing
        if division is not None:
            ids = open_taken(store, issuer, division, published.points, now)
            plan.parts = parts_here(division, ids, now_s)
        recorder = _recorder(store, sheet, order.service, plan, index_key, issuer, crl)
        difference = recorder.record(now, lambda done: told("recording", done))
    recorded = _finish(store, keys, issuer, plan, published, now)
    issuer = issuer_by_id(store, issuer.issuer_id)
    scopes = tuple(taken_scopes(store, issuer))
    return ImportReport(issuer, existing is None, read, difference, recorded, scopes)


def follow_crl(
    store: Store,
    issuer: IssuerRecord,
    index_key: bytes,
    crl_der: bytes,
    source: str,
    work_folder: Path,
    now: Now,
) -> Difference | None:
    """Take over a newer CRL of a CA that revokes elsewhere.

    Gives:  what was new; None if it is the one taken over last.
    Raises: ImportRefused — not a complete CRL of this CA, or older; LeaseHeld — an import of the CA is
            under way; nothing of it was recorded.
    """
    with turn_of(issuer.spki_der, work_folder):
        # As it stands in our turn: an import may have taken a newer one over meanwhile.
        current = issuer_by_id(store, issuer.issuer_id)
        return _follow(store, current, index_key, crl_der, source, work_folder, now)


def _follow(
    store: Store,
    issuer: IssuerRecord,
    index_key: bytes,
    crl_der: bytes,
    source: str,
    work_folder: Path,
    now: Now,
) -> Difference | None:
    taken = issuer.imported
    assert taken is not None
    if taken.crl_sha256 == hashlib.sha256(crl_der).digest():
        return None
    certificates = [load_certificate(der) for der in issuer.certificates_der]
    crl = check_crl(crl_der, certificates, read_clock(now) // 1000, source)
    _check_newer(taken, crl, source)
    _check_points(taken, crl, source)
    if crl.next_update_s is None:
        raise ImportRefused(source, 0, "nextUpdate", "missing: a CRL that never ends cannot be followed")
    with _sheet(work_folder) as sheet:
        for entry in crl.entries:
            sheet.add_crl_entry(entry, source)
        recorder = Recorder(
            store,
            sheet,
            issuer.issuer_id,
            issuer.service,
            index_key,
            is_followed=not issuer.revokes_here,
            crl_s=crl.this_update_s,
        )
        recorder.compare()
        difference = recorder.record(now)
    with store.writing(now) as act:
        current = read_imported(act.connection)[issuer.issuer_id]
        # Until now the old one counted: nobody may rely on the new one's dates before its entries are there.
        write_imported(act.connection, issuer.issuer_id, _with_crl(current, crl))
        if current.revocations == HERE and crl.number is not None:
            # Taken over while this was fetched: ours must not be numbered as one that is out.
            _lift_number(act, issuer.issuer_id, crl.number)
        act.record(ChangeKind.ISSUERS, issuer_id=issuer.issuer_id, ground="CRL followed", detail=source)
        publish_issuers(act)
    return difference


# --- decisions, nothing written ----------------------------------------------------------------------


def _nobody(_what: str, _done: int) -> None:
    pass


def _remove_leftovers(work_folder: Path) -> None:
    """Remove the sheets of imports that were killed; a million rows are some hundred megabytes."""
    for folder in work_folder.glob(f"{_WORK}*"):
        pid = folder.name.removeprefix(_WORK).partition("-")[0]
        if not pid.isdecimal() or not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sheet(work_folder: Path) -> Iterator[Sheet]:
    _remove_leftovers(work_folder)
    with tempfile.TemporaryDirectory(prefix=f"{_WORK}{os.getpid()}-", dir=work_folder) as folder:
        sheet = Sheet(Path(folder) / "sheet")
        try:
            yield sheet
        except sqlite3.Error as exc:
            # The sheet's own; what the register's database says is a StoreError already.
            raise StoreAway(f"{work_folder}: no room to import in: {exc}") from exc
        finally:
            sheet.close()


def _recorder(
    store: Store,
    sheet: Sheet,
    service: str,
    plan: _Plan,
    index_key: bytes,
    issuer: IssuerRecord | None,
    crl: ForeignCRL | None,
) -> Recorder:
    return Recorder(
        store,
        sheet,
        0 if issuer is None else issuer.issuer_id,
        service,
        index_key,
        is_followed=plan.imported.revocations == ELSEWHERE,
        crl_s=newest_s(crl, plan.read.division),
        cert_hash=plan.policy.cert_hash,
        parts=plan.parts,
    )


def _existing(records: list[IssuerRecord], order: ImportOrder, ca: CAToImport) -> IssuerRecord | None:
    """Return the one of *records* with this key if it was imported before.  Raises: PolicyViolation."""
    service = order.service
    if service in STATUTORY_SERVICES:
        raise PolicyViolation(
            f"{service} is one of the two services of the Act; an imported CA needs another name"
        )
    if not is_service_name(service):
        raise PolicyViolation(f"service {service[:50]!r}: {SERVICE_EXPECTED} expected")
    for record in records:
        which = f"{record.service} generation {record.generation}"
        if record.spki_der == ca.spki_der:
            if record.imported is None:
                raise PolicyViolation(
                    f"{ca.path}: the key is that of {which}, an issuer of this installation"
                )
            if record.service != service:
                raise PolicyViolation(f"{ca.path}: the CA was imported as {which} already")
            if record.key_event_seq is not None:
                raise PolicyViolation(f"{which} had its CA-key event in change {record.key_event_seq}")
            return record
    for record in records:
        if (record.service == service) != (ca.name_der in record.names_der):
            raise PolicyViolation(
                f"{service}: one name belongs to one service, and this service has another"
                if record.service == service
                else f"{ca.path}: the CA's name is already that of {record.service}"
            )
    return None


def _crls(order: ImportOrder, ca: CAToImport, now_s: int) -> list[GivenCRL]:
    if order.crl_der is not None:
        name = order.crl_url or "CRL"
        return [GivenCRL(check_crl(order.crl_der, ca.certificates, now_s, name), name)]
    return [GivenCRL(read_crl(path, ca.certificates, now_s), str(path)) for path in order.crl_paths]


def _check_newer(taken: ImportedIssuer, crl: ForeignCRL, source: object) -> None:
    if taken.crl_this_update_s is not None and crl.this_update_s < taken.crl_this_update_s:
        raise ImportRefused(source, 0, "thisUpdate", "older than the CRL that was taken over last")
    if taken.crl_number is not None and crl.number is not None and crl.number < taken.crl_number:
        raise ImportRefused(
            source, 0, "CRL number", f"{crl.number}, and {taken.crl_number} was taken over already"
        )


def _check_points(taken: ImportedIssuer | None, crl: ForeignCRL, source: object) -> None:
    """Refuse a CRL of another point than the one taken over last: the CA may have begun to partition.

    Where certificates are given, it is for them to show that they all name it (``import_files``).
    """
    points = crl_points(crl.idp_der)
    if taken is None or taken.crl_sha256 is None or not points:
        return
    if points.isdisjoint(crl_points(taken.crl_idp_der)):
        raise ImportRefused(
            source,
            0,
            FIELD,
            f"the CRL is of {points_text(crl.idp_der)} alone, and the one taken over last of"
            f" {points_text(taken.crl_idp_der)}; import it with the certificates (--certificates), which must"
            " all name it",
        )


def _with_crl(taken: ImportedIssuer, crl: ForeignCRL) -> ImportedIssuer:
    if taken.crl_this_update_s is not None and taken.crl_this_update_s > crl.this_update_s:
        # Somebody took over a newer one meanwhile.
        return taken
    return dataclasses.replace(
        taken,
        crl_number=crl.number if crl.number is not None else taken.crl_number,
        crl_this_update_s=crl.this_update_s,
        crl_next_update_s=crl.next_update_s,
        crl_sha256=crl.sha256,
        crl_idp_der=crl.idp_der,
    )


def _imported(
    order: ImportOrder,
    existing: IssuerRecord | None,
    key: CAKey | None,
    crl: ForeignCRL | None,
    crl_name: str,
) -> ImportedIssuer:
    """Return what will be kept of the issuer once the import has ended."""
    taken = existing.imported if existing is not None else None
    if taken is None:
        taken = ImportedIssuer(ELSEWHERE if key is None else HERE)
    if key is not None and taken.revocations == ELSEWHERE:
        taken = dataclasses.replace(taken, revocations=HERE, crl_url=None, poll_period_s=None)
    if crl is not None:
        _check_newer(taken, crl, crl_name)
        taken = _with_crl(taken, crl)
    if taken.revocations == ELSEWHERE:
        if taken.crl_this_update_s is None or (crl is None and taken.crl_next_update_s is None):
            raise PolicyViolation(
                "without the CA's key it goes on revoking elsewhere: give its CRL (--crl or --crl-url)"
            )
        if taken.crl_next_update_s is None:
            raise ImportRefused(
                crl_name, 0, "nextUpdate", "missing: a CRL that never ends cannot be followed"
            )
        if order.poll_period_s is not None:
            taken = dataclasses.replace(taken, crl_url=order.crl_url, poll_period_s=order.poll_period_s)
    elif order.poll_period_s is not None:
        raise PolicyViolation("with the CA's key it revokes here from now on: there is no CRL to poll")
    return dataclasses.replace(taken, is_ready=True)


def _policy(order: ImportOrder, existing: IssuerRecord | None, imported: ImportedIssuer) -> IssuerPolicy:
    policy = _changed(order.policy if existing is None else existing.policy, order.changes, imported)
    listed = bool(order.certificates) or order.index_txt is not None
    # Only what is answered by already was given its list; half an import was not.
    is_known = existing is not None and existing.is_ready and existing.policy.issued_list == "complete"
    if policy.issued_list == "complete" and not listed and not is_known:
        raise PolicyViolation(
            "issued_list = complete needs the list: give --certificates or --index, or --issued-list absent"
        )
    policy.check(order.service)
    return policy


def _changed(policy: IssuerPolicy, changes: dict[str, Any], imported: ImportedIssuer) -> IssuerPolicy:
    policy = dataclasses.replace(policy, **changes)
    if imported.revocations == ELSEWHERE:
        # Whatever its CRLs say is obeyed.
        policy = dataclasses.replace(policy, hold=True)
    return policy


def _published(
    work_folder: Path,
    order: ImportOrder,
    ca: CAToImport,
    policy: IssuerPolicy,
    existing: IssuerRecord | None,
) -> PublishedState:
    """Return what CRLs say that this installation published for the CA before its register forgot it.

    So it is after the restore of a backup from before the import: what was revoked here since stands in
    no file of the CA's, and the numbers have been used.
    """
    if existing is not None and existing.is_ready:
        return PublishedState()
    # None of it but key, name and service is looked at.
    unknown = IssuerRecord(
        issuer_id=0,
        service=order.service,
        generation=0,
        key_algorithm=ca.key_algorithm,
        name_der=ca.name_der,
        spki_der=ca.spki_der,
        key_id=b"",
        policy=policy,
        certificates_der=(),
        names_der=(ca.name_der,),
        created_seq=0,
        key_event_seq=None,
        key_event_ms=None,
        imported=ImportedIssuer(HERE),
    )
    places = (work_folder / "crl", work_folder / "crl" / "archive")
    folders = [place / order.service.lower() for place in places]
    there = [folder for folder in folders if folder.is_dir()]
    return read_published(there, [unknown], 0, archives=[work_folder / "crl" / "archive"])[0]


def _check_strays(recorder: Recorder) -> None:
    """Refuse to end an import with other files than it began with: it would leave their rest good."""
    stray = recorder.stray()
    if stray is not None:
        raise PolicyViolation(
            f"certificate {stray.hex()} was recorded as valid by the import that was interrupted, and is"
            " not in these files: give the same, or newer ones that list it"
        )


def _last_number(
    store: Store,
    order: ImportOrder,
    existing: IssuerRecord | None,
    imported: ImportedIssuer,
    crl: ForeignCRL | None,
    published: PublishedState,
) -> int | None:
    """Return the CRL number after which this installation goes on; None for a CA that is followed."""
    if imported.revocations == ELSEWHERE:
        return None
    given = order.crl_number
    if given is not None and crl is not None and crl.number is not None and given < crl.number:
        raise PolicyViolation(f"--crl-number {given} lies before {crl.number}, the number of the CRL given")
    before = None
    if existing is not None:
        table = schema.crl_scope
        with store.reading() as connection:
            before = connection.execute(
                sa.select(table.c.last_number).where(
                    table.c.issuer_id == existing.issuer_id, table.c.scope == UNPARTITIONED
                )
            ).scalar()
    used = (given, imported.crl_number, before, published.numbers.get(UNPARTITIONED))
    known = [number for number in used if number is not None]
    if not known:
        raise PolicyViolation(
            "the CRLs published here must go on from the CA's last number: give a CRL that has one,"
            " or --crl-number"
        )
    number = max(known)
    if not 0 <= number < CRL_NUMBER_MAX:
        raise PolicyViolation(
            f"CRL number {number}: this installation can count on to {CRL_NUMBER_MAX - 1} only"
        )
    return number


def _check_holds(sheet: Sheet, plan: _Plan) -> None:
    if plan.policy.hold:
        return
    for page in sheet.pages(5000):
        for row in page:
            if row.is_held:
                raise ImportRefused(
                    row.told_by,
                    row.line,
                    "revocation reason",
                    f"{row.serial.hex()} is on hold: --hold is needed",
                )


def _changes_issuer(keys: CAKeyFolder, plan: _Plan) -> bool:
    """Say whether anything but certificates is new."""
    existing = plan.existing
    assert existing is not None
    return (
        plan.imported != existing.imported
        or plan.policy != existing.policy
        or not plan.read.names_der <= set(existing.names_der)
        or bool(_new_certificates(existing, plan.ca))
        or _needs_key(keys, existing, plan)
    )


def _new_certificates(issuer: IssuerRecord, ca: CAToImport) -> list[x509.Certificate]:
    ders = {item.public_bytes(serialization.Encoding.DER): item for item in reversed(ca.certificates)}
    return [item for der, item in ders.items() if der not in issuer.certificates_der]


def _needs_key(keys: CAKeyFolder, issuer: IssuerRecord, plan: _Plan) -> bool:
    if plan.key is None:
        return False
    try:
        return keys.private_key(issuer.issuer_id).public_key() != plan.key.public_key()
    except KeyFileError:
        return True


# --- writing -----------------------------------------------------------------------------------------


def _begin(store: Store, keys: CAKeyFolder, order: ImportOrder, plan: _Plan, now: Now) -> IssuerRecord:
    """Record the issuer, not ready: it has a number, and nobody is told of it."""
    table = schema.issuer
    ca, service = plan.ca, order.service
    new_path = None if plan.key is None else keys.write_new(plan.key)
    try:
        with store.writing(now) as act:
            # Again, for only under the lock nobody else takes the name.
            _existing(read_issuers(act.connection), order, ca)
            rows = act.connection.execute(
                sa.select(table.c.issuer_id, table.c.service, table.c.generation)
            ).all()
            issuer_id = max((row.issuer_id for row in rows), default=0) + 1
            generation = max((row.generation for row in rows if row.service == service), default=0) + 1
            act.connection.execute(
                sa.insert(table).values(
                    issuer_id=issuer_id,
                    service=service,
                    generation=generation,
                    key_algorithm=ca.key_algorithm,
                    name_der=ca.name_der,
                    spki_der=ca.spki_der,
                    key_id=key_id(ca.certificates[0]),
                    policy=plan.policy.as_json(),
                    created_seq=act.seq + 1,
                )
            )
            write_imported(act.connection, issuer_id, ImportedIssuer(plan.imported.revocations))
            for certificate in reversed(ca.certificates):
                add_certificate(act, issuer_id, certificate, act.seq + 1)
            if new_path is not None:
                keys.adopt(new_path, issuer_id)
            act.record(ChangeKind.ISSUERS, issuer_id=issuer_id, ground="import begun")
    except BaseException:
        if new_path is not None:
            new_path.unlink(missing_ok=True)
        raise
    return issuer_by_id(store, issuer_id)


def _finish(
    store: Store,
    keys: CAKeyFolder,
    issuer: IssuerRecord,
    plan: _Plan,
    published: PublishedState,
    now: Now,
) -> RecordedChange:
    """Record that the import has ended: from this change on the issuer is answered for."""
    new_path = None
    if _needs_key(keys, issuer, plan):
        assert plan.key is not None
        new_path = keys.write_new(plan.key)
    with store.writing(now) as act:
        seq = act.seq + 1
        for certificate in _new_certificates(issuer, plan.ca):
            add_certificate(act, issuer.issuer_id, certificate, seq)
        _add_names(act, issuer, plan, seq)
        table = schema.issuer
        stored = act.connection.execute(
            sa.select(table.c.policy).where(table.c.issuer_id == issuer.issuer_id)
        ).scalar_one()
        # As it stands now: it may have been changed while certificates were recorded.
        policy = _changed(IssuerPolicy.from_json(stored), plan.changes, plan.imported)
        policy.check(issuer.service)
        act.connection.execute(
            sa.update(table).where(table.c.issuer_id == issuer.issuer_id).values(policy=policy.as_json())
        )
        write_imported(act.connection, issuer.issuer_id, plan.imported)
        if plan.last_number is not None:
            _lift_number(act, issuer.issuer_id, plan.last_number)
        if plan.parts is not None and plan.read.division is not None:
            lift_taken(act, plan.parts.scope_ids, plan.read.division, published.numbers)
        if new_path is not None:
            keys.adopt(new_path, issuer.issuer_id)
        recorded = act.record(ChangeKind.ISSUERS, issuer_id=issuer.issuer_id, ground=GROUND)
        publish_issuers(act)
    return recorded


def _add_names(act: Act, issuer: IssuerRecord, plan: _Plan, seq: int) -> None:
    for name_der in sorted(plan.read.names_der | {plan.ca.name_der}):
        if name_der not in issuer.names_der:
            act.connection.execute(
                sa.insert(schema.issuer_name).values(
                    issuer_id=issuer.issuer_id,
                    sha256=hashlib.sha256(name_der).digest(),
                    name_der=name_der,
                    added_seq=seq,
                )
            )


def _lift_number(act: Act, issuer_id: int, number: int) -> None:
    """Make *number* the last one given out, unless a greater one was."""
    table = schema.crl_scope
    before = act.connection.execute(
        sa.select(table.c.last_number).where(table.c.issuer_id == issuer_id, table.c.scope == UNPARTITIONED)
    ).scalar()
    last = max(number, before or 0)
    act.connection.execute(
        insert(act.connection, table)
        .values(issuer_id=issuer_id, scope=UNPARTITIONED, last_number=last, scope_id=next_scope_id())
        .on_conflict_do_update(index_elements=["issuer_id", "scope"], set_={"last_number": last})
    )
