"""Running commands inside: whatever the shells, and whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import BackendError, Conflict, SandboxerError, Timeout, Unsupported
from sandboxer.extensions.base import Exec
from sandboxer.extensions.daytona import DaytonaExtension, scripts
from sandboxer.extensions.daytona import exec as daytona_exec
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle
from sandboxer.testing.conformance import TORTURE
from tests.extensions.daytona.harness import context, made, run
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona

EXECUTE = r"POST /toolbox/[^/]+/process/execute"
PRINT = 'for a; do printf "%s\\0" "$a"; done'


@pytest.fixture(scope="module")
def handle(shared: FakeDaytona) -> Handle:
    return made(shared)


# -- with each shell that an image may have ---------------------------------------------------------------------------


def shells() -> list[Any]:
    found = [name for name in ("dash", "bash", "busybox", "zsh") if shutil.which(name)]
    return [pytest.param(outer, inner, id=f"{outer}-{inner}") for outer in found for inner in found if inner != "zsh"]


def in_shells(outer: str, inner: str, tmp_path: Path, text: str) -> str:
    """What the toolbox would answer where commands are given to `outer` and `sh` is `inner`."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    if not (programs / "sh").exists():
        target = shutil.which(inner)
        assert target is not None
        (programs / "sh").symlink_to(target)
    words = ["busybox", "sh"] if outer == "busybox" else [outer]
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        words,
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": path, "HOME": str(tmp_path)},
        cwd=tmp_path,
        timeout=30,
        check=False,
        start_new_session=True,
    )
    return done.stdout.decode("utf-8", "replace")


@pytest.mark.parametrize(("outer", "inner"), shells())
def test_words_values_streams_and_codes_in_any_shell(outer: str, inner: str, tmp_path: Path) -> None:
    token = os.urandom(8).hex()
    script = f'{PRINT}; printf "%s" "$V" >&2; cat; exit 7'
    job = daytona_exec.job(["sh", "-c", script, "sh", *TORTURE], cwd="/", env={"V": "it's \n$V `x`"})
    words = [token, scripts.PREFIX + token, "20", "100000", "whole", ""]
    data = "AAEC\n"
    text = scripts.text(scripts.START, *words, job=job.decode(), data=data, mark=f"end-{token}")
    told = daytona_exec.read(in_shells(outer, inner, tmp_path, text), token)
    assert (told.state, told.code) == ("done", 7)
    assert told.out == b"".join(word.encode() + b"\0" for word in TORTURE) + b"\x00\x01\x02"
    assert told.err == b"it's \n$V `x`"
    deadline = time.monotonic() + 5
    while list(Path("/tmp").glob(f".sbx-exec-{token}*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(Path("/tmp").glob(f".sbx-exec-{token}*")) == []


@pytest.mark.parametrize(("outer", "inner"), shells())
def test_a_long_command_is_followed_and_ended_in_any_shell(outer: str, inner: str, tmp_path: Path) -> None:
    token = os.urandom(8).hex()
    files = scripts.PREFIX + token
    job = daytona_exec.job(["sh", "-c", "echo first; sleep 300 & sleep 300"], cwd=None, env={})
    words = [token, files, "0.2", "100000", "none", ""]

    def ask(script: str, *more: str, **parts: str) -> str:
        text = scripts.text(script, *more, mark=f"end-{token}", **parts)
        return in_shells(outer, inner, tmp_path, text)

    told = daytona_exec.read(ask(scripts.START, *words, job=job.decode()), token)
    assert (told.state, told.out) == ("run", b"first\n")
    told = daytona_exec.read(ask(scripts.FOLLOW, token, files, "2", "100000", "6", "0", "", ""), token)
    assert (told.state, told.out) == ("run", b"")
    sid = Path(f"{files}.sid").read_text().strip()
    assert "ended" in ask(scripts.END, files)
    sessions = [stat.rpartition(") ")[2].split()[3] for stat in _stats()]
    assert sid not in sessions
    told = daytona_exec.read(ask(scripts.FOLLOW, token, files, "2", "100000", "6", "0", "", ""), token)
    assert told.state == "lost"


def _stats() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        if ") Z " not in text:
            found.append(text)
    return found


@pytest.mark.parametrize(("outer", "inner"), shells())
def test_a_command_that_was_ended_before_it_began_does_not_begin(outer: str, inner: str, tmp_path: Path) -> None:
    token = os.urandom(8).hex()
    files = scripts.PREFIX + token
    job = daytona_exec.job(["touch", str(tmp_path / "ran")], cwd=None, env={})
    assert "ended" in in_shells(outer, inner, tmp_path, scripts.text(scripts.END, files, mark="end"))
    words = [token, files, "5", "1000", "none", ""]
    text = scripts.text(scripts.START, *words, job=job.decode(), mark=f"end-{token}")
    assert daytona_exec.read(in_shells(outer, inner, tmp_path, text), token).state == "late"
    assert not (tmp_path / "ran").exists()
    Path(f"{files}.st").unlink()


# -- on the fake ------------------------------------------------------------------------------------------------------


def test_neither_words_nor_values_nor_input_are_in_any_other_argv(shared: FakeDaytona, handle: Handle) -> None:
    """Promise 28: what a command is given is in its own argv alone."""
    look = 'for d in /proc/[0-9]*; do tr "\\0" " " <$d/cmdline; echo; done 2>/dev/null'
    code, out, _ = run(
        shared, handle, "sh", "-c", f"cat >/dev/null; {look}", stdin=b"canary-of-stdin", env={"X": "canary-of-env"}
    )
    assert code == 0
    assert b"canary-of-env" not in out
    assert b"canary-of-stdin" not in out
    assert out.count(b"cat >/dev/null; for d in") == 1


def test_words_that_are_not_utf8_arrive(shared: FakeDaytona, handle: Handle) -> None:
    word = os.fsdecode(b"\xff\xfe \x80")
    code, out, _ = run(shared, handle, "sh", "-c", PRINT, "sh", word, env={"V": word})
    assert (code, out) == (0, b"\xff\xfe \x80\0")


def test_variables_that_shells_keep_for_themselves_arrive(shared: FakeDaytona, handle: Handle) -> None:
    code, out, _ = run(shared, handle, "env", env={"UID": "7", "PPID": "8", "IFS": "x", "PLAIN": "9"})
    assert code == 0
    assert {b"UID=7", b"PPID=8", b"IFS=x", b"PLAIN=9"} <= set(out.split(b"\n"))


def test_a_program_whose_name_begins_with_a_dash_is_not_an_option(shared: FakeDaytona, handle: Handle) -> None:
    code, out, err = run(shared, handle, "-n", "x")
    assert (code, out) == (127, b"")
    assert err


def test_a_working_directory_may_begin_with_a_dash(shared: FakeDaytona, handle: Handle) -> None:
    assert run(shared, handle, "sh", "-c", "mkdir -p -- -x; cd -- -x; pwd")[0] == 0
    assert run(shared, handle, "pwd", cwd="-x")[1] == b"/home/daytona/-x\n"


def test_output_comes_while_the_command_runs(shared: FakeDaytona, handle: Handle) -> None:
    came: list[float] = []
    streams = Streams(stdout=lambda _chunk: came.append(time.monotonic()), stderr=lambda _chunk: None)
    request = Exec(argv=("sh", "-c", "echo one; sleep 1.5; echo two"))
    assert DaytonaExtension().exec(handle, request, streams, context(shared)) == 0
    assert len(came) == 2
    assert came[1] - came[0] > 0.7


def test_input_is_passed_on_as_it_comes(shared: FakeDaytona, handle: Handle) -> None:
    reading, writing = os.pipe()
    answers: list[bytes] = []
    came = threading.Event()

    def out(chunk: bytes) -> None:
        answers.append(chunk)
        came.set()

    done: list[int] = []
    with open(reading, "rb") as source:
        streams = Streams(stdin=source, stdout=out, stderr=lambda _chunk: None)
        request = Exec(argv=("sh", "-c", 'while read -r line; do echo "got $line"; done'))
        thread = threading.Thread(
            target=lambda: done.append(DaytonaExtension().exec(handle, request, streams, context(shared)))
        )
        thread.start()
        os.write(writing, b"one\n")
        assert came.wait(10)
        assert answers == [b"got one\n"]
        came.clear()
        os.write(writing, b"two\n")
        assert came.wait(10)
        os.close(writing)
        thread.join(10)
    assert (done, b"".join(answers)) == ([0], b"got one\ngot two\n")


def test_much_goes_through_and_nothing_stays_in_the_sandbox(shared: FakeDaytona, handle: Handle) -> None:
    data = os.urandom(3_000_000)
    code, out, err = run(shared, handle, "sh", "-c", "tee /dev/stderr", stdin=data)
    assert (code, out == data, err == data) == (0, True, True)

    def left() -> bytes:
        return run(shared, handle, "sh", "-c", 'ls -a /tmp | grep sbx-exec | grep -v -F "$1" | head -3', "sh", "none")[
            1
        ]

    deadline = time.monotonic() + 5
    while len(set(left().split(b"\n"))) > 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    names = {name.split(b".")[1] for name in left().split() if name.count(b".") >= 2}
    assert len(names) <= 1, "only those of the command that looks"


def test_a_command_ends_before_its_input_does(shared: FakeDaytona, handle: Handle) -> None:
    code, out, _ = run(shared, handle, "head", "-c", "3", stdin=b"abcdef" * 500_000)
    assert (code, out) == (0, b"abc")


def test_a_lost_answer_of_a_long_command_is_made_up_for(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match=EXECUTE, kind="lost-answer", times=2))
    script = "echo ran >> /tmp/count; sleep 1; echo end; exit 5"
    assert run(daytona_cloud, handle, "sh", "-c", script)[:2] == (5, b"end\n")
    assert len(daytona_cloud.script.struck) == 2
    assert run(daytona_cloud, handle, "cat", "/tmp/count")[1] == b"ran\n"


def test_a_lost_answer_of_a_short_command_is_told_and_never_runs_it_twice(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match=EXECUTE, kind="lost-answer"))
    with pytest.raises(SandboxerError) as caught:
        run(daytona_cloud, handle, "sh", "-c", "echo ran >> /tmp/count")
    assert caught.value.outcome == "unknown"
    assert run(daytona_cloud, handle, "cat", "/tmp/count")[1] == b"ran\n"


def test_a_dropped_command_is_not_run_later(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match=EXECUTE, kind="drop"))
    with pytest.raises(SandboxerError) as caught:
        run(daytona_cloud, handle, "touch", "/tmp/ran")
    assert caught.value.outcome == "unknown"
    assert run(daytona_cloud, handle, "test", "-e", "/tmp/ran")[0] == 1


def test_a_timeout_whose_kill_fails_too_says_so(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    daytona_cloud.script.add(
        Fault(match=EXECUTE, kind="hang", skip=1),
        Fault(match=EXECUTE, kind="status", status=400, body={"message": "no"}, skip=1, times=None),
    )
    with pytest.raises(Timeout) as caught:
        run(daytona_cloud, handle, "sleep", "300", seconds=1.5)
    assert caught.value.outcome == "unknown"


def test_a_sink_that_fails_ends_the_command(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)

    def refuse(_chunk: bytes) -> None:
        raise BrokenPipeError

    request = Exec(argv=("sh", "-c", "echo x; sleep 300"))
    with pytest.raises(BrokenPipeError):
        DaytonaExtension().exec(handle, request, Streams(stdout=refuse, stderr=refuse), context(daytona_cloud))
    code, out, _ = run(daytona_cloud, handle, "sh", "-c", 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')
    assert code == 0
    assert b"sleep 300 " not in out.replace(b"; sleep 300", b"")


def test_a_terminal_and_services_are_refused(shared: FakeDaytona, handle: Handle) -> None:
    with pytest.raises(Unsupported):
        run(shared, handle, "sh", tty=True)
    with pytest.raises(SandboxerError):
        run(shared, handle, "sh", service="web")


def test_what_does_not_run_says_so(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    DaytonaExtension().stop(handle, context(daytona_cloud))
    with pytest.raises(Conflict, match="stopped"):
        run(daytona_cloud, handle, "true")
    DaytonaExtension().teardown(handle, context(daytona_cloud))
    with pytest.raises(BackendError, match="gone"):
        run(daytona_cloud, handle, "true")


@pytest.mark.parametrize(
    "result",
    ["", "sh: not found", "tok", "tok done", "tok done 0\n=\n", "tok done 0\n%%%\n=\n=\n", "tok what 0\n=\n=\n"],
)
def test_an_answer_that_is_not_whole_is_none(result: str) -> None:
    with pytest.raises(BackendError) as caught:
        daytona_exec.read(result, "tok")
    assert caught.value.outcome == "unknown"


def test_what_a_shell_says_before_is_passed_over() -> None:
    told = daytona_exec.read("motd of the day\ntok done 3\naGk=\n=\n=\n", "tok")
    assert (told.state, told.code, told.out, told.err) == ("done", 3, b"hi", b"")


def test_logs_are_taken_apart_however_they_come(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    logs = r"GET /toolbox/[^/]+/process/session/entrypoint/logs"

    def show(tail: int | None = None) -> tuple[bytes, bytes]:
        out, err = bytearray(), bytearray()
        streams = Streams(stdout=out.extend, stderr=err.extend)
        DaytonaExtension().logs(handle, streams, context(daytona_cloud), service=None, follow=False, tail=tail)
        return bytes(out), bytes(err)

    for body in (
        json.dumps({"stdout": "a\nb\n", "stderr": "c\n", "output": "a\nb\nc\n"}).encode(),
        b"\x01\x01\x01a\n\x02\x02\x02c\n\x01\x01\x01b\n",
    ):
        daytona_cloud.script.add(Fault(match=logs, kind="status", status=200, body=body, times=2))
        assert show() == (b"a\nb\n", b"c\n")
        assert show(1) == (b"b\n", b"c\n")
    daytona_cloud.script.add(Fault(match=logs, kind="status", status=404, body={"message": "session not found"}))
    assert show() == (b"", b"")


def test_the_logs_of_a_build_that_failed_can_be_read(daytona_cloud: FakeDaytona) -> None:
    from tests.extensions.daytona.harness import spec

    handle = DaytonaExtension().provision(spec(options={"image": "broken:1"}), context(daytona_cloud))
    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    DaytonaExtension().logs(handle, streams, context(daytona_cloud), service=None, follow=False, tail=1)
    assert bytes(out) == b"manifest unknown\n"


def test_a_toolbox_that_gives_up_waiting_is_asked_again_until_the_command_ends(
    shared: FakeDaytona, handle: Handle
) -> None:
    late = {"statusCode": 408, "message": "command execution timeout"}
    shared.script.add(Fault(match=EXECUTE, kind="status", status=408, body=late, skip=1, times=2))
    assert run(shared, handle, "sh", "-c", "echo one; sleep 1; echo two; exit 3") == (3, b"one\ntwo\n", b"")


def test_a_toolbox_that_gives_up_waiting_for_ever_ends_at_the_deadline_with_the_output(
    shared: FakeDaytona, handle: Handle
) -> None:
    late = {"statusCode": 408, "message": "command execution timeout"}
    shared.script.add(Fault(match=EXECUTE, kind="status", status=408, body=late, skip=1, times=4))
    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    with pytest.raises(Timeout) as caught:
        DaytonaExtension().exec(
            handle, Exec(argv=("sh", "-c", "echo so far; exec sleep 60")), streams, context(shared, seconds=2)
        )
    assert (caught.value.exit_code, bytes(out)) == (124, b"so far\n")
    shared.script.clear()
