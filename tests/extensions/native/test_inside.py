"""Commands, files and terminals."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxer.errors import BackendError, Invalid, NotFound, Timeout
from tests.extensions.native.bench import EXTENSION, Bench, Box
from tests.testbed.waiting import eventually


def _tar(fill: Callable[[tarfile.TarFile], None]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        fill(tar)
    packed.seek(0)
    return packed


def _member(tar: tarfile.TarFile, name: str, data: bytes = b"x", *, link: str | None = None) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    if link is not None:
        member.type, member.linkname, member.size = tarfile.SYMTYPE, link, 0
    tar.addfile(member, io.BytesIO(data))


def test_a_working_directory_that_is_not_there_is_126(box: Box) -> None:
    code, _, said = box.run("true", cwd="/no/such/folder")
    assert code == 126
    assert b"/no/such/folder" in said


def test_a_relative_working_directory_starts_at_the_workspace(box: Box) -> None:
    box.sh("mkdir -p /workspace/sub")
    assert box.run("pwd", cwd="sub")[1] == b"/workspace/sub\n"
    assert box.run("pwd")[1] == b"/workspace\n"


def test_a_command_that_fails_like_our_own_tools_is_not_taken_for_them(box: Box) -> None:
    assert box.run("sh", "-c", "echo 'bwrap: failed' >&2; exit 1") == (1, b"", b"bwrap: failed\n")
    assert box.run("sh", "-c", "echo 0123456789abcdef >&2; exit 125") == (125, b"", b"0123456789abcdef\n")


def test_a_sandbox_that_cannot_be_entered_is_an_error_and_not_a_code(bench: Bench) -> None:
    with bench.box() as box:
        os.kill(box.recorded()["child"], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=5, what="the end")
        start = box.directory / "start"
        text = start.read_text()
        start.write_text("echo 'a reason' >&2; exit 3\n")
        with pytest.raises(BackendError, match="could not be entered: a reason"):
            box.run("true")
        start.write_text(text)
        assert box.run("true")[0] == 0


def test_a_time_out_ends_the_command_but_not_the_sandbox(box: Box) -> None:
    before = box.recorded()
    with pytest.raises(Timeout):
        box.run("sh", "-c", "sleep 61 | sleep 62", seconds=0.5)
    eventually(lambda: "sleep 6" not in _commands(box), within=5, what="the children to end")
    assert box.recorded() == before


def _commands(box: Box) -> str:
    return box.sh("for d in /proc/[0-9]*; do tr '\\0' ' ' <$d/cmdline; done 2>/dev/null; true").replace("tr ", "")


def test_a_terminal_is_a_terminal_and_the_environment_arrives(box: Box) -> None:
    script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo yes $VALUE; ls /proc/self/fd | tr '\\n' ' '; exit 7"
    code, out, err = box.run("sh", "-c", script, tty=True, VALUE="of mine")
    assert (code, err) == (7, b"")
    assert out.split(b"\r\n")[0] == b"yes of mine"
    assert out.split(b"\r\n")[1].split() == [b"0", b"1", b"2", b"3"]  # 3 is the listing itself
    assert list((box.directory / "run").glob("[0-9a-f]" * 16)) == []


def test_a_large_output_and_input_pass_unchanged(box: Box) -> None:
    data = os.urandom(3_000_000)
    assert box.run("cat", stdin=data)[1] == data


def test_an_archive_cannot_write_outside(box: Box, tmp_path: Path) -> None:

    def fill(tar: tarfile.TarFile) -> None:
        _member(tar, "out", link=str(tmp_path))
        _member(tar, "out/written")
        _member(tar, "../../../etc/written")

    escape = _tar(fill)
    with contextlib.suppress(BackendError):  # refused is as good as harmless
        EXTENSION.put_archive(box.handle, "/workspace/in", escape, box.bench.context())
    assert list(tmp_path.iterdir()) == []
    assert not Path("/etc/written").exists()


def test_a_link_cannot_lead_a_reader_outside(box: Box) -> None:
    box.sh("ln -sf /etc/shadow shadow; ln -sfn / top; echo inside >plain; ln -sf plain link")
    with pytest.raises(NotFound):
        EXTENSION.get_archive(box.handle, "/workspace/top/root/.ssh", lambda _: None, box.bench.context())
    with pytest.raises((BackendError, NotFound)):
        EXTENSION.get_archive(box.handle, "shadow", lambda _: None, box.bench.context())
    out = io.BytesIO()
    EXTENSION.get_archive(box.handle, "link", lambda chunk: (out.write(chunk), None)[1], box.bench.context())
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.isfile()) == ("link", True)


def test_names_that_look_like_options_can_be_copied(box: Box) -> None:
    context = box.bench.context()
    EXTENSION.put_archive(box.handle, "-C", _tar(lambda tar: _member(tar, "--help")), context)
    assert EXTENSION.path_kind(box.handle, "-C/--help", context) == "file"
    out = bytearray()
    EXTENSION.get_archive(box.handle, "-C/--help", out.extend, context)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.getnames() == ["--help"]


def test_modes_survive_a_copy(box: Box) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("run.sh")
        member.mode = 0o751
        tar.addfile(member)

    EXTENSION.put_archive(box.handle, "/workspace/modes", _tar(fill), box.bench.context())
    assert box.sh("stat -c %a modes/run.sh") == "751"


def test_a_read_only_place_and_the_top_are_refused_with_a_hint(box: Box) -> None:
    with pytest.raises(BackendError, match="/usr") as caught:
        EXTENSION.put_archive(box.handle, "/usr/x", _tar(lambda tar: _member(tar, "x")), box.bench.context())
    assert "/workspace" in caught.value.hint
    with pytest.raises(Invalid):
        EXTENSION.get_archive(box.handle, "/", lambda _: None, box.bench.context())


def test_a_copy_has_a_deadline(box: Box) -> None:
    reading, writing = os.pipe()
    started = time.monotonic()
    with open(reading, "rb") as never_ends, pytest.raises(Timeout):
        EXTENSION.put_archive(box.handle, "/workspace/slow", never_ends, box.bench.context(seconds=0.4))
    os.close(writing)
    assert time.monotonic() - started < 5
