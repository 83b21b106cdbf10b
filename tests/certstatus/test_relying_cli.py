"""``crl mirror`` and ``crl check`` against a service that runs: from nothing to offline answers."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_installation import Served, openssl

from certstatus.changes import ChangeKind
from certstatus.cli.initialise import demo_text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation with a demo and an issuer that holds, being served; CRLs are out."""
    folder = tmp_path_factory.mktemp("relying")
    made = Served(folder)
    given = folder / "given.toml"
    # Whole lists alone; parts have a test of their own below.
    given.write_text(demo_text().replace("[[issuer]]", '[[issuer]]\npartition = "none"'))
    made.run("init", "--from", str(given))
    more = '\n[[issuer]]\nservice = "CORP"\naccess = "public"\nhold = true\n'
    made.config.write_text(made.config.read_text() + more)
    made.run("issuer", "add", "CORP")
    made.run("demo", "--population", "40")
    made.serve(workers=1)
    made.run("publish", "now", "--all")
    yield made
    made.stop()
    made.clean_up()


class Party:
    """Somebody who relies on the service's certificates."""

    def __init__(self, served: Served, folder: Path, *services: str) -> None:
        self.served = served
        self.folder = folder
        self.cas = [str(served.state / "demo" / service / "ca.pem") for service in services]

    def mirror(self, *words: str, expect: int = 0) -> dict[str, Any]:
        """One round; the CAs are given each time, as a service manager would."""
        options = [word for ca in self.cas for word in ("--ca", ca)]
        words = ("crl", "mirror", f"{self.served.url}/crl/", str(self.folder), *options, *words)
        said = self.served.run(*words, "--json", expect=expect).stdout
        found: dict[str, Any] = json.loads(said) if said else {}
        return found

    def mirror_until(self, scope: str, number: int) -> list[str]:
        """Mirror until the delta of this number has come; return all that came."""
        until_s = time.monotonic() + 20
        came: list[str] = []
        while f"{scope} delta {number}" not in came:
            assert time.monotonic() < until_s, came
            came += self.mirror("--scope", scope)["fetched"]
        return came

    def check(self, pem: Path, status: str) -> dict[str, Any]:
        """What the folder says of a certificate."""
        code = {"good": 0, "revoked": 1, "held": 1, "unknown": 2}[status]
        found: dict[str, Any] = json.loads(
            self.served.run("crl", "check", str(self.folder), str(pem), "--json", expect=code).stdout
        )
        assert found["status"] == status
        return found


def issue(served: Served, folder: Path, service: str) -> tuple[str, Path]:
    """Issue a certificate for a new key; return its serial and file."""
    csr, out = folder / "subject.csr", folder / f"{service}.pem"
    openssl(
        f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder}/key"
        f" -subj /C=JP/CN=subject -out {csr}"
    )
    serial = served.json("issue", str(csr), "--service", service, "--out", str(out))["serial"]
    return serial, out


def publish(served: Served, service: str) -> int:
    """Publish CRLs of a service; return the number of the delta."""
    made = served.json("publish", "now", "--all", "--service", service)["published"]
    return next(int(item["number"]) for item in made if item["kind"] == "delta")


def verified(folder: Path, scope: str, ca: str, pem: Path) -> str:
    """What OpenSSL says with the same CRLs."""
    named = ""
    for kind in ("complete", "delta"):
        path = folder / scope / f"{kind}.crl"
        if path.exists():
            openssl(f"crl -inform DER -in {path} -out {path.with_suffix('.pem')}")
            named += f" -CRLfile {path.with_suffix('.pem')}"
    return openssl(f"verify -crl_check -extended_crl -use_deltas -CAfile {ca} {named} {pem}")


def test_from_nothing_to_offline_answers(served: Served, tmp_path: Path) -> None:
    """All scopes, then nothing; after a revocation the delta alone; OpenSSL comes to the same end."""
    party = Party(served, tmp_path / "dir", "sign", "auth", "corp")
    first = party.mirror()
    assert first["current"] == 3
    assert {item.rpartition(" ")[0] for item in first["fetched"]} >= {
        f"{service}/g1/all complete" for service in ("sign", "auth", "corp")
    }
    demo = served.state / "demo" / "auth"
    assert party.check(demo / "good.pem", "good")["scope"] == "auth/g1/all"
    assert party.check(demo / "revoked.pem", "revoked")["reason"] is not None
    serial, pem = issue(served, tmp_path, "AUTH")
    party.check(pem, "good")
    served.run("revoke", serial, "--cause", "key-leaked")
    came = party.mirror_until("auth/g1/all", publish(served, "AUTH"))
    assert [item for item in came if "complete" in item] == []
    found = party.check(pem, "revoked")
    assert (found["reason"], found["complete"] < found["delta"]) == ("keyCompromise", True)
    assert "certificate revoked" in verified(party.folder, "auth/g1/all", party.cas[1], pem)
    assert ": OK" in verified(party.folder, "auth/g1/all", party.cas[1], demo / "good.pem")
    # In words, for people.
    said = served.run("crl", "check", str(party.folder), str(pem), expect=1).stdout
    assert said.startswith(f"{serial}: revoked since 20")
    assert "keyCompromise" in said
    assert "of auth/g1/all" in said


def test_a_hold_and_its_release_come_by_delta(served: Served, tmp_path: Path) -> None:
    """Held, and good again, against one complete CRL."""
    party = Party(served, tmp_path / "dir", "corp")
    serial, pem = issue(served, tmp_path, "CORP")
    party.mirror("--scope", "corp/*")
    before = (party.folder / "corp/g1/all/complete.crl").read_bytes()
    for act, status in (("hold", "held"), ("release", "good")):
        served.run(act, serial)
        number = publish(served, "CORP")
        party.mirror_until("corp/g1/all", number)
        assert party.check(pem, status)["delta"] == number
    assert (party.folder / "corp/g1/all/complete.crl").read_bytes() == before


def test_no_ca_is_trusted_because_the_server_names_it(served: Served, tmp_path: Path) -> None:
    """Without --ca nothing is taken; one kept in the folder counts the next time."""
    party = Party(served, tmp_path / "dir")
    said = party.mirror(expect=65)
    assert len(said["refused"]) == 3
    assert list((tmp_path / "dir").rglob("*.crl")) == []
    party.cas = [str(served.state / "demo" / "sign" / "ca.pem")]
    party.mirror("--scope", "sign/*")
    party.cas = []
    assert party.mirror("--scope", "sign/*")["current"] == 1
    assert party.mirror("--scope", "nothing/*", expect=75)["missed"] != []
    wrong = str(served.state / "demo" / "sign" / "good.pem")
    done = served.run("crl", "mirror", served.url, str(tmp_path / "dir"), "--ca", wrong, expect=65)
    assert "not the certificate of a CA" in done.stderr


def test_what_keeps_a_crl_from_being_published_is_named(served: Served) -> None:
    """Nothing, usually; a revocation that was altered in the register, while it is so."""
    same = served.json("crl", "compare", "auth/g1/all")
    assert same["differences"] == []
    assert same["entries"] > 0
    assert "give the register's" in served.run("crl", "compare", "auth/g1/all").stdout
    store = sqlite3.connect(served.state / "store.db", timeout=30)
    reason = "UPDATE change SET reason = ? WHERE seq = ?"
    kind, issuer = int(ChangeKind.REVOKED), 2
    seq, before, serial = store.execute(
        "SELECT change.seq, change.reason, certificate.serial FROM change JOIN certificate"
        " ON certificate.issued_seq = change.certificate_seq"
        " WHERE change.kind = ? AND change.issuer_id = ? LIMIT 1",
        (kind, issuer),
    ).fetchone()
    other = 3 if before != 3 else 4
    try:
        with store:
            store.execute(reason, (other, seq))
        said = served.run("crl", "compare", "auth/g1/all", "--json", expect=65).stdout
        (found,) = json.loads(said)["differences"]
        assert found["serial"] == serial
        assert found["published"]["reason"] != found["register"]["reason"]
        text = served.run("crl", "compare", "auth/g1/all", expect=65).stdout
        assert serial in text
        assert "no complete CRL is made from the register until they agree" in text
    finally:
        with store:
            store.execute(reason, (before, seq))
        store.close()
    assert "no CRL scope auth/g9/all" in served.run("crl", "compare", "auth/g9/all", expect=66).stderr


def test_a_folder_answers_when_the_service_is_gone(served: Served, tmp_path: Path) -> None:
    """Mirroring says 75; what is here says what it said."""
    party = Party(served, tmp_path / "dir", "auth")
    party.mirror("--scope", "auth/*")
    done = served.run("crl", "mirror", "http://127.0.0.1:9/", str(party.folder), expect=75)
    assert "refused" in done.stderr
    assert party.check(served.state / "demo" / "auth" / "good.pem", "good")
    assert party.check(served.state / "demo" / "sign" / "good.pem", "unknown")["why"]
    served.run("crl", "mirror", "http://127.0.0.1:9/x?y", str(party.folder), expect=65)


def test_it_goes_on_by_itself(served: Served, tmp_path: Path) -> None:
    """--every: what is published while it runs comes; nobody else writes there meanwhile; SIGTERM ends it."""
    party = Party(served, tmp_path / "dir", "auth")
    words = ("crl", "mirror", served.url, str(party.folder), "--ca", party.cas[0], "--scope", "auth/*")
    with subprocess.Popen(served.command(*words, "--every", "1"), stdout=subprocess.DEVNULL) as going:
        try:
            complete = party.folder / "auth/g1/all/complete.crl"
            until_s = time.monotonic() + 30
            while not complete.exists():
                assert time.monotonic() < until_s
                time.sleep(0.05)
            assert "another process" in served.run(*words, expect=75).stderr
            number = publish(served, "AUTH")
            good = served.state / "demo" / "auth" / "good.pem"
            while party.check(good, "good")["delta"] != number:
                assert time.monotonic() < until_s
        finally:
            going.send_signal(signal.SIGTERM)
    assert going.returncode == -signal.SIGTERM
    assert party.mirror("--scope", "auth/*")["fetched"] == []
