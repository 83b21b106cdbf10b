"""Three TLS servers that staple our answers, each to three TLS clients that read what is stapled.

Knows: openssl ``s_server``, nginx and Apache with configurations and processes of their own, a port for
each certificate; openssl ``s_client``, ``curl --cert-status`` and ``gnutls-cli``.
Does not know: the system's own web servers, which are left alone.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from interop_ca import HOST_NAME
from interop_clients import Answer, Client, Patterns, Question, judge, run
from interop_world import World, free_port

_START_TIME_S = 20.0
# nginx fetches after the first handshake, for the next one; and says when what it got is of no use.
_NGINX_IS_DONE_S = 3.0

_S_CLIENT: Patterns = (
    (r"certificate has expired", "expired"),
    (r"OCSP response: no response sent", "no staple"),
    (r"OCSP Response Status: trylater", "tryLater"),
    (r"OCSP Response Status: unauthorized", "unauthorized"),
    (r"Cert Status: good.*Verify return code: 0", "good"),
    (r"Cert Status: revoked", "revoked"),
    (r"Cert Status: unknown", "unknown"),
)
_CURL: Patterns = (
    (r"certificate has expired", "expired"),
    (r"No OCSP response received", "no staple"),
    (r"Invalid OCSP response status: trylater", "tryLater"),
    (r"Invalid OCSP response status: unauthorized", "unauthorized"),
    (r"SSL certificate revocation reason|SSL certificate status: revoked", "revoked"),
    (r"SSL certificate status: unknown", "unknown"),
    (r"exit 0", "good"),
)
_GNUTLS: Patterns = (
    (r"certificate chain is revoked", "revoked"),
    (r"uses expired certificate", "expired"),
    (r"The certificate is trusted.*OCSP status request", "accepted"),
    (r"The certificate is trusted", "no staple"),
)


# --- clients ---------------------------------------------------------------------------------------


def _s_client(question: Question, port: int) -> Answer:
    words = ["-connect", f"127.0.0.1:{port}", "-servername", HOST_NAME]
    trust = ["-CAfile", str(question.anchor), "-verify_return_error"]
    return judge(run("openssl", "s_client", "-status", *words, *trust), _S_CLIENT)


def _curl(question: Question, port: int) -> Answer:
    where = ["--resolve", f"{HOST_NAME}:{port}:127.0.0.1", f"https://{HOST_NAME}:{port}/"]
    return judge(run("curl", "-svS", "--cert-status", "--cacert", question.anchor, *where), _CURL)


def _gnutls_cli(question: Question, port: int) -> Answer:
    name = [f"--verify-hostname={HOST_NAME}", f"--sni-hostname={HOST_NAME}"]
    return judge(
        run("gnutls-cli", *name, f"--x509cafile={question.anchor}", "-p", str(port), "127.0.0.1"), _GNUTLS
    )


# --- servers ---------------------------------------------------------------------------------------


@contextmanager
def _s_server(questions: Sequence[Question], ports: Sequence[int], folder: Path) -> Iterator[None]:
    processes = []
    try:
        for question, port in zip(questions, ports, strict=True):
            # It asks at the URL in the certificate, about the issuer that it finds in the file.
            words = f"openssl s_server -accept 127.0.0.1:{port} -www -status -status_timeout 5".split()
            words += ["-cert", str(question.leaf), "-key", str(question.ca.key(question.case))]
            words += ["-CAfile", str(question.anchor)]
            with (folder / f"{port}.log").open("w") as log:
                processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


_NGINX = """
daemon off;
master_process off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    ssl_stapling on;
    ssl_stapling_verify on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
_NGINX_SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_trusted_certificate {anchor};
        return 200;
    }}
"""


@contextmanager
def _nginx(questions: Sequence[Question], ports: Sequence[int], folder: Path) -> Iterator[None]:
    servers = "".join(
        _NGINX_SERVER.format(
            port=port,
            chain=_chain(question, folder),
            key=question.ca.key(question.case),
            anchor=question.anchor,
        )
        for question, port in zip(questions, ports, strict=True)
    )
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, servers=servers))
    with _process(["nginx", "-c", str(config), "-p", str(folder)]):
        _wait_for(ports)
        for question, port in zip(questions, ports, strict=True):
            _s_client(question, port)
        time.sleep(_NGINX_IS_DONE_S)
        yield


_APACHE = """
ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
LogLevel ssl:info
User www-data
Group www-data
{modules}
SSLUseStapling on
SSLStaplingCache shmcb:{folder}/stapling(512000)
Mutex file:{folder}
{servers}
"""
_APACHE_MODULES = ("mpm_event", "authz_core", "socache_shmcb", "ssl")
_APACHE_SERVER = """
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    ServerName {name}
    SSLEngine on
    SSLCertificateFile {chain}
    SSLCertificateKeyFile {key}
</VirtualHost>
"""


@contextmanager
def _apache(questions: Sequence[Question], ports: Sequence[int], folder: Path) -> Iterator[None]:
    servers = "".join(
        _APACHE_SERVER.format(
            port=port,
            name=HOST_NAME,
            chain=_chain(question, folder),
            key=question.ca.key(question.case),
        )
        for question, port in zip(questions, ports, strict=True)
    )
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _APACHE_MODULES
    )
    config = folder / "apache.conf"
    config.write_text(_APACHE.format(folder=folder, modules=modules, servers=servers))
    with _process(["apache2", "-D", "FOREGROUND", "-f", str(config)]):
        _wait_for(ports)
        yield


def _chain(question: Question, folder: Path) -> Path:
    path = folder / f"{question.ca.folder.name}-{question.leaf.name}"
    path.write_bytes(question.leaf.read_bytes() + question.anchor.read_bytes())
    return path


@contextmanager
def _process(words: list[str]) -> Iterator[None]:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(ports: Sequence[int]) -> None:
    until = time.monotonic() + _START_TIME_S
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < until, f"nobody listens on {port}"
                time.sleep(0.02)


# --- both ------------------------------------------------------------------------------------------

_Server = Callable[[Sequence[Question], Sequence[int], Path], AbstractContextManager[None]]
_SERVERS: dict[str, _Server] = {"s_server": _s_server, "nginx": _nginx, "Apache": _apache}
_READERS = {"s_client -status": _s_client, "curl --cert-status": _curl, "gnutls-cli": _gnutls_cli}


def _client(server: str, reader: str) -> Client:
    def ask(world: World, questions: list[Question]) -> list[Answer]:
        folder = Path(tempfile.mkdtemp(prefix=server, dir=world.folder))
        ports = [free_port() for _ in questions]
        with _SERVERS[server](questions, ports, folder):
            _wait_for(ports)
            return [_READERS[reader](question, port) for question, port in zip(questions, ports, strict=True)]

    return Client(f"{server} to {reader}", ask)


CLIENTS = tuple(_client(server, reader) for server in _SERVERS for reader in _READERS)
