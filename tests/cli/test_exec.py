"""What `exec` and `logs` tell a program with --json: the same as over HTTP."""

from __future__ import annotations

import base64

import pytest

from tests.cli.running import Command

OVER = 17 << 20
"""More of one stream than a document holds."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """An installation with a sandbox that these tests share."""
    here = Command(tmp_path_factory.mktemp("box"))
    assert here("create", "--profile", "profile.fake", "--name", "box").status == 0
    return here


def test_the_document_is_that_of_http(box: Command) -> None:
    answer = box("exec", "--json", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert answer.status == 7
    assert answer.document == {
        "exit_code": 7, "stdout": "out\n", "stderr": "err\n", "stdout_base64": None, "stderr_base64": None,
        "stdout_truncated": False, "stderr_truncated": False,
    }  # fmt: skip


def test_bytes_that_are_not_utf_8_arrive(box: Command) -> None:
    """They were replaced."""
    raw = bytes(range(256))
    document = box("exec", "-i", "--json", "box", "--", "cat", stdin=raw).document
    assert base64.b64decode(document["stdout_base64"]) == raw
    assert document["stderr_base64"] is None


def test_a_command_that_takes_too_long_tells_what_it_wrote(box: Command) -> None:
    script = "echo a part; printf '\\377' >&2; exec sleep 60"
    answer = box("exec", "--json", "--timeout", "5", "box", "--", "sh", "-c", script)
    assert (answer.status, answer.error["code"]) == (124, "timeout")
    assert answer.error["details"] == {
        "stdout": "a part\n", "stdout_truncated": False, "stderr_base64": "/w==", "stderr_truncated": False,
    }  # fmt: skip


def test_a_command_is_not_ended_for_its_output(box: Command) -> None:
    """It was, with exit status 125."""
    script = f"head -c {OVER} /dev/zero | tr '\\0' x; echo last >&2; exit 7"
    answer = box("exec", "--json", "box", "--", "sh", "-c", script)
    assert (answer.status, answer.document["exit_code"]) == (7, 7)
    assert len(answer.document["stdout"]) == 16 << 20
    assert (answer.document["stdout_truncated"], answer.document["stderr_truncated"]) == (True, False)
    assert answer.document["stderr"] == "last\n"


def test_logs_tell_the_same(box: Command) -> None:
    document = box("logs", "--json", "box").document
    assert set(document) == {
        "sandbox_id", "stdout", "stderr", "stdout_base64", "stderr_base64", "stdout_truncated", "stderr_truncated",
    }  # fmt: skip


def test_what_is_piped_in_goes_nowhere_without_i_and_the_help_says_so(box: Command) -> None:
    """As with docker; a script that forgets it has to find out where it looks first."""
    assert box("exec", "box", "--", "cat", stdin=b"piped").stdout == ""
    assert box("exec", "-i", "box", "--", "cat", stdin=b"piped").stdout == "piped"
    assert "also when something is piped in" in " ".join(box("exec", "--help").stdout.split())
