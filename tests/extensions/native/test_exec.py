"""Commands, files and terminals."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import tarfile
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from sandboxer.errors import BackendError, Invalid, NotFound, Timeout
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Sink, Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box
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
        eventually(lambda: box.presence() == "stopped", within=30, what="the end")
        workspace = box.directory / "workspace"
        workspace.rename(box.directory / "elsewhere")
        workspace.symlink_to("nowhere")
        with pytest.raises(BackendError, match=r"could not be entered: .*workspace"):
            box.run("true")
        workspace.unlink()
        (box.directory / "elsewhere").rename(workspace)
        assert box.run("true")[0] == 0


def test_a_time_out_ends_the_command_but_not_the_sandbox(box: Box) -> None:
    before = box.recorded()
    with pytest.raises(Timeout, match="dash did not end in time"):
        box.run("dash", "-c", "sleep 61 | sleep 62", seconds=0.5)
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


def test_somebody_who_types_gets_a_terminal_of_the_inside_with_jobs_and_the_shells_own_code(box: Box) -> None:
    """dash takes the terminal back for whoever had it before, which fails when that is a session outside."""
    with typing(b"tty; sh -mc 'sleep 0.1' && echo jobs; echo ${SHELL-none}${sbx_shell-}; exit 7\n") as typed:
        code, out = on_terminal(box, "sh", typed=typed)
    assert code == 7, out
    assert b"/dev/pts/0\r\njobs\r\nnone\r\n" in out


OPENED_BY_NAME = (
    "echo out >/dev/stdout; echo err | tee /dev/stderr >/dev/null; echo tty >/dev/tty; head -n 1 </dev/stdin"
)


def test_a_terminals_streams_can_be_opened_by_their_names(box: Box) -> None:
    code, out, _ = box.run("sh", "-c", OPENED_BY_NAME, stdin=b"in\n", tty=True)
    assert code == 0, out
    assert [line for line in out.split(b"\r\n") if line != b"in"] == [b"out", b"err", b"tty", b""]
    with typing(b"in\n") as typed:
        code, out = on_terminal(box, "sh", "-c", OPENED_BY_NAME, typed=typed)
    assert code == 0, out
    assert [line for line in out.split(b"\r\n") if line != b"in"] == [b"out", b"err", b"tty", b""]


def test_only_what_was_made_for_a_command_changes_its_owner(box: Box) -> None:
    before = Path(os.devnull).stat()
    assert box.run("sh", "-c", "cat; ls -l /proc/self/fd/0")[0] == 0
    after = Path(os.devnull).stat()
    assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)


def test_words_arrive_unchanged_on_a_terminal(box: Box) -> None:
    words = ("a b", "c'd", 'e"f', "$HOME", "-n", "", "\\")
    with typing(b"") as typed:
        code, out = on_terminal(box, "printf", "<%s>", *words, typed=typed)
    assert (code, out) == (0, "".join(f"<{word}>" for word in words).encode())


def test_an_interrupt_key_reaches_the_program_on_its_terminal(box: Box) -> None:
    out = bytearray()
    with typing(b"") as typed:

        def press(chunk: bytes) -> None:
            out.extend(chunk)
            if out.endswith(b"here\r\n"):
                os.write(typed.keyboard, b"\x03")

        # short sleeps: a key between the shell's look for signals and its next child waits for that child's end
        script = "trap 'exit 9' INT; echo here; while :; do sleep 0.05; done"
        code, _ = on_terminal(box, "sh", "-c", script, typed=typed, sink=press)
    assert code == 9, bytes(out)


@dataclass
class Typed:
    """A terminal, and the descriptor at which it is typed."""

    keyboard: int
    stdin: BinaryIO


@contextlib.contextmanager
def typing(text: bytes) -> Iterator[Typed]:
    keyboard, terminal = os.openpty()
    tty.setraw(terminal)
    with os.fdopen(terminal, "rb", buffering=0) as stdin:
        os.write(keyboard, text)
        yield Typed(keyboard, stdin)
    os.close(keyboard)


def on_terminal(box: Box, *argv: str, typed: Typed, sink: Sink | None = None) -> tuple[int, bytes]:
    out = bytearray()
    streams = Streams(stdin=typed.stdin, stdout=sink or out.extend, stderr=out.extend)
    return EXTENSION.exec(box.handle, Exec(argv=argv, tty=True), streams, box.bench.context()), bytes(out)


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
    assert time.monotonic() - started < 30


def test_a_sandbox_whose_directory_is_gone_is_an_error_and_not_the_code_of_a_command(bench: Bench) -> None:
    with bench.box() as box:
        shutil.rmtree(box.directory)
        with pytest.raises(BackendError, match=r"directory .* is gone"):
            box.run("true")
        with pytest.raises(BackendError, match=r"directory .* is gone"):
            EXTENSION.path_kind(box.handle, "x", bench.context())


def test_a_link_that_is_copied_is_followed_and_those_below_it_are_not(box: Box, bench: Bench) -> None:
    box.sh("mkdir real; echo x >real/f; ln -s / real/root; ln -s real li")
    chunks = bytearray()
    EXTENSION.get_archive(box.handle, "li", chunks.extend, bench.context(seconds=20))
    with tarfile.open(fileobj=io.BytesIO(bytes(chunks))) as tar:
        found = {member.name.partition("/")[2]: member.type for member in tar}
    assert found == {"": tarfile.DIRTYPE, "f": tarfile.REGTYPE, "root": tarfile.SYMTYPE}
    with pytest.raises(BackendError, match="leads to /"):
        EXTENSION.get_archive(box.handle, "real/root", chunks.extend, bench.context(seconds=20))


def test_programs_that_somebody_has_put_before_the_systems_are_not_looked_for_inside(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/prlimit").symlink_to("/usr/bin/prlimit")
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    work = tmp_path / "work"
    with Bench(work, LocalHost("local", HostSettings(work_dir=str(work)), environ=environ)).box() as box:
        assert box.sh("echo in") == "in"
