"""The headers that carry commands: the words compared, and real shells made to run them."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import Invalid
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.process import launch
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.testbed import processes
from tests.testbed.waiting import eventually

SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=40).filter(
    lambda text: all(not 0xD800 <= ord(c) <= 0xDFFF or 0xDC80 <= ord(c) <= 0xDCFF for c in text)
)


def header(argv: list[str], *, env: dict[str, str] | None = None, cwd: str | None = None, clean: bool = False) -> bytes:
    """What a shell reads to run a command."""
    return launch.supervised(argv, env=env, cwd=cwd, clean_env=clean, token="T0", seconds=60)


def said(done: "subprocess.CompletedProcess[bytes]") -> bytes:
    """What the program wrote: behind the line that tells its leader."""
    first, _, rest = done.stdout.partition(b"\n")
    assert first.startswith(b"T0 ")
    return rest


def run(shell: list[str], header: bytes, rest: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*shell, "-c", launch.BOOT], input=header + rest, capture_output=True, timeout=20, check=False
    )


def test_a_header_is_one_line_that_execs_the_quoted_words() -> None:
    own_session, line, end = header(["ls", "-l", "a b"]).split(b"\n")
    assert b"setsid" in own_session
    assert b"; PATH=$sbx_path; exec ls -l 'a b' ); " in line
    assert end == b""


def test_directory_and_environment_come_before_the_program() -> None:
    assert b" cd ./- || exit 126; export KEY='it'\"'\"'s'; exec env ); " in header(
        ["env"], env={"KEY": "it's"}, cwd="-"
    )


def test_a_newline_becomes_a_variable_so_that_the_header_stays_one_line() -> None:
    _, line, end = header(["echo", "a\nb"]).split(b"\n")
    assert line.startswith(b"sbx_nl=")
    assert b"; exec echo 'a'\"$sbx_nl\"'b' ); " in line
    assert end == b""


def test_a_clean_environment_is_a_line_of_its_own_without_any_value_of_ours() -> None:
    _, first, second, end = header(["env"], env={"SECRET": "canary"}, clean=True).split(b"\n")
    assert first.startswith(b"sbx_path=$PATH; PATH=/usr/local/sbin:")
    assert b'exec env -i PATH="$sbx_path" ' in first
    assert b"canary" not in first
    assert b"canary" in second
    assert end == b""


def test_the_boot_text_survives_every_login_shell() -> None:
    for boot in (launch.BOOT, launch.BOOT_FD3):
        assert not set(boot) & set("'!\\\n")


@pytest.mark.parametrize("argv", [[], [""], ["-c"], ["a", "b\0c"]])
def test_what_cannot_be_a_command_is_refused(argv: list[str]) -> None:
    with pytest.raises(Invalid):
        header(argv)


@pytest.mark.parametrize("env", [{"A-B": "x"}, {"": "x"}, {"A": "x\0"}, {"A;id": "x"}])
def test_what_cannot_be_an_environment_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        header(["env"], env=env)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@settings(max_examples=25, deadline=None)
@given(words=st.lists(anything, min_size=1, max_size=12), value=anything, rest=st.binary(max_size=200))
def test_any_words_and_values_reach_the_program_byte_for_byte(
    shell: list[str], words: list[str], value: str, rest: bytes
) -> None:
    """Promise 24: no command injection. Also what follows the header is the program's own, to the byte."""
    script = 'printf "%s\\n|" "$@"; printf "%s\\n|" "$VALUE"; cat'
    done = run(shell, header(["sh", "-c", script, "sh", *words], env={"VALUE": value}), rest)
    expected = b"".join(word.encode("utf-8", "surrogateescape") + b"\n|" for word in [*words, value])
    assert said(done) == expected + rest, done.stderr


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_shell_builtin_never_stands_in_for_the_program(shell: list[str]) -> None:
    assert run(shell, header(["cd", "/"])).returncode in (0, 127)
    assert run(shell, header(["exit", "3"])).returncode == 127
    assert run(shell, header(["sbx_end", "1", "0"])).returncode == 127


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_header_that_is_cut_off_runs_nothing(shell: list[str], tmp_path: Path) -> None:
    whole = header(["touch", str(tmp_path / "made")])
    assert run(shell, whole.rstrip(b"\n")).returncode != 0
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_arguments_beyond_100_kib_travel_by_stdin(shell: list[str]) -> None:
    words = [str(n) * 1000 for n in range(100, 160)]
    done = run(shell, header(["printf", "%s", *words]))
    assert said(done).decode() == "".join(words)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_supervised_program_runs_in_a_session_whose_leader_is_told(shell: list[str]) -> None:
    script = 'read -r a </proc/self/stat; a=${a##*) }; a=${a#* * * }; echo "${a%% *}"'
    done = run(shell, launch.supervised(["sh", "-c", script], token="T0", seconds=20))
    first, second = done.stdout.decode().splitlines()
    assert first.split()[:2] == ["T0", second]
    assert done.returncode == 0


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_a_supervised_program_keeps_its_code_and_tells_signals(shell: list[str], script: str, code: int) -> None:
    done = run(shell, launch.supervised(["sh", "-c", script], token="T0", seconds=20))
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_supervised_program_ends_itself_when_its_time_is_over(shell: list[str], tmp_path: Path) -> None:
    track = tmp_path / "track"
    argv = ["sh", "-c", "sleep 60 & sh -c 'sleep 60; true'; true"]
    # its own outputs end only when the whole session has
    done = subprocess.run(
        [*shell, "-c", launch.BOOT],
        input=launch.supervised(argv, token="T0", seconds=1, track=str(track)),
        capture_output=True,
        start_new_session=True,
        timeout=20,
        check=False,
    )
    assert done.returncode in (137, -9)
    eventually(lambda: not list(track.iterdir()), within=60, what="the record to go")


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_our_own_tools_are_the_systems_and_a_programs_are_those_of_the_login(
    tmp_path: Path, shell: list[str], clean: bool
) -> None:
    folder = _shadows(tmp_path)
    path = f"{folder}:{os.environ['PATH']}"
    track = tmp_path / "track"
    header = launch.supervised(["mine"], clean_env=clean, track=str(track), seconds=60, token="t")
    words = [*shell, "-c", launch.BOOT]
    done = subprocess.run(words, input=header, capture_output=True, timeout=60, check=False, env={"PATH": path})
    assert (done.returncode, done.stdout.splitlines()[1:]) == (7, [path.encode()]), done
    assert not (tmp_path / "ran").exists()
    assert list(track.iterdir()) == []


def test_a_local_leaders_tools_are_the_systems_too(tmp_path: Path) -> None:
    path = f"{_shadows(tmp_path)}:{os.environ['PATH']}"
    host = LocalHost("local", HostSettings(), environ={"PATH": path})
    done = host.run(["mine"], Deadline(60), track=str(tmp_path / "track"))
    assert (done.code, done.text) == (7, path)
    assert not (tmp_path / "ran").exists()


def test_a_program_is_started_for_good_by_the_systems_tools(tmp_path: Path) -> None:
    path = f"{_shadows(tmp_path)}:{os.environ['PATH']}"
    log = tmp_path / "log"
    words = [launch.SHELL, "-c", launch.START, "sh", str(log), "mine"]
    subprocess.run(words, stdin=subprocess.DEVNULL, env={"PATH": path}, timeout=60, check=True)
    eventually(lambda: log.exists() and log.read_text() == f"{path}\n", within=30, what="the program")
    assert not (tmp_path / "ran").exists()


def _shadows(tmp_path: Path) -> Path:
    """A folder with programs called like ours, and one called `mine`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env", "mkdir", "sleep", "rm", "setsid", "mktemp", "cat", "ls", "kill"):
        (folder / name).write_text(f"#!/bin/bash\necho {name} >>{tmp_path}/ran\n")
        (folder / name).chmod(0o755)
    (folder / "mine").write_text('#!/bin/bash\necho "$PATH"\nexit 7\n')
    (folder / "mine").chmod(0o755)
    return folder


def test_the_program_of_a_parent_that_died_is_ended_before_anything_is_searched(tmp_path: Path) -> None:
    """The search through /proc for the rest of the session takes its time on a busy machine."""
    searching = re.search(r"sbx_end\(\)\{.*?return 1; \}; ", launch.LOCAL)
    assert searching
    leader = launch.LOCAL.replace(searching[0], "sbx_end(){ :; }; ")  # one that finds nothing
    up = tmp_path / "up"
    argv = ["sh", "-c", 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 4000', "sh", str(up)]
    reading, writing = os.pipe()
    with subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$0" "$@" 3<&0 </dev/null', "/bin/sh", "-c", leader, "sh", "", "", "", "", "", *argv],
        stdin=reading,
        start_new_session=True,
    ) as process:
        try:
            os.close(reading)
            pid = int(eventually(lambda: up.exists() and up.read_text(), within=60, what="the program"))
            os.close(writing)
            eventually(lambda: processes.look(pid) is None, within=60, what="the program's end")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
