"""References into OpenBao, read from a real server and cross-checked with the official client."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandboxer.errors import BackendError, Denied, NotConfigured, SandboxerError, Timeout, Unavailable
from sandboxer.models import AppRole, OpenBaoSettings, SecretRef
from sandboxer.secrets import resolve
from sandboxer.timing import Deadline
from tests.http.peers import peer, saying, silent
from tests.testbed.fault_proxy import FaultProxy, Mode
from tests.testbed.openbao import OpenBao
from tests.testbed.waiting import eventually

VALUE = "canary-0a4b9d2e7f"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One server for all tests that do not break it."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        server.policy("ci")
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OpenBao]:
    """A server that a test may break."""
    with OpenBao(tmp_path / "openbao") as server:
        server.policy("ci")
        server.put("ci/e2b", key=VALUE)
        yield server


class Reader:
    """An installation's settings for a server, and the environment that its login is in."""

    def __init__(self, server: OpenBao, *, token: str | None = None, **settings: Any) -> None:
        self.environment = {"LOGIN": token or "", "HOME": str(server.directory), "PATH": os.environ["PATH"]}
        login = {"token": "env:LOGIN"} if token else {}
        self.settings = msgspec.convert({"address": server.address, **login, **settings}, OpenBaoSettings)

    def __call__(self, place: str, *, required: bool = True, seconds: float = 20) -> str | None:
        found = resolve(
            "KEY",
            SecretRef(ref=f"openbao:{place}", required=required),
            self.environment,
            openbao=self.settings,
            deadline=Deadline(seconds),
        )
        return None if found is None else found.reveal()

    def refused(self, place: str, *, seconds: float = 20) -> SandboxerError:
        """The error of reading it; it names the secret, says what to do, and holds no value and no login."""
        with pytest.raises(SandboxerError) as caught:
            self(place, seconds=seconds)
        error = caught.value
        said = f"{error!r} {error.document()} {error.__cause__!r}"
        assert error.hint != type(error).default_hint
        assert error.fault == "backend"
        assert VALUE not in said
        assert self.environment["LOGIN"] == "" or self.environment["LOGIN"] not in said
        return error


def reader(server: OpenBao, *policies: str) -> Reader:
    """A reader with a token of its own."""
    return Reader(server, token=server.token(*(policies or ("ci",))))


def app_role(server: OpenBao, role: tuple[str, str], mount: str = "approle") -> Reader:
    """A reader that logs in by AppRole."""
    found = Reader(server, app_role={"role_id": role[0], "secret_id": "env:LOGIN", "mount": mount})
    found.environment["LOGIN"] = role[1]
    return found


def test_a_value_is_read_as_the_official_client_reads_it(bao: OpenBao) -> None:
    values = {"key": VALUE, "two words": "a b", "é": "ü#1", "long": "x" * 20_000, "lines": "a\nb"}
    bao.put("ci/e2b", **values)
    bao.put("ci/deep/er path/é+%2F", key="there")
    read = reader(bao)
    official = bao.admin.secrets.kv.v2.read_secret_version(path="ci/e2b", raise_on_deleted_version=True)
    assert {key: read(f"secret/ci/e2b#{key}") for key in values} == official["data"]["data"]
    assert read("secret/ci/deep/er path/é+%2F#key") == "there"


def test_the_newest_version_counts_and_a_deleted_one_is_missing(bao: OpenBao) -> None:
    kv = bao.admin.secrets.kv.v2
    read = reader(bao)
    for value in ("one", "two", "three"):
        bao.put("ci/versions", key=value)
    assert read("secret/ci/versions#key") == "three"
    kv.delete_latest_version_of_secret(path="ci/versions")
    assert "deleted" in read.refused("secret/ci/versions#key").message
    kv.undelete_secret_versions(path="ci/versions", versions=[3])
    assert read("secret/ci/versions#key") == "three"
    kv.destroy_secret_versions(path="ci/versions", versions=[3])
    error = read.refused("secret/ci/versions#key")
    assert isinstance(error, NotConfigured)
    assert "secret/ci/versions" in error.message
    bao.put("ci/versions", key="four")
    assert read("secret/ci/versions#key") == "four"


def test_what_is_not_there_is_named(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE, empty="", number=5, nested={"key": VALUE})
    read = reader(bao)
    for place in ("secret/ci/nothing#key", "secret/ci/e2b#nothing", "secret/ci/e2b#empty"):
        error = read.refused(place)
        assert isinstance(error, NotConfigured)
        assert place in error.message + error.hint
        assert read(place, required=False) is None
    for key in ("number", "nested"):
        assert isinstance(read.refused(f"secret/ci/e2b#{key}"), BackendError)
    root = Reader(bao, token=bao.root)
    assert isinstance(root.refused("nowhere/ci/e2b#key"), NotConfigured)


def test_an_engine_of_version_1_is_told_apart(bao: OpenBao) -> None:
    bao.admin.sys.enable_secrets_engine("kv", path="old", options={"version": "1"})
    bao.admin.secrets.kv.v1.create_or_update_secret(path="ci/e2b", secret={"key": VALUE}, mount_point="old")
    error = Reader(bao, token=bao.root).refused("old/ci/e2b#key")
    assert isinstance(error, NotConfigured)
    assert "version 2" in error.hint


def test_a_mount_with_slashes_is_ended_by_two(bao: OpenBao) -> None:
    bao.engine("team/kv")
    bao.put("ci/e2b", mount="team/kv", key="teams")
    root = Reader(bao, token=bao.root)
    assert root("team/kv//ci/e2b#key") == "teams"
    assert isinstance(root.refused("team/kv/ci/e2b#key"), NotConfigured)


def test_a_policy_that_does_not_allow_it_is_denied(bao: OpenBao) -> None:
    bao.put("prod/e2b", key=VALUE)
    bao.put("ci/e2b", key=VALUE)
    for read, place in ((reader(bao), "secret/prod/e2b#key"), (reader(bao, "default"), "secret/ci/e2b#key")):
        error = read.refused(place)
        assert isinstance(error, Denied)
        assert place in error.message
        assert "policy" in error.hint
        with pytest.raises(Denied):
            read(place, required=False)


def test_a_token_that_expired_was_revoked_or_never_was_is_denied(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE)
    revoked = bao.token("ci")
    bao.admin.auth.token.revoke(revoked)
    for token in (revoked, "hvs.never"):
        assert isinstance(Reader(bao, token=token).refused("secret/ci/e2b#key"), Denied)
    short = Reader(bao, token=bao.token("ci", ttl="1s"))
    assert short("secret/ci/e2b#key") == VALUE

    def expired() -> bool:
        try:
            return short("secret/ci/e2b#key") is None
        except Denied:
            return True

    eventually(expired, within=15, what="the token has expired")


def test_an_app_role_logs_in_for_each_value_and_keeps_no_token(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE)
    read = app_role(bao, bao.app_role("ci", lives="2s", token_uses=1, uses=3))
    # each token is good for one request: one that were kept would be refused
    assert [read("secret/ci/e2b#key") for _ in range(3)] == [VALUE] * 3
    assert isinstance(read.refused("secret/ci/e2b#key"), Denied)  # the secret id was used up


def test_an_app_role_at_another_mount(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE)
    role = bao.app_role("ci", mount="team/roles")
    assert app_role(bao, role, mount="team/roles")("secret/ci/e2b#key") == VALUE
    assert isinstance(app_role(bao, role).refused("secret/ci/e2b#key"), Denied)
    assert isinstance(app_role(bao, role, mount="nowhere").refused("secret/ci/e2b#key"), Denied)


def test_an_app_role_without_the_right_to_read_is_denied(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE)
    read = app_role(bao, bao.app_role("default", mount="weak"), mount="weak")
    assert isinstance(read.refused("secret/ci/e2b#key"), Denied)


def test_without_an_address_or_a_login_it_is_not_configured(bao: OpenBao) -> None:
    nowhere = Reader(bao, token="made-up")
    nowhere.settings = msgspec.structs.replace(nowhere.settings, address=None)
    assert "BAO_ADDR" in nowhere.refused("secret/ci/e2b#key").hint
    assert "BAO_TOKEN" in Reader(bao).refused("secret/ci/e2b#key").hint
    gone = Reader(bao, token="made-up")
    gone.environment["LOGIN"] = ""
    error = gone.refused("secret/ci/e2b#key")
    assert isinstance(error, NotConfigured)
    assert "login" in error.message


def test_a_token_may_be_in_a_file(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE)
    (bao.directory / ".vault-token").write_text(bao.token("ci") + "\n")
    read = Reader(bao)
    read.settings = msgspec.structs.replace(read.settings, token="file:~/.vault-token")
    assert read("secret/ci/e2b#key") == VALUE


def test_a_namespace_is_passed_on(bao: OpenBao) -> None:
    bao.namespace("apart")
    bao.engine("kv", namespace="apart")
    bao.put("x", mount="kv", namespace="apart", key="teams")
    assert Reader(bao, token=bao.root, namespace="apart")("kv/x#key") == "teams"
    assert isinstance(Reader(bao, token=bao.root).refused("kv/x#key"), NotConfigured)


def test_a_sealed_server_is_unavailable(own: OpenBao) -> None:
    read = reader(own)
    assert read("secret/ci/e2b#key") == VALUE
    own.admin.sys.seal()
    error = read.refused("secret/ci/e2b#key")
    assert isinstance(error, Unavailable)
    assert "sealed" in error.message
    assert "unseal" in error.hint


def test_a_server_that_is_down_is_unavailable(own: OpenBao) -> None:
    read = reader(own)
    assert read("secret/ci/e2b#key") == VALUE  # over a connection that is kept
    own.close()
    began = time.monotonic()
    assert isinstance(read.refused("secret/ci/e2b#key"), Unavailable)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("login", ["token", "app_role"])
def test_a_black_holed_server_is_left_at_the_deadline(bao: OpenBao, login: str) -> None:
    """Promise 22: within the deadline + 5 s, whichever request it swallows."""
    bao.put("ci/e2b", key=VALUE)
    read = reader(bao) if login == "token" else app_role(bao, bao.app_role("ci"))
    proxy = FaultProxy(bao.port)
    try:
        read.settings = msgspec.structs.replace(read.settings, address=f"http://127.0.0.1:{proxy.port}")
        assert read("secret/ci/e2b#key") == VALUE
        for mode, amount in ((Mode.BLACKHOLE, 0), (Mode.BLACKHOLE_AFTER, 700)):
            proxy.set(mode, amount)
            began = time.monotonic()
            assert isinstance(read.refused("secret/ci/e2b#key", seconds=1), Timeout | Unavailable)
            assert time.monotonic() - began < 30
    finally:
        proxy.close()


@pytest.mark.parametrize("login", ["token", "app_role"])
@pytest.mark.parametrize(
    "answer",
    [
        silent,
        saying(b""),
        saying(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}"),
        saying(b"HTTP/1.1 503 Sealed\r\nContent-Length: 2\r\n\r\n{}"),
        saying(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"),
        saying(b"220 mail\r\n"),
    ],
    ids=["nothing", "cut", "500", "sealed", "502", "page", "not HTTP"],
)
def test_what_goes_wrong_there_has_made_no_sandbox(
    answer: Callable[[socket.socket, bytes], None], login: str, tmp_path: Path
) -> None:
    """Promise 7: nobody looks for one, at whatever request the server fails; and what to type is about OpenBao."""
    with peer(answer) as address:
        settings = OpenBaoSettings(
            address=address,
            token="env:LOGIN" if login == "token" else None,
            app_role=AppRole(role_id="a", secret_id="env:LOGIN") if login == "app_role" else None,
        )
        with pytest.raises(SandboxerError) as caught:
            resolve(
                "KEY",
                SecretRef(ref="openbao:secret/ci/e2b#key"),
                {"LOGIN": "canary-login", "HOME": str(tmp_path)},
                openbao=settings,
                deadline=Deadline(1),
            )
    error = caught.value
    assert (error.outcome, error.outcome_stated, error.fault) == ("failed", True, "backend")
    assert "provider" not in error.hint
    assert "canary-login" not in f"{error!r} {error.document()}"
    assert "<" not in error.message


def test_a_connection_that_breaks_once_is_tried_again(bao: OpenBao) -> None:
    bao.put("ci/e2b", key=VALUE)
    read = reader(bao)
    proxy = FaultProxy(bao.port)
    try:
        read.settings = msgspec.structs.replace(read.settings, address=f"http://127.0.0.1:{proxy.port}")
        proxy.set(Mode.RESET)
        mend = threading.Timer(0.3, proxy.set, (Mode.PASS,))
        mend.start()
        assert read("secret/ci/e2b#key") == VALUE
        mend.join()
    finally:
        proxy.close()


def test_tls_is_verified_by_the_authority_that_is_named(tmp_path: Path) -> None:
    """Promise 25."""
    with OpenBao(tmp_path / "one", tls=True) as server, OpenBao(tmp_path / "two", tls=True) as other:
        server.put("ci/e2b", key=VALUE)
        trusting = Reader(server, token=server.root, ca_file=str(server.ca_file))
        assert trusting("secret/ci/e2b#key") == VALUE
        for ca_file in (None, str(other.ca_file)):
            error = Reader(server, token=server.root, ca_file=ca_file).refused("secret/ci/e2b#key")
            assert isinstance(error, Unavailable)
            assert "prove" in error.message
        nothing = Reader(server, token=server.root, ca_file=str(tmp_path / "nothing"))
        assert isinstance(nothing.refused("secret/ci/e2b#key"), NotConfigured)


def test_a_redirection_is_not_followed_with_the_token(bao: OpenBao) -> None:
    """Promise 28: another address would get the token."""
    read = reader(bao)
    read.settings = msgspec.structs.replace(read.settings, address=f"{bao.address}/ui/..")
    assert isinstance(read.refused("secret/ci/e2b#key"), BackendError | NotConfigured)
