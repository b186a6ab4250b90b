"""Commands at every cloud: words that are no text, and times that are over."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sandboxer.errors import Invalid, Timeout
from sandboxer.extensions.base import CanCopy
from sandboxer.models import Handle
from tests.extensions.provider.trial import Trial


@pytest.fixture(scope="module")
def handle(shared: Trial) -> Handle:
    return shared.made()


def test_bytes_that_are_no_text_arrive(shared: Trial, handle: Handle) -> None:
    word = os.fsdecode(b"\xff\xc3 '\x80")
    shared.run(handle, "mkdir", "-p", f"/tmp/{word}")
    code, out, err = shared.run(
        handle, "sh", "-c", 'pwd; printf "%s|" "$1" "$A"', "sh", word, env={"A": word}, cwd=f"/tmp/{word}"
    )
    raw = os.fsencode(word)
    assert (code, out, err) == (0, b"/tmp/" + raw + b"\n" + raw + b"|" + raw + b"|", b"")


def test_bytes_that_are_no_text_arrive_beside_an_input(shared: Trial, handle: Handle) -> None:
    assert shared.run(handle, "sh", "-c", 'cat; printf %s "$1"', "sh", "\udcff", stdin=b"in") == (0, b"in\xff", b"")


def test_a_command_that_is_over_its_time_is_told_with_what_there_is_at_a_cloud(shared: Trial, handle: Handle) -> None:
    with pytest.raises(Timeout) as caught:
        shared.run(handle, "sleep", "91", seconds=2)
    assert ("--timeout" in caught.value.hint, "host" in caught.value.hint) == (True, False)


@pytest.mark.parametrize("cwd", ["/no/such", "no/such", "/etc/passwd", "-x"])
@pytest.mark.parametrize("stdin", [b"", b"in"])
def test_a_working_directory_that_cannot_be_entered_is_126_and_told(
    shared: Trial, handle: Handle, cwd: str, stdin: bytes
) -> None:
    """An end of the command, not of the sandbox: over HTTP it is no 404."""
    code, out, err = shared.run(handle, "touch", "/tmp/entered", cwd=cwd, stdin=stdin)
    assert (code, out, cwd.encode() in err) == (126, b"", True), err
    assert shared.run(handle, "test", "-e", "/tmp/entered")[0] == 1


@pytest.mark.parametrize("word", ["\ud800", "x\udfff", "nul\0"])
@pytest.mark.parametrize("where", ["argv", "env", "cwd"])
def test_what_stands_for_no_byte_is_refused_before_anything_runs(
    shared: Trial, handle: Handle, word: str, where: str
) -> None:
    places: dict[str, dict[str, Any]] = {"env": {"env": {"A": word}}, "cwd": {"cwd": word}, "argv": {}}
    with pytest.raises(Invalid) as caught:
        shared.run(handle, "touch", "/tmp/begun", *([word] if where == "argv" else []), **places[where])
    assert caught.value.exit_code == 2
    assert shared.run(handle, "test", "-e", "/tmp/begun")[0] == 1


@pytest.mark.parametrize("path", ["/tmp/\ud800", "/tmp/nul\0"])
def test_a_path_that_stands_for_no_bytes_is_refused(shared: Trial, handle: Handle, path: str) -> None:
    assert isinstance(shared.extension, CanCopy)
    with pytest.raises(Invalid):
        shared.extension.path_kind(handle, path, shared.context())
    with pytest.raises(Invalid):
        shared.extension.get_archive(handle, path, lambda _chunk: None, shared.context())
