"""CRLs and OCSP answers of a running installation: four readers agree, and a linter has no complaint."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import crl_facts
import ocsp_facts
import pytest
from crl_history import History
from demo_service import never_issued
from pkilint.bin import lint_crl, lint_ocsp_response
from request_octets import NONCE_OID, extension, octets, post, tlv
from wire_client import Wire


def complaints(main: Callable[[list[str]], int], *words: str) -> set[str]:
    """The codes of all that pkilint calls an error or a warning."""
    said = io.StringIO()
    with redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(["lint", *words])
    return {
        finding["code"]
        for result in json.loads(said.getvalue())["results"]
        for finding in result["finding_descriptions"]
        if finding["severity"] in ("FATAL", "ERROR", "WARNING")
    }


def of_crl(path: Path) -> set[str]:
    """What pkilint has against a CRL."""
    return complaints(lint_crl.main, "-t", "CRL", "-p", "PKIX", "-f", "JSON", "-s", "WARNING", str(path))


def of_ocsp(path: Path) -> set[str]:
    """What pkilint has against an OCSP answer."""
    return complaints(lint_ocsp_response.main, "-f", "JSON", "-s", "WARNING", str(path))


def test_readers_and_linter_agree_on_every_published_crl(
    history_wire: Wire, history: History, tmp_path: Path
) -> None:
    """All of the history, complete and delta: as it was to be, by four readers; nothing to complain of."""
    names = [f"{number}.crl" for number in history.completes]
    names += [f"{number}.delta.crl" for number in history.deltas]
    for name in names:
        der = history_wire.get(f"{history.place}/{name}").body
        facts = crl_facts.agreed(der)
        assert (facts.base is None) == ("delta" not in name)
        if facts.base is None:
            expected = history.listed_at(int(name.removesuffix(".crl")))
            assert {entry.serial: tuple(entry[1:]) for entry in facts.entries} == {
                serial: tuple(entry) for serial, entry in expected.items()
            }
        path = tmp_path / name
        path.write_bytes(der)
        assert of_crl(path) == set()


def test_readers_and_linter_agree_on_answers(history_wire: Wire, history: History, tmp_path: Path) -> None:
    """good, revoked for each reason, on hold, unknown; alone and many; with and without a nonce."""
    corp, named = history.corp, history.named
    nonce = tlv(0xA2, tlv(0x30, extension(NONCE_OID, octets(bytes(range(32))))))
    asked: list[tuple[int, ...]] = [(serial,) for serial in (*named.values(), *corp.revoked[:5])]
    asked += [(never_issued(),), tuple(corp.good[:10]), (*corp.revoked[:5], never_issued(), named["kept"])]
    for number, serials in enumerate(asked):
        for extensions in (b"", nonce):
            der = history_wire.ask(post(corp.request(*serials, extensions=extensions))).body
            facts = ocsp_facts.agreed(der)
            assert [single.serial for single in facts.singles] == list(serials)
            assert facts.nonce == (bytes(range(32)) if extensions else None)
            path = tmp_path / f"{number}.ors"
            path.write_bytes(der)
            assert of_ocsp(path) == set()


@pytest.mark.parametrize("kind", ["crl", "ocsp"])
def test_the_linter_is_one(history_wire: Wire, history: History, tmp_path: Path, kind: str) -> None:
    """It does complain of what is wrong: two dates in the wrong order, a time that is not in seconds."""
    path = tmp_path / "spoiled"
    if kind == "crl":
        der = history_wire.get(f"{history.place}/1.crl").body
        number = bytes.fromhex("0603551d14")
        path.write_bytes(der.replace(number, bytes.fromhex("0603551d13")))
        assert of_crl(path) != set()
    else:
        der = history_wire.ask(post(history.corp.request())).body
        at = der.index(b"\x18\x0f20")
        path.write_bytes(der[: at + 16] + b"1" + der[at + 17 :])
        try:
            assert of_ocsp(path) != set()
        except ValueError:
            # It could not even be read.
            return
