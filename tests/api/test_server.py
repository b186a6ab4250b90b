"""`serve`: where it listens, how it starts and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sandboxer.api.server import check_exposure, listen, serve
from sandboxer.errors import Conflict, Denied, Invalid
from tests.installations import environment, installed, lay_out

START = "from sandboxer.api.server import serve; from tests.installations import installed; import pathlib, sys; "
ROOT = Path(__file__).parents[2]


EVERYWHERE = "0.0.0.0"  # noqa: S104 - to see it refused


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.org", ""])
def test_it_does_not_start_beyond_loopback_without_a_token(tmp_path: Path, host: str) -> None:
    """Promise 29; contract §6."""
    with pytest.raises(Denied) as refused:
        serve(installed(tmp_path), host, 0)
    assert refused.value.exit_code == 11
    assert "SANDBOXER_API_TOKEN" in refused.value.hint


def test_with_a_token_it_may_listen_anywhere() -> None:
    check_exposure(EVERYWHERE, token="s3cret")
    with pytest.raises(Denied):
        check_exposure(EVERYWHERE, token="")


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(Conflict) as refused:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "--port" in refused.value.hint


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 65536), ("127.0.0.1", -1), ("no such name", 0), ("192.0.2.1", 0)]
)
def test_an_address_that_is_none_is_invalid(host: str, port: int) -> None:
    with pytest.raises(Invalid):
        listen(host, port)


def test_a_token_from_the_environment_is_asked_for_and_the_server_ends_on_sigterm(tmp_path: Path) -> None:
    lay_out(tmp_path)
    program = START + "serve(installed(pathlib.Path(sys.argv[1]), SANDBOXER_API_TOKEN='s3cret'), '127.0.0.1', 0)"
    with started([sys.executable, "-c", program, str(tmp_path)], {"PYTHONPATH": str(ROOT)}) as (process, port):
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/v1/sandboxes").status_code == 401
        assert httpx.get(f"{url}/v1/sandboxes", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == -signal.SIGTERM


def test_an_establishment_under_way_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    """It is left to `reconcile`, like any crash (promise 1)."""
    lay_out(tmp_path)
    program = START + (
        "import threading; import sandboxer.api.app as application, sandboxer.api.service as service\n"
        "from sandboxer.testing.fake import FakeExtension\n"
        "class Slow(FakeExtension):\n"
        "    def provision(self, spec, ctx):\n"
        "        threading.Event().wait(600)\n"
        "here = installed(pathlib.Path(sys.argv[1]))\n"
        "here.manager.core.extensions.add('ext.fake', Slow)\n"
        "application.STOP_SECONDS = 0.5\n"
        "serve(here, '127.0.0.1', 0)\n"
    )
    with started([sys.executable, "-c", program, str(tmp_path)], {"PYTHONPATH": str(ROOT)}) as (process, port):
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/sandboxes", json={"profile": "profile.fake"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == -signal.SIGTERM
    here = installed(tmp_path)
    report = here.manager.reconcile(apply=True)
    assert [(action.sandbox_id, action.outcome) for action in report.actions] == [(answer.json()["id"], "done")]
    assert here.manager.get(answer.json()["id"]).state == "failed"


def test_uvicorn_serves_the_module_and_an_idle_server_is_small(tmp_path: Path) -> None:
    """At most 120 MiB resident when idle, after some requests."""
    lay_out(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "uvicorn", "sandboxer.api.app:app", "--port", str(port)]
    with started(argv, environment(tmp_path)) as (process, _):
        url = f"http://127.0.0.1:{port}"
        for _round in range(5):
            assert httpx.post(f"{url}/v1/sandboxes?wait=true", json={"profile": "profile.fake"}).status_code == 201
        assert httpx.get(f"{url}/openapi.json").status_code == 200
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]  # the kernel writes it
        assert resident <= 120 * 1024
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def test_a_wrong_configuration_is_told_in_one_sentence(tmp_path: Path) -> None:
    lay_out(tmp_path, config="nonsense: 1\n")
    argv = [sys.executable, "-m", "uvicorn", "sandboxer.api.app:app", "--port", "0"]
    done = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


class started:  # noqa: N801 - read as a phrase in `with`
    """A server process and its port; killed at the end of the block if it still lives."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(argv, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> tuple[subprocess.Popen[str], int]:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"(?:listens|running) on http://\S+?:(\d+)", line):
                return self._process, int(found[1])
        raise AssertionError("the server did not start")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        if self._process.stderr is not None:
            self._process.stderr.close()
