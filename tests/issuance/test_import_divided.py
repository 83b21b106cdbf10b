"""CAs with a CRL for each distribution point: every certificate in one scope, on the CRL that it names."""

from __future__ import annotations

import dataclasses
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from divided_cases import KEY, DividedCA, listed, published, scopes_here, stored, uri
from hypothesis import given, settings
from hypothesis import strategies as st
from import_cases import NOW_MS, NOW_S, PEM, REVOKED_S, dump, name, point_of, run, scope_of, valid_line
from store_cases import INDEX_KEY, START_MS

from certstatus.distribution_point import names_of_points, parse_issuing_distribution_point, point_names
from certstatus.errors import CertStatusError, ImportRefused, PolicyViolation
from issuance.ca_keys import CAKeyFolder
from issuance.import_run import ImportOrder, import_ca
from issuance.issuers import issuer_of
from issuance.revoke import FoundCertificate, revoke
from issuance.store import Store
from publisher.crl_plan import Due

ALL = x509.DirectoryName(name("all certificates"))


@pytest.fixture
def old(tmp_path: Path) -> DividedCA:
    """A CA that somebody else had."""
    return DividedCA(tmp_path / "old")


def _two_parts(old: DividedCA) -> ImportOrder:
    """Certificates 1 to 4 in part 1, 5 and 6 in part 2; 2 and 6 are revoked, and 99, which nobody has."""
    old.certificates_of(1, 1, 2, 3, 4)
    old.certificates_of(2, 5, 6)
    return old.divided_order(old.crl_of(1, (2,), 7), old.crl_of(2, (6, 99), 300))


# --- what becomes of the parts -----------------------------------------------------------------------


def test_each_point_goes_on_with_its_own_crl(store: Store, keys: CAKeyFolder, old: DividedCA) -> None:
    """Its octets, its certificates, its numbers; and beside them a list of all, of no point."""
    order = _two_parts(old)
    report = run(store, keys, order)
    assert [scope.name for scope in report.scopes] == ["dp/1", "dp/2"]
    scopes = scopes_here(store)
    one, two = (scopes[uri(part).value].name for part in (1, 2))
    assert stored(store) == {**dict.fromkeys((1, 2, 3, 4), one), **dict.fromkeys((5, 6, 99), two)}
    made = published(store, keys)
    before = {path.name: x509.load_der_x509_crl(path.read_bytes()) for path in order.crl_paths}
    for part, (was, numbered) in enumerate(zip(before.values(), (8, 301), strict=True), 1):
        crl, _ = made[scopes[uri(part).value].name]
        idp = was.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
        assert crl.idp_der == idp.public_bytes()
        assert crl.number == numbered
        assert listed(crl) == {entry.serial_number for entry in was}
    whole, _ = made["all"]
    assert (whole.idp_der, listed(whole)) == (None, {2, 6, 99})
    # Higher than any number that a list of all can have had.
    assert (whole.number or 0) > 300
    assert run(store, keys, order).recorded is None


def test_clients_take_the_crl_of_the_point_and_no_other(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA, tmp_path: Path
) -> None:
    """OpenSSL, before and after a certificate is revoked here, and by the delta."""
    run(sqlite_store, keys, _two_parts(old))
    scopes = scopes_here(sqlite_store)
    one, two = (scopes[uri(part).value].name for part in (1, 2))
    leaf = old.folder / "certificates/0003.pem"
    complete = published(sqlite_store, keys)

    def verified(*files: Path, at_s: int = NOW_S + 15) -> str:
        named: list[str] = []
        for number, file in enumerate(files):
            pem = tmp_path / f"{number}.pem"
            pem.write_bytes(x509.load_der_x509_crl(file.read_bytes()).public_bytes(PEM))
            named += ["-CRLfile", str(pem)]
        words: list[str | Path] = ["-crl_check", "-extended_crl", "-use_deltas", "-attime", str(at_s)]
        words += ["-CAfile", old.ca_path]
        done = subprocess.run(
            ["openssl", "verify", *words, *named, leaf], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    assert ": OK" in verified(complete[one][1])
    assert ": OK" in verified(complete["all"][1])
    assert "different CRL scope" in verified(complete[two][1])
    issuer_id = issuer_of(sqlite_store, "OLD").issuer_id
    revoke(sqlite_store, FoundCertificate(issuer_id, "OLD", b"\x03"), NOW_MS + 20_000, reason=1)
    delta = published(sqlite_store, keys, NOW_MS + 60_000, Due(False, True))
    assert delta[one][0].base_number == complete[one][0].number
    assert listed(delta[one][0]) == {3}
    assert listed(delta[two][0]) == set()
    assert "certificate revoked" in verified(complete[one][1], delta[one][1], at_s=NOW_S + 65)


def test_of_one_point_the_newest_crl_counts(sqlite_store: Store, keys: CAKeyFolder, old: DividedCA) -> None:
    """In whatever order they are given, and given twice."""
    old.certificates_of(1, 1, 2)
    old.certificates_of(2, 5)
    older, newer = old.crl_of(1, (), 7), old.crl_of(1, (2,), 9, NOW_S - 500)
    other = old.crl_of(2, (), 4)
    run(sqlite_store, keys, old.divided_order(newer, other, older, newer))
    one = scopes_here(sqlite_store)[uri(1).value].name
    crl, _ = published(sqlite_store, keys)[one]
    assert (crl.number, listed(crl)) == (10, {2})


def test_one_point_is_no_division(sqlite_store: Store, keys: CAKeyFolder, old: DividedCA) -> None:
    """All certificates name it: two CRLs of it are one list, and it is the CA's, as ever."""
    old.certificates_of(1, 1, 2)
    run(sqlite_store, keys, old.divided_order(old.crl_of(1, (), 7), old.crl_of(1, (2,), 9, NOW_S - 500)))
    assert scopes_here(sqlite_store) == {}
    assert set(stored(sqlite_store).values()) == {"all"}


def test_beside_a_list_of_all_a_certificate_may_be_in_no_part(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """It names no point, or one whose CRL is not there: it stands on the list of all alone, as before."""
    order = _two_parts(old)
    old.certificates_of(0, 10, 11)
    old.certificates_of(3, 12)
    whole = old.crl_of(0, (2, 6, 11, 98), 50, NOW_S - 100)
    run(sqlite_store, keys, dataclasses.replace(order, crl_paths=(*order.crl_paths, whole)))
    here = stored(sqlite_store)
    assert {serial for serial, scope in here.items() if scope == "all"} == {10, 11, 12, 98}
    made = published(sqlite_store, keys)
    assert listed(made["all"][0]) == {2, 6, 11, 98, 99}
    assert {serial for scope in ("dp/1", "dp/2") for serial in listed(made[scope][0])} == {2, 6, 99}


def test_a_list_of_all_is_known_by_a_point_that_all_certificates_name(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """As those of an installation like this one do: that of their part, and that of all."""
    old.certificates_of(1, 1, 2, more=[ALL])
    old.certificates_of(2, 5, 6, more=[ALL])
    whole = old.folder / "all.crl"
    whole.write_bytes(old.crl_der({2: KEY, 6: KEY}, 20, NOW_S - 500, scope_of(ALL)))
    order = old.divided_order(whole, old.crl_of(1, (2,), 7), old.crl_of(2, (6,), 8))
    run(sqlite_store, keys, order)
    assert len(scopes_here(sqlite_store)) == 2
    assert set(stored(sqlite_store).values()) == {"dp/1", "dp/2"}
    crl, _ = published(sqlite_store, keys)["all"]
    assert crl.idp_der is not None
    assert parse_issuing_distribution_point(crl.idp_der).name_der is not None
    assert (crl.number, listed(crl)) == (21, {2, 6})
    assert run(sqlite_store, keys, order).recorded is None


def test_what_has_ended_need_not_be_placed(sqlite_store: Store, keys: CAKeyFolder, old: DividedCA) -> None:
    """Nobody relies on it: the CRL of its point may be gone, and the index may have it alone."""
    order = _two_parts(old)
    ended = old.issue(40, end_s=NOW_S - 5, points=[point_of(uri(3))])
    (old.folder / "certificates/0040.pem").write_bytes(ended.public_bytes(PEM))
    index = old.write_index(valid_line(41, NOW_S - 5), valid_line(1))
    run(sqlite_store, keys, dataclasses.replace(order, index_txt=index))
    here = stored(sqlite_store)
    assert (here[40], here[41]) == ("all", "all")
    assert here[1] != "all"


# --- what is refused ---------------------------------------------------------------------------------


def _overlapping(old: DividedCA) -> ImportOrder:
    order = _two_parts(old)
    path = old.folder / "both.crl"
    path.write_bytes(old.crl_der({}, 7, NOW_S - 10, scope_of(uri(2), uri(3))))
    return dataclasses.replace(order, crl_paths=(*order.crl_paths, path))


def _with_crl(*more: Callable[[DividedCA], Path]) -> Callable[[DividedCA], ImportOrder]:
    def make(old: DividedCA) -> ImportOrder:
        order = _two_parts(old)
        return dataclasses.replace(order, crl_paths=(*order.crl_paths, *(write(old) for write in more)))

    return make


def _with_certificates(
    part: int, *serials: int, more: tuple[int, ...] = ()
) -> Callable[[DividedCA], ImportOrder]:
    def make(old: DividedCA) -> ImportOrder:
        old.certificates_of(part, *serials, more=[uri(item) for item in more])
        return _two_parts(old)

    return make


def _with_index(*serials: int) -> Callable[[DividedCA], ImportOrder]:
    def make(old: DividedCA) -> ImportOrder:
        index = old.write_index(*map(valid_line, serials))
        return dataclasses.replace(_two_parts(old), index_txt=index)

    return make


_SOME_REASONS = x509.IssuingDistributionPoint(
    [uri(3)], None, False, False, frozenset({x509.ReasonFlags.key_compromise}), False, False
)
_INDIRECT = x509.IssuingDistributionPoint([uri(3)], None, False, False, None, True, False)


def _special(scope: x509.IssuingDistributionPoint) -> Callable[[DividedCA], Path]:
    def write(old: DividedCA) -> Path:
        path = old.folder / "special.crl"
        path.write_bytes(old.crl_der({}, 7, NOW_S - 10, scope))
        return path

    return write


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_overlapping, "has a name in common with"),
        (
            _with_crl(lambda old: old.crl_of(1, (2, 3), 7, NOW_S - 10)),
            "neither is the newer one: numbers 7 and 7",
        ),
        (_with_crl(lambda old: old.crl_of(1, (2,), 9, NOW_S - 9999)), "neither is the newer one"),
        (_with_crl(lambda old: old.crl_of(3, (), None)), "CRL number: missing"),
        (
            _with_crl(lambda old: old.crl_of(3, (99,))),
            "stands on the CRL of the point http://old.example/2.crl",
        ),
        (
            _with_crl(lambda old: old.crl_of(3, (1,))),
            r"certificates 01 .* stand on the CRL of the point \S*3.crl",
        ),
        (_with_crl(_special(_SOME_REASONS)), "only for some reasons"),
        (_with_crl(_special(_INDIRECT)), "an indirect CRL"),
        (_with_certificates(1, 20, 21, more=(2,)), r"certificates 14 .*, 15 .* name the points of two parts"),
        (_with_certificates(3, 20), r"certificates 14 .*0014.pem\) name no point of a CRL that was given"),
        (_with_certificates(0, *range(20, 29)), r"and 4 more name no point"),
        (_with_index(1, 60, 61), r"certificates 3c .*, 3d .* are in the index alone"),
    ],
    ids=[
        *("overlap", "same number", "number against date", "no number", "on two CRLs", "on another's CRL"),
        *("some reasons", "indirect", "two points", "unknown point", "no point", "index alone"),
    ],
)
def test_what_contradicts_itself_is_refused(
    sqlite_store: Store,
    keys: CAKeyFolder,
    old: DividedCA,
    spoil: Callable[[DividedCA], ImportOrder],
    said: str,
) -> None:
    """Named, with the file; and nothing of it is recorded."""
    order = spoil(old)
    before = dump(sqlite_store)
    with pytest.raises(ImportRefused, match=said):
        run(sqlite_store, keys, order)
    assert dump(sqlite_store) == before


def test_who_was_revoked_since_the_parts_crls_is_on_no_wrong_list(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """On the list of all, without its certificate: it may be of a part, whose older CRL does not have it."""
    order = _two_parts(old)
    early = old.crl_of(1, (), 7, REVOKED_S - 10)
    crls = [early, order.crl_paths[1], old.crl_of(0, (2, 6, 77, 99), 9, NOW_S - 10)]
    before = dump(sqlite_store)
    with pytest.raises(ImportRefused, match=r"certificates 4d .* since the CRL of a part was made"):
        run(sqlite_store, keys, dataclasses.replace(order, crl_paths=tuple(crls)))
    assert dump(sqlite_store) == before
    # A list made since then has it or is not its own.
    crls[0] = old.crl_of(1, (2, 77), 10, NOW_S - 10)
    run(sqlite_store, keys, dataclasses.replace(order, crl_paths=tuple(crls)))
    assert stored(sqlite_store)[77] == "dp/1"


def test_several_crls_are_not_followed(sqlite_store: Store, keys: CAKeyFolder, old: DividedCA) -> None:
    """Without the key there is one list to follow, or none."""
    order = dataclasses.replace(_two_parts(old), key_path=None)
    with pytest.raises(PolicyViolation, match="can be taken over"):
        run(sqlite_store, keys, order)


def test_what_was_one_list_is_not_divided_later(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """Who is in which part was not recorded then."""
    old.certificates_of(1, 1)
    run(sqlite_store, keys, old.divided_order(old.crl_of(1)))
    with pytest.raises(PolicyViolation, match="cannot be divided any more"):
        run(sqlite_store, keys, old.divided_order(old.crl_of(1), old.crl_of(2)))


# --- again, and interrupted --------------------------------------------------------------------------


def test_a_newer_crl_of_one_part_is_enough(sqlite_store: Store, keys: CAKeyFolder, old: DividedCA) -> None:
    """The others stay; an older one is refused, and so is one of a point that was not there."""
    run(sqlite_store, keys, _two_parts(old))
    newer = old.crl_of(1, (2, 4), 12, NOW_S - 100)
    run(sqlite_store, keys, old.order(crl_paths=(newer,)))
    made = published(sqlite_store, keys)
    one, two = (scopes_here(sqlite_store)[uri(part).value].name for part in (1, 2))
    assert (made[one][0].number, listed(made[one][0])) == (13, {2, 4})
    assert listed(made[two][0]) == {6, 99}
    with pytest.raises(ImportRefused, match="older than the CRL that was taken over last"):
        run(sqlite_store, keys, old.order(crl_paths=(old.crl_of(1, (2,), 11, NOW_S - 500),)))
    with pytest.raises(PolicyViolation, match=r"without a CRL of the point \S*3\.crl"):
        run(sqlite_store, keys, old.order(crl_paths=(old.crl_of(3),)))


def test_more_certificates_go_into_their_parts(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """Without any CRL; and one of which only its entry was known turns out to name that CRL's point."""
    run(sqlite_store, keys, _two_parts(old))
    old.certificates_of(2, 8, 99)
    run(sqlite_store, keys, old.divided_order())
    here = stored(sqlite_store)
    assert here[8] == here[99] == scopes_here(sqlite_store)[uri(2).value].name


def test_a_certificate_of_another_part_than_its_entry_is_refused(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """The register has it on the CRLs of part 2, where its entry was."""
    run(sqlite_store, keys, _two_parts(old))
    old.certificates_of(1, 99)
    with pytest.raises(ImportRefused, match="63 is on the CRLs of another distribution point"):
        run(sqlite_store, keys, old.divided_order())


def test_half_a_division_ends_with_all_its_parts(
    sqlite_store: Store, keys: CAKeyFolder, old: DividedCA
) -> None:
    """Killed half way: without one of the CRLs it does not go on, with all of them it ends the same."""
    old.certificates_of(1, *range(1, 40))
    old.certificates_of(2, *range(601, 640))
    crls = old.crl_of(1, range(1, 600)), old.crl_of(2, range(700, 1300))
    order = old.divided_order(*crls)

    def told(what: str, done: int) -> None:
        if what == "recording" and done >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_ca(sqlite_store, keys, INDEX_KEY, order, keys.folder.parent, NOW_MS, told)
    assert published(sqlite_store, keys) == {}
    with pytest.raises(PolicyViolation, match=r"had a CRL of the point http://old.example/2.crl"):
        run(sqlite_store, keys, dataclasses.replace(order, crl_paths=crls[:1]))
    run(sqlite_store, keys, order)
    made = published(sqlite_store, keys, NOW_MS + 500_000)
    assert [len(listed(made[scope][0])) for scope in ("dp/1", "dp/2")] == [599, 600]


def test_after_the_register_was_lost_names_and_numbers_go_on(
    keys: CAKeyFolder, old: DividedCA, tmp_path: Path
) -> None:
    """Imported again: what was revoked here since is on our CRLs, which say in which part."""
    order = _two_parts(old)
    with Store.create(f"sqlite:///{tmp_path / 'first.db'}", START_MS) as store:
        run(store, keys, order)
        issuer_id = issuer_of(store, "OLD").issuer_id
        revoke(store, FoundCertificate(issuer_id, "OLD", b"\x03"), NOW_MS + 5000, reason=1)
        before = published(store, keys)
        names = {title: record.name for title, record in scopes_here(store).items()}
    # Another CRL that would come first, were names given out anew.
    extra = old.folder / "extra.crl"
    extra.write_bytes(old.crl_der({}, 5, NOW_S - 10, scope_of(x509.UniformResourceIdentifier("http://a/"))))
    less = old.order(crl_paths=order.crl_paths[:1], changes={"issued_list": "absent"})
    order = dataclasses.replace(order, crl_paths=(extra, *order.crl_paths))
    with Store.create(f"sqlite:///{tmp_path / 'second.db'}", START_MS) as store:
        with pytest.raises(PolicyViolation, match=r"has published CRLs of the point \S*1\.crl for the CA"):
            run(store, keys, less, NOW_MS + 90_000)
        run(store, keys, order, NOW_MS + 100_000)
        here = {title: record.name for title, record in scopes_here(store).items()}
        assert here == names | {"http://a/": "dp/3"}
        after = published(store, keys, NOW_MS + 200_000)
        for scope in names.values():
            assert after[scope][0].idp_der == before[scope][0].idp_der
            assert (after[scope][0].number or 0) > (before[scope][0].number or 0)
            assert listed(after[scope][0]) == listed(before[scope][0])


# --- nothing falls between two stools ----------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_every_certificate_is_in_one_scope_and_on_the_crl_that_it_names(seed: int) -> None:
    """Of a CA at random: each revoked one stands on the CRLs whose point it names, and on no others."""
    numbers = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    try:
        keys = CAKeyFolder(folder / "ca", environment={})
        keys.make_passphrase()
        old = DividedCA(folder / "old")
        parts = range(1, numbers.randint(2, 5))
        has_whole = numbers.random() < 0.5
        is_named = has_whole and numbers.random() < 0.5
        revoked: dict[int, set[int]] = {part: set() for part in (0, *parts)}
        names: dict[int, frozenset[bytes]] = {}
        for serial in range(1, numbers.randint(4, 25)):
            part = numbers.choice([*parts, *([0] if has_whole else [])])
            path = old.certificates_of(part, serial, more=[ALL] if is_named else ())
            pem = x509.load_pem_x509_certificate((path / f"{serial:04X}.pem").read_bytes())
            names[serial] = _points(pem)
            if numbers.random() < 0.4:
                revoked[0].add(serial)
                revoked[part].add(serial)
        for serial in range(100, 100 + numbers.randint(0, 6)):
            # Nobody has these certificates.
            part = numbers.choice(parts)
            revoked[part].add(serial)
            revoked[0].add(serial)
        crls = [old.crl_of(part, revoked[part], numbers.randint(1, 500)) for part in parts]
        if has_whole:
            whole = old.folder / "whole.crl"
            scope = [scope_of(ALL)] if is_named else []
            whole.write_bytes(old.crl_der(dict.fromkeys(revoked[0], KEY), 600, NOW_S - 900, *scope))
            crls.append(whole)
        numbers.shuffle(crls)
        with Store.create(f"sqlite:///{folder / 'store.db'}", START_MS) as store:
            try:
                run(store, keys, old.divided_order(*crls))
            except CertStatusError:
                # Two CRLs of which every certificate names both points, for instance: said, and not guessed.
                assert is_named
                return
            here = stored(store)
            assert here.keys() == names.keys() | revoked[0]
            made = published(store, keys)
            for scope_name, (crl, _) in made.items():
                point = (
                    None if crl.idp_der is None else parse_issuing_distribution_point(crl.idp_der).name_der
                )
                covers = frozenset() if point is None else point_names(point)
                for serial, named in names.items():
                    is_covered = not covers or not covers.isdisjoint(named)
                    assert (serial in listed(crl)) == (is_covered and serial in revoked[0]), scope_name
            for part in parts:
                idp_der = scope_of(uri(part)).public_bytes()
                mine = [crl for crl, _ in made.values() if crl.idp_der == idp_der]
                assert [listed(crl) for crl in mine] == [revoked[part]]
            assert listed(made["all"][0]) == revoked[0]
    finally:
        shutil.rmtree(folder)


def _points(certificate: x509.Certificate) -> frozenset[bytes]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except x509.ExtensionNotFound:
        return frozenset()
    return names_of_points(found.value.public_bytes())
