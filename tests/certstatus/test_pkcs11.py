"""Keys in a PKCS#11 token (SoftHSM): the same signatures as from files, and CAs whose keys never leave."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from served_installation import Served, openssl

from certstatus.errors import KeyFileError
from certstatus.pkcs11_key import make_key, open_key
from certstatus.pkcs11_uri import PKCS11URI, parse_uri

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
ALGORITHMS = ("p256", "p384", "rsa2048")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PKCS11URI]:
    """A token of this module's own; the library keeps to the one it found first, so there is only one."""
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\n")
    (folder / "pin").write_text("1234\n")
    (folder / "pin").chmod(0o600)
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = "softhsm2-util --init-token --free --label tests --pin 1234 --so-pin 5678"
    subprocess.run(command.split(), check=True, capture_output=True)
    yield PKCS11URI(MODULE, folder / "pin", token="tests")
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture(scope="module", params=ALGORITHMS)
def key(token: PKCS11URI, request: pytest.FixtureRequest) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """A key of each kind, made in the token."""
    return make_key(token.named(f"key-{request.param}"), request.param)


def test_signatures_verify_in_every_form(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """Over data and over a digest, as certificates, CRLs and OCSP answers ask for them."""
    data = b"to be signed"
    for function in (hashes.SHA256(), hashes.SHA384()):
        digest = hashlib.new(function.name, data).digest()
        if isinstance(key, rsa.RSAPrivateKey):
            scheme = padding.PKCS1v15()
            for signature in (
                key.sign(data, scheme, function),
                key.sign(digest, scheme, Prehashed(function)),
            ):
                key.public_key().verify(signature, data, scheme, function)
        else:
            ecdsa = ec.ECDSA(function)
            for signature in (key.sign(data, ecdsa), key.sign(digest, ec.ECDSA(Prehashed(function)))):
                key.public_key().verify(signature, data, ecdsa)


def test_the_key_itself_cannot_be_had(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """Neither our object nor the token gives the private value away."""
    import pkcs11

    with pytest.raises(KeyFileError, match="cannot be taken out"):
        key.private_numbers()
    inside = key._token._private_key()  # type: ignore[union-attr]
    with pytest.raises(pkcs11.AttributeSensitive):
        _ = inside[
            pkcs11.Attribute.VALUE if inside.key_type is pkcs11.KeyType.EC else pkcs11.Attribute.PRIME_1
        ]


def test_many_threads_sign_at_once(token: PKCS11URI) -> None:
    """They wait for each other; every signature verifies, and none is the same."""
    key = make_key(token.named("threads"), "p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signatures: list[bytes] = []

    def sign() -> None:
        for _ in range(20):
            signatures.append(key.sign(b"data", ec.ECDSA(hashes.SHA256())))  # noqa: PERF401

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(signatures)) == 80
    for signature in signatures:
        key.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


def test_a_lost_session_is_opened_again(token: PKCS11URI) -> None:
    """A device that closed the session is asked once more, and signs."""
    key = make_key(token.named("session"), "p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key._token._session().close()
    signature = key.sign(b"data", ec.ECDSA(hashes.SHA256()))
    key.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


def test_a_token_that_comes_back_signs_again(token: PKCS11URI) -> None:
    """While it is away every key says so; when it is back each signs with its own value, in any order."""
    keys = [make_key(token.named(f"back-{n}"), "p256") for n in range(3)]
    with without(token):
        for key in keys:
            for _ in range(2):
                with pytest.raises(KeyFileError):
                    sign_and_verify(key)
    for key in reversed(keys):
        sign_and_verify(key)
    with without(token), pytest.raises(KeyFileError):
        sign_and_verify(keys[1])
    for key in keys:
        sign_and_verify(key)


def sign_and_verify(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """One signature, which must be this key's."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(key.sign(b"data", ec.ECDSA(hashes.SHA256())), b"data", ec.ECDSA(hashes.SHA256()))


@contextmanager
def without(token: PKCS11URI) -> Iterator[None]:
    """The device is gone for so long."""
    folder = token.pin_source.parent
    (folder / "tokens").rename(folder / "away")
    try:
        yield
    finally:
        (folder / "away").rename(folder / "tokens")


def test_another_key_under_the_same_label_does_not_sign(token: PKCS11URI) -> None:
    """A device set up anew has the label, but what its key signs is nothing for our certificate."""
    import pkcs11

    key = make_key(token.named("replaced"), "p256")
    for found in list(key._token._session().get_objects({pkcs11.Attribute.LABEL: "replaced"})):
        found.destroy()
    key._token.generate("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for _ in range(2):
        with pytest.raises(KeyFileError, match="another key than before"):
            key.sign(b"data", ec.ECDSA(hashes.SHA256()))


def test_a_pin_is_text(token: PKCS11URI, tmp_path: Path) -> None:
    """What is no text is an error of its file."""
    pin = tmp_path / "pin"
    pin.write_bytes(b"\xff\xfe")
    pin.chmod(0o600)
    with pytest.raises(KeyFileError, match=f"{pin}: a PIN is text"):
        open_key(replace(token.named("x"), pin_source=pin))


def test_a_label_is_used_once(token: PKCS11URI) -> None:
    """A second key under a label would make it open to chance which one signs."""
    make_key(token.named("once"), "p256")
    with pytest.raises(KeyFileError, match="already"):
        make_key(token.named("once"), "p256")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "nobody"}, "nobody"),
        ({"token": "elsewhere"}, "elsewhere"),
        ({"module": Path("/nowhere.so")}, "nowhere.so"),
        ({"pin_source": Path("/nowhere.pin")}, "nowhere.pin"),
    ],
)
def test_what_is_not_there_is_named(token: PKCS11URI, change: dict[str, str | Path], said: str) -> None:
    """Key, token, module and PIN file: the message says which one is missing."""
    values = {"module": token.module, "pin_source": token.pin_source, "token": "tests", "label": "x"} | change
    with pytest.raises(KeyFileError, match=said):
        open_key(PKCS11URI(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:token=t;object=o%20x;id=%01%ff?module-path=/m.so&pin-source=/p",
        "pkcs11:serial=12ab?module-path=/m.so&pin-source=/p",
    ],
)
def test_a_uri_reads_back_as_itself(text: str) -> None:
    """Text to URI to text to URI loses nothing."""
    assert parse_uri(str(parse_uri(text))) == parse_uri(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:/x", "expected a PKCS#11 URI"),
        ("pkcs11:token=t", "module-path is missing"),
        ("pkcs11:token=t?module-path=/m", "pin-source is missing"),
        ("pkcs11:object=o?module-path=/m&pin-source=/p", "token or serial is missing"),
        ("pkcs11:token=t?module-path=/m&pin-value=1234", "'pin-value' is none of"),
        ("pkcs11:token=t;token=u?module-path=/m&pin-source=/p", "token twice"),
        ("pkcs11:token=%ff?module-path=/m&pin-source=/p", "not UTF-8"),
    ],
)
def test_a_wrong_uri_is_refused_by_what_is_wrong(text: str, said: str) -> None:
    """An attribute that we do not understand could be the one that matters, so it is an error."""
    with pytest.raises(KeyFileError, match=said):
        parse_uri(text)


def first_crl(served: Served, path: str) -> bytes:
    """The CRL, which may come a moment after the first answer."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(HTTPError):
            return served.get(path)
        time.sleep(0.05)
    raise AssertionError(served.logs())


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until *holds*: a worker starts in the meantime, or tries its keys again."""
    until = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_an_installation_whose_keys_are_in_a_token(token: PKCS11URI, tmp_path: Path, algorithm: str) -> None:
    """It issues, revokes, certifies responders and publishes; openssl verifies OCSP answers and CRLs.  While
    the token is away, also for a worker that starts then, it is tryLater; then it goes on by itself."""
    served = Served(tmp_path)
    try:
        served.run("init")
        more = f'\n[[issuer]]\nservice = "HSM"\naccess = "public"\nkey = "{algorithm}"\nkey_uri = "{token}"\n'
        config = served.config.read_text() + more
        config = config.replace("[responder]\n", f'[responder]\nkey = "{algorithm}"\nkey_uri = "{token}"\n')
        served.config.write_text(config)
        served.run("issuer", "add", "HSM")
        served.run("demo", "--population", "20")
        served.serve(workers=1)
        assert served.ask("good", "hsm") == "good"
        assert served.ask("revoked", "hsm") == "revoked"
        crl = first_crl(served, "/crl/hsm/g1/all/complete.crl")
        (tmp_path / "complete.crl").write_bytes(crl)
        ca = served.state / "demo" / "hsm" / "ca.pem"
        said = openssl(f"crl -in {tmp_path}/complete.crl -inform DER -noout -CAfile {ca}")
        assert "verify OK" in said
        good = served.state / "demo" / "hsm" / "good.pem"
        with without(token):
            assert "trylater" in served.openssl_ocsp(good, ca)
            served.kill("worker")
            wait_until(lambda: "trylater" in served.openssl_ocsp(good, ca))
        wait_until(lambda: "Response verify OK" in served.openssl_ocsp(good, ca))
        keys = [served.state / "ca" / "3.key", *(served.state / "host" / "keys").glob("*.key")]
        assert len(keys) == 4
        assert all(path.read_bytes().startswith(b"pkcs11:token=tests;object=") for path in keys)
        assert served.stop() == 0
    finally:
        served.clean_up()
