"""What is read back of published CRLs, from the publisher's own octets."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from crl_cases import CRLLine, short_periods
from cryptography import x509
from lot_cases import Partitioned
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.crl_catalogue import COMPLETE
from issuance.crl_scopes import close_scope
from issuance.issuers import create_issuer, issuer_by_id, set_policy
from issuance.profiles import scope_of_point
from issuance.published_crls import read_published
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_scopes import CRLScope, ScopeList, scopes_of


def test_a_restore_tells_the_scope_by_what_the_publisher_writes(tmp_path: Path, clock: Clock) -> None:
    """Number, scope and entries, from files of which nothing but their octets is left."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("CORP"))
        serial = line.issue_certificate()
        line.record(ChangeKind.REVOKED, serial, reason=1)
        (complete,) = line.issue(True, False)
        clock.pass_s(2)
        (delta,) = line.issue(False)
        issuer = line.issuer
    collected = tmp_path / "collected"
    collected.mkdir()
    for number, item in enumerate((complete, delta)):
        shutil.copy(item.file, collected / f"{number}.crl")
    crl = x509.load_der_x509_crl(line.seen[complete.number, COMPLETE][1])
    point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    (name,) = point.full_name or []
    assert scope_of_point(name.value) == (1, "all")
    read = read_published([collected], [issuer], 0)[issuer.issuer_id]
    assert read.numbers == {"all": delta.number}
    assert (read.crls, set(read.revoked)) == (2, {serial})


def test_the_list_of_scopes_follows_the_register(tmp_path: Path, clock: Clock) -> None:
    """Kept while nothing changes; a partition opened or closed, a policy, another issuer show at once."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = Partitioned(store, tmp_path, clock, 2)
        scopes = ScopeList(store)
        first = scopes.read()
        assert [scope.name for scope in first] == ["all", *line.names]
        line.record(ChangeKind.REVOKED, line.serials[line.names[0]][0], 1)
        line.make(Due(True, False))
        assert all(one is other for one, other in zip(scopes.read(), first, strict=True))

        def changed() -> list[CRLScope]:
            found = scopes.read()
            assert found == scopes_of(store)
            return found

        line.issue("m1/13999")
        assert [scope.name for scope in changed()] == ["all", *line.names, "m1/13999"]
        close_scope(store, line.issuer_id, line.names[1], clock.now_ms)
        assert [
            scope.partition is not None and scope.partition.closed_seq is not None for scope in changed()
        ] == [*(False, False, True, False)]
        policy = replace(issuer_by_id(store, line.issuer_id).policy, delta_period_s=77)
        set_policy(store, line.issuer_id, policy, clock.now_ms)
        assert {scope.issuer.policy.delta_period_s for scope in changed()} == {77}
        create_issuer(store, line.keys, short_periods("AUTH"), clock.now_ms)
        assert {scope.issuer.service for scope in changed()} == {"SIGN", "AUTH"}
