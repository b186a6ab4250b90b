"""`serve`: where it listens, how it starts and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sandboxer.api import server, server_context
from sandboxer.api.server import check_exposure, listen, serve
from sandboxer.bootstrap import Installation
from sandboxer.errors import Conflict, Denied, Invalid
from sandboxer.manager.tokens import TokenRequest
from sandboxer.timing import Deadline
from tests.cli.running import Command
from tests.installations import environment, installed, lay_out
from tests.testbed.waiting import eventually

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
    check_exposure(EVERYWHERE, closed=True)
    with pytest.raises(Denied):
        check_exposure(EVERYWHERE, closed=False)


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(Conflict) as refused:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "--port" in refused.value.hint


def test_an_answer_does_not_wait_for_the_client_to_confirm_its_head() -> None:
    """Each request on a connection that is kept took 40 ms."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


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


SLOW = START + (
    "import threading; import sandboxer.api.app as application, sandboxer.api.server as server\n"
    "from sandboxer.testing.fake import FakeExtension\n"
    "class Slow(FakeExtension):\n"
    "    def provision(self, spec, ctx):\n"
    "        threading.Event().wait(600)\n"
    "here = installed(pathlib.Path(sys.argv[1]))\n"
    "here.manager.services.extensions.add('ext.fake', Slow)\n"
    "application.STOP_SECONDS = float(sys.argv[2])\n"
    "server.GRACE_SECONDS = 1\n"
    "serve(here, '127.0.0.1', 0)\n"
)
"""A server whose establishments do not end by themselves."""


def slow_server(root: Path, *, stop_seconds: float) -> started:
    lay_out(root)
    return started([sys.executable, "-c", SLOW, str(root), str(stop_seconds)], {"PYTHONPATH": str(ROOT)})


def test_an_establishment_under_way_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    """It is left to `reconcile`, like any crash (promise 1), and the operator is told so."""
    with slow_server(tmp_path, stop_seconds=0.5) as (process, port):
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/sandboxes", json={"profile": "profile.fake"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == -signal.SIGTERM
        assert process.stderr is not None
        assert "reconcile --apply" in process.stderr.read()
    here = installed(tmp_path)
    report = here.manager.reconcile(apply=True)
    assert [(action.sandbox_id, action.outcome) for action in report.actions] == [(answer.json()["id"], "done")]
    assert here.manager.get(answer.json()["id"]).state == "failed"


def test_who_waits_when_the_server_stops_is_told_what_may_exist(tmp_path: Path) -> None:
    """Contract §3: `outcome: unknown`, with the sandbox; no bare 500."""
    with slow_server(tmp_path, stop_seconds=0.5) as (process, port), ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{port}/v1/sandboxes"
        waiting = pool.submit(httpx.post, f"{url}?wait=true", json={"profile": "profile.fake"}, timeout=60)
        begun = eventually(lambda: httpx.get(url).json()["sandboxes"], within=20, what="the create is begun")
        process.send_signal(signal.SIGTERM)
        answer = waiting.result(30)
        process.wait(15)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    problem = answer.json()
    assert (problem["code"], problem["outcome"], problem["sandbox_id"]) == ("unavailable", "unknown", begun[0]["id"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_any_signal_ends_the_command_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """Promise 3: also while it writes an answer, where an exception would be lost."""
    process = Command(tmp_path).start("serve", "--port", "0")
    try:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as waiting:
            waiting.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)  # and never reads
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            process.send_signal(number)
            _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in stderr


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Promise 3."""
    with slow_server(tmp_path, stop_seconds=500) as (process, port):
        httpx.post(f"http://127.0.0.1:{port}/v1/sandboxes", json={"profile": "profile.fake"})

        def closed() -> bool:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
            except httpx.TransportError:
                return True
            return False

        process.send_signal(signal.SIGINT)
        eventually(closed, within=20, what="it takes no more requests")
        process.send_signal(signal.SIGINT)
        process.wait(20)


def test_a_second_signal_that_comes_early_is_not_lost(here: Installation) -> None:
    """Between the first one and the moment when the work under way is waited for."""
    under_way = server_context.ServerContext(lambda: here)
    go = threading.Event()
    work = under_way.destroys.submit(lambda: go.wait(60))
    under_way.hurry()
    begun = time.monotonic()
    assert under_way.stop(Deadline(60)) == 1
    assert time.monotonic() - begun < 30
    go.set()
    work.result(30)


def test_it_ends_within_ten_seconds() -> None:
    """Promise 3."""
    assert server.GRACE_SECONDS + server_context.STOP_SECONDS < 10


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


def test_no_log_of_uvicorns_holds_a_token_that_somebody_put_in_a_url(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Contract §6: never in a URL. It does not count there, and is not kept either."""
    lay_out(tmp_path)
    held = "a-token-from-the-environment"
    made = installed(tmp_path).manager.create_token(TokenRequest(name="a", role="admin"))
    argv = [sys.executable, "-m", "uvicorn", "sandboxer.api.app:app", "--port", "0"]
    with started(argv, environment(tmp_path, SANDBOXER_API_TOKEN=held)) as (process, port):
        for token in (held, made.token):
            assert httpx.get(f"http://127.0.0.1:{port}/v1/sandboxes?access_token={token}").status_code == 401
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.stderr is not None
        written = capfd.readouterr().out + process.stderr.read()
    assert written.count("access_token=(secret)") == 2
    assert held not in written
    assert made.token not in written


def test_a_wrong_configuration_is_told_in_one_sentence(tmp_path: Path) -> None:
    lay_out(tmp_path, config="nonsense: 1\n")
    argv = [sys.executable, "-m", "uvicorn", "sandboxer.api.app:app", "--port", "0"]
    done = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_json_the_command_tells_a_program_where_it_listens(tmp_path: Path) -> None:
    """Contract §3: `--json` on every command, exactly one document."""
    sandboxer = Command(tmp_path)
    process = sandboxer.start("serve", "--port", "0", "--json")
    try:
        assert process.stderr is not None
        assert b"listens on" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    document = json.loads(stdout)
    assert document == {"host": "127.0.0.1", "port": document["port"], "url": f"http://127.0.0.1:{document['port']}"}
    assert process.returncode == 0


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_a_blank_token_is_none(tmp_path: Path, token: str) -> None:
    """Promise 29: nothing that a client cannot send opens the way beyond loopback."""
    refused = Command(tmp_path)("serve", "--host", EVERYWHERE, "--json", SANDBOXER_API_TOKEN=token)
    assert (refused.status, refused.error["code"]) == (11, "denied")


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
