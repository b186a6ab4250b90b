"""The fakes as programs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sandboxer.errors import SandboxerError
from sandboxer.http import ApiClient
from sandboxer.timing import Deadline
from tests.fakes import CLOUDS
from tests.testbed.waiting import eventually

_PROGRAM = [sys.executable, "-m", "tests.fakes"]


def _said(text: str) -> dict[str, str]:
    lines = [line.removeprefix("export ").partition("=") for line in text.splitlines() if line]
    return {name: shlex.split(value)[0] for name, _, value in lines}


@pytest.mark.parametrize("cloud", sorted(CLOUDS))
def test_a_fake_by_hand_says_where_it_is_and_leaves_nothing(cloud: str, tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    served = subprocess.Popen([*_PROGRAM, cloud], env=env, stdout=subprocess.PIPE, text=True)
    assert served.stdout is not None
    try:
        lines = []
        while (line := served.stdout.readline()) != "\n":
            assert line, "it ended"
            lines.append(line)
        said = _said("".join(lines))
        addresses = [value for value in said.values() if value.startswith("http")]
        assert addresses
        assert all(urlsplit(address).hostname == "127.0.0.1" for address in addresses)
    finally:
        served.send_signal(signal.SIGTERM)
        assert served.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


def test_in_the_background_it_can_be_evaluated_by_a_shell_and_ended_by_its_number(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([*_PROGRAM, "e2b", "--background"], env=env, capture_output=True, text=True, timeout=30)
    said = _said(done.stdout)
    pid = int(said["FAKE_CLOUD_PID"])
    api = ApiClient(said["E2B_API_URL"], name="fake")
    try:
        assert api.call("GET", "/v2/sandboxes", Deadline(10), expect=None).status in (200, 401)
    finally:
        os.kill(pid, signal.SIGTERM)

    def refused() -> bool:
        try:
            api.call("GET", "/v2/sandboxes", Deadline(5), expect=None)
        except SandboxerError:
            return True
        return False

    eventually(refused, within=10, what="it is gone")
