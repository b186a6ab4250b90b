"""TLS is always verified: against the authorities that are named, and against the name that was asked for."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandboxer.errors import NotConfigured, Timeout, Unavailable
from sandboxer.http import ApiClient
from sandboxer.timing import Deadline
from tests.http.peers import peer, saying, silent


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Nothing on stderr."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust us is what is tested."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 and api.invalid, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("api.invalid")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(private)
    (tmp_path / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return tmp_path / "ca.pem"


@pytest.fixture
def port(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.server_address[1]
    with suppress(OSError):
        server.shutdown()
    server.server_close()


def test_a_certificate_of_a_named_authority_is_accepted_and_kept(port: int, certificate: Path) -> None:
    api = ApiClient(f"https://127.0.0.1:{port}", name="Thing", ca_file=str(certificate))
    for _ in range(3):
        assert api.call("GET", "/", Deadline(5)).json() == {}


def test_a_certificate_of_nobody_known_is_refused(port: int) -> None:
    with pytest.raises(Unavailable, match="does not prove") as caught:
        ApiClient(f"https://127.0.0.1:{port}", name="Thing").call("POST", "/", Deadline(5))
    assert (caught.value.outcome, caught.value.retryable) == ("failed", False)


def test_an_authority_of_the_environment_is_accepted(port: int, certificate: Path) -> None:
    """In a process of its own: the authorities are read once."""
    script = (
        "import sys; from sandboxer.http import ApiClient; from sandboxer.timing import Deadline; "
        "print(ApiClient(sys.argv[1], name='Thing').call('GET', '/', Deadline(5)).status)"
    )
    words = [sys.executable, "-c", script, f"https://127.0.0.1:{port}"]
    env = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    assert subprocess.run(words, env=env, capture_output=True, check=True).stdout == b"200\n"


def test_a_certificate_for_another_name_is_refused(port: int, certificate: Path) -> None:
    api = ApiClient(f"https://localhost:{port}", name="Thing", ca_file=str(certificate))
    with pytest.raises(Unavailable, match="does not prove that it is localhost"):
        api.call("GET", "/", Deadline(5))


def test_authorities_that_are_not_there_are_not_configured(port: int, tmp_path: Path) -> None:
    api = ApiClient(f"https://127.0.0.1:{port}", name="Thing", ca_file=str(tmp_path / "nope.pem"))
    with pytest.raises(NotConfigured, match=r"nope\.pem"):
        api.call("GET", "/", Deadline(5))


def test_a_plain_peer_is_not_talked_to(port: int) -> None:
    """The other way round: plain HTTP against a TLS server is an error, not a hang."""
    with pytest.raises(Unavailable):
        ApiClient(f"http://127.0.0.1:{port}", name="Thing").call("GET", "/", Deadline(5))


# -- by a proxy -------------------------------------------------------------------------------------------------------


@contextmanager
def tunnel(port: int) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that leads to `port`, whatever it is asked for; its address, and the heads that it got."""
    heads: list[bytes] = []

    def lead(client: socket.socket, head: bytes) -> None:
        heads.append(head)
        with socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join(10)

    with peer(lead) as url:
        yield url, heads


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return lambda url: monkeypatch.setenv("HTTPS_PROXY", url)


def test_tls_goes_through_the_tunnel_of_a_proxy(port: int, certificate: Path, proxied: Callable[[str], None]) -> None:
    """The proxy's credentials are for it alone, and the certificate is the other end's."""
    with tunnel(port) as (url, heads):
        proxied(url.replace("http://", "http://me:secret@"))
        api = ApiClient("https://api.invalid", name="Thing", ca_file=str(certificate))
        for _ in range(3):
            assert api.call("GET", "/", Deadline(20)).json() == {}
        (head,) = heads
        assert head.startswith(b"CONNECT api.invalid:443 HTTP/1.1\r\n")
        assert b"proxy-authorization: basic bwu6c2vjcmv0" in head.lower()
        assert b"sand-boxer" not in head
        other = ApiClient("https://other.invalid", name="Thing", ca_file=str(certificate))
        with pytest.raises(Unavailable, match=r"does not prove that it is other\.invalid"):
            other.call("GET", "/", Deadline(20))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 100\r\n\r\n<html>",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
    ids=["refused", "page", "not HTTP", "nothing"],
)
def test_a_proxy_that_does_not_lead_there_is_named(answer: bytes, proxied: Callable[[str], None]) -> None:
    with peer(saying(answer)) as url:
        proxied(url)
        with pytest.raises(Unavailable, match=r"the proxy 127\.0\.0\.1:.* does not lead there") as caught:
            ApiClient("https://api.invalid", name="Thing").call("POST", "/", Deadline(20))
    assert caught.value.outcome == "failed"


def test_a_proxy_that_never_answers_costs_the_deadline_and_no_more(proxied: Callable[[str], None]) -> None:
    with peer(silent) as url:
        proxied(url)
        started = time.monotonic()
        with pytest.raises(Timeout) as caught:
            ApiClient("https://api.invalid", name="Thing").call("POST", "/", Deadline(0.6))
    assert time.monotonic() - started < 4
    assert caught.value.outcome == "failed"


def test_a_handshake_is_cancelled_within_a_second() -> None:
    """A peer that takes the connection and does not speak TLS. (It has 5 s otherwise.)"""
    with peer(silent) as url:
        deadline = Deadline(60)
        threading.Timer(0.2, deadline.cancel).start()
        started = time.monotonic()
        with pytest.raises(Timeout) as caught:
            ApiClient(url.replace("http://", "https://"), name="Thing").call("POST", "/", deadline)
    assert time.monotonic() - started < 4
    assert caught.value.outcome == "failed"
