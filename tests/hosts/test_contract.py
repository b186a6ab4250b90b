"""What both kinds of host promise."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxer.cli.signals import Signalled
from sandboxer.errors import BackendError, Denied, Invalid, NotConfigured, SandboxerError, Timeout
from sandboxer.hosts.base import Command, Host, Result, Streams
from sandboxer.hosts.process.session import UNREAD, TrailingOutput
from sandboxer.timing import Deadline
from tests.hosts.conftest import settings_for
from tests.testbed import processes
from tests.testbed.interrupts import installed
from tests.testbed.processes import MARK
from tests.testbed.sshd import Sshd
from tests.testbed.waiting import eventually

SLOW_FIXTURE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def soon() -> Deadline:
    return Deadline(60)


def nowhere(data: bytes) -> None:
    pass


def running(mark: str) -> list[processes.Process]:
    """Processes with this word in their command line, ourselves apart."""
    ours = processes.ancestors()
    return [p for p in processes.everyone() if p.pid not in ours and mark in p.command]


def gone(mark: str) -> None:
    eventually(lambda: not running(mark), within=60, what=f"{mark} to be gone")


def sleeping(seconds: str) -> str:
    """A program with children, one of them in a process group of its own; each shows `seconds` in its words."""
    return f"sleep {seconds} & setsid sh -c : ; set -m; sleep {seconds} & sleep {seconds}"


def test_outputs_stay_apart_and_the_code_is_the_programs_own(host: Host) -> None:
    result = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], soon())
    assert (result.code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")


def test_codes_tell_what_kept_a_program_from_running(host: Host, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    assert host.run(["no-such-program"], soon()).code == 127
    assert host.run([str(tmp_path / "plain")], soon()).code == 126
    assert host.run(["true"], soon(), cwd=str(tmp_path / "none")).code == 126


def test_a_signal_is_told_as_128_and_its_number(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -TERM $$"], soon()).code == 143
    assert host.run(["sh", "-c", "kill -KILL $$"], soon()).code == 137


def test_binary_input_of_any_size_comes_back_unchanged(host: Host) -> None:
    data = os.urandom(1 << 20) + bytes(range(256))
    assert host.run(["cat"], soon(), stdin=data).stdout == data
    assert host.run(["cat"], soon()).stdout == b""


def test_input_nobody_reads_is_no_error(host: Host) -> None:
    assert host.run(["true"], soon(), stdin=b"x" * (1 << 21)).code == 0


def test_an_input_that_never_ends_does_not_outlive_the_program(host: Host) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        sink.write(b"first\n")
        out: list[bytes] = []
        streams = Streams(stdin=source, stdout=out.append, stderr=nowhere)
        assert host.stream(Command(argv=["head", "-n1"]), streams, soon()) == 0
        assert b"".join(out) == b"first\n"
        sink.write(b"for the next reader\n")
        assert os.read(reading, 100) == b"for the next reader\n"


def test_the_environment_is_the_login_the_settings_and_the_commands_own(host: Host) -> None:
    result = host.run(["sh", "-c", "echo $OURS; echo ${HOME:?} >/dev/null"], soon(), env={"OURS": "a\nb"})
    assert (result.code, result.text) == (0, "a b")


def test_a_clean_environment_has_nothing_of_the_login(host: Host) -> None:
    out: list[bytes] = []
    command = Command(argv=["env"], env={"MINE": "1"}, clean_env=True)
    host.stream(command, Streams(stdout=out.append, stderr=nowhere), soon())
    names = {line.partition("=")[0] for line in b"".join(out).decode().splitlines()}
    assert names - {"PWD", "_"} <= {"PATH", "HOME", "LANG", "MINE"}
    assert {"PATH", "HOME", "MINE"} <= names


hostile = st.text(
    st.one_of(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), st.sampled_from("'\"\\\n\r$`;&|!~*\udcff")
    ),
    max_size=30,
)


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW_FIXTURE)
@given(words=st.lists(hostile, min_size=1, max_size=20), value=hostile, name=hostile, data=st.binary(max_size=300))
def test_hostile_strings_pass_byte_for_byte(
    host: Host, tmp_path_factory: pytest.TempPathFactory, words: list[str], value: str, name: str, data: bytes
) -> None:
    """Promise 24: as arguments, environment, working directory and input."""
    directory = tmp_path_factory.mktemp("cwd") / ("d" + name.replace("/", "_"))
    directory.mkdir()
    script = 'printf "%s\\n|" "$@" "$VALUE"; cat'
    result = host.run(["sh", "-c", script, "sh", *words], soon(), env={"VALUE": value}, cwd=str(directory), stdin=data)
    expected = b"".join(word.encode("utf-8", "surrogateescape") + b"\n|" for word in [*words, value])
    assert result.stdout == expected + data, result.stderr
    inside = host.run(["sh", "-c", ": >here"], soon(), cwd=str(directory))
    assert inside.code == 0
    assert (directory / "here").exists()


def test_a_command_that_looks_like_an_option_is_refused(host: Host) -> None:
    for argv in ([], [""], ["-rf"], ["ls", "a\0b"]):
        with pytest.raises(Invalid):
            host.run(argv, soon())


def test_the_deadline_ends_the_command_and_its_children(host: Host) -> None:
    """Promise 22: at the deadline, and nothing stays."""
    begun = time.monotonic()
    with pytest.raises(Timeout):
        host.run(["sh", "-c", sleeping(f"{MARK}001")], Deadline(1))
    assert time.monotonic() - begun < 30
    gone(f"{MARK}001")


def test_a_deadline_that_is_cancelled_ends_the_command(host: Host) -> None:
    deadline = soon()
    threading.Timer(0.5, deadline.cancel).start()
    with pytest.raises(Timeout):
        host.run(["sh", "-c", sleeping(f"{MARK}002")], deadline)
    gone(f"{MARK}002")


def test_a_sink_that_fails_ends_the_command(host: Host) -> None:
    def full(data: bytes) -> None:
        raise ValueError("the sink is full")

    with pytest.raises(ValueError, match="full"):
        host.stream(
            Command(argv=["sh", "-c", "echo x; " + sleeping(f"{MARK}003")]),
            Streams(stdout=full, stderr=nowhere),
            soon(),
        )
    gone(f"{MARK}003")


def test_a_source_that_fails_ends_the_command(host: Host) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ValueError("the source is broken")

    streams = Streams(stdin=Broken(), stdout=nowhere, stderr=nowhere)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="broken"):
        host.stream(Command(argv=["sh", "-c", sleeping(f"{MARK}004")]), streams, soon())
    gone(f"{MARK}004")


def test_too_much_output_is_an_error_that_names_the_limit(host: Host) -> None:
    with pytest.raises(BackendError, match="1000 bytes"):
        host.run(["sh", "-c", f"while :; do echo {MARK}005; done"], soon(), limit=1000)
    gone(f"echo {MARK}005")


def test_an_interrupt_ends_the_command_within_a_second(host: Host) -> None:
    begun = time.monotonic()
    threading.Timer(0.7, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        host.run(["sh", "-c", sleeping(f"{MARK}006")], soon())
    assert time.monotonic() - begun < 30
    gone(f"{MARK}006")


def test_an_interrupt_at_any_moment_leaves_no_program(host: Host) -> None:
    host.run(["true"], soon())  # what is imported and connected once is not what is looked at
    mark = f"{MARK}015" if host.name == "local" else f"{MARK}016"

    def run_for(milliseconds: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
        host.run(["sh", "-c", f"sleep {mark} & sleep {mark}"], soon())

    for moment in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 20, 25, 40):
        with installed(), pytest.raises(Signalled):
            run_for(moment)
    gone(mark)


def test_a_daemon_that_the_program_leaves_does_not_hold_us_up(host: Host) -> None:
    begun = time.monotonic()
    result = host.run(["sh", "-c", f"sleep {MARK}007 & echo started"], soon())
    assert result.text == "started"
    assert time.monotonic() - begun < 30
    assert len(running(f"{MARK}007")) == 1
    processes.end(running(f"{MARK}007"))


@pytest.mark.parametrize("word", ["echo 71017; sleep 0.2", "echo 71017"])
def test_a_daemon_that_goes_on_writing_does_not_hold_us_up(host: Host, word: str) -> None:
    """It did for ever, and past the deadline: only a second without a byte let us go."""
    begun = time.monotonic()
    streams = Streams(stdout=nowhere, stderr=nowhere)
    daemon = f"(while :; do {word}; done) & echo; exit 3"
    assert host.stream(Command(argv=["sh", "-c", daemon, f"{MARK}017"]), streams, Deadline(6)) == 3
    assert time.monotonic() - begun < 30
    processes.end(running(f"{MARK}017"))


def test_what_the_program_itself_wrote_is_waited_for_past_every_limit() -> None:
    """A reader of ours may be slow; pipes hold the rest."""
    for longest, deadline in ((0.0, Deadline(60)), (60.0, Deadline(0))):
        late = TrailingOutput(deadline, longest)
        late.begin()
        late.heard(UNREAD)
        assert not late.is_over
        late.heard(1)
        assert late.is_over
        late.begin()
        assert not late.is_over
        late.dry = True
        assert late.is_over


def test_running_commands_are_recorded_and_the_record_goes_with_them(host: Host, tmp_path: Path) -> None:
    track = tmp_path / "track"
    result = host.run(["ls", str(track)], soon(), track=str(track))
    assert len(result.text.split(".")) == 3
    assert list(track.iterdir()) == []
    assert track.stat().st_mode & 0o777 == 0o700


def test_a_tracked_command_does_not_bring_a_removed_sandbox_back(host: Host, tmp_path: Path) -> None:
    result = host.run(["echo", "ran"], soon(), track=str(tmp_path / "gone" / "track"))
    assert (result.code, result.stdout) == (126, b"")
    assert not (tmp_path / "gone").exists()


def test_another_thread_can_end_a_tracked_command(host: Host, tmp_path: Path) -> None:
    track = tmp_path / "track"
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(host.run(["sh", "-c", sleeping(f"{MARK}008")], soon(), track=str(track)).code)
    )
    thread.start()
    eventually(lambda: len(running(f"sleep {MARK}008")) >= 3, within=60, what="the command")
    assert host.end_tracked(str(track), soon()) == 1
    thread.join(5)
    assert codes == [137]
    gone(f"{MARK}008")
    assert host.end_tracked(str(track), soon()) == 0
    assert host.end_tracked(str(tmp_path / "never"), soon()) == 0


def test_a_record_of_another_process_ends_nothing(host: Host, tmp_path: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    child = subprocess.Popen(["sleep", f"{MARK}009"], start_new_session=True)
    found = processes.look(child.pid)
    assert found
    (tmp_path / f"{child.pid}.{found.start + 1}.{boot}").touch()
    (tmp_path / f"{child.pid}.{found.start}.00000000-0000-0000-0000-000000000000").touch()
    (tmp_path / "a note").touch()
    assert host.end_tracked(str(tmp_path), soon()) == 0
    assert child.poll() is None
    assert [path.name for path in tmp_path.iterdir()] == ["a note"]
    child.kill()
    child.wait()


def client(host: Host, sshd: Sshd, track: Path, mark: str) -> "subprocess.Popen[bytes]":
    """A process of its own that runs a long command on the host."""
    maker = "open_host('local')"
    if host.name != "local":
        s = settings_for(sshd)
        maker = (
            f"open_host('x', HostSettings(address={s.address!r}, user={s.user!r}, port={s.port!r}, "
            f"identity={s.identity!r}, known_hosts={s.known_hosts!r}))"
        )
    code = textwrap.dedent(f"""
        from sandboxer.hosts.factory import open_host
        from sandboxer.models import HostSettings
        from sandboxer.timing import Deadline
        {maker}.run(["sh", "-c", {f"sleep {mark} & sleep {mark}"!r}], Deadline(60), track={str(track)!r})
    """)
    return subprocess.Popen([sys.executable, "-c", code])


def test_after_a_killed_client_another_process_ends_the_command(host: Host, sshd: Sshd, tmp_path: Path) -> None:
    """Promise 22: no stray process stays. Here the session dies with the client; over there its record tells of it."""
    mark = f"{MARK}010" if host.name == "local" else f"{MARK}011"
    track = tmp_path / "track"
    victim = client(host, sshd, track, mark)
    # the client's own words have the command's in them
    wanted = f"sleep {mark}"
    eventually(lambda: [p.command for p in running(wanted)].count(wanted) == 2, within=60, what="the command")
    victim.kill()
    victim.wait(60)
    if host.name != "local":
        assert len(list(track.iterdir())) == 1
        assert host.end_tracked(str(track), soon()) == 1
    gone(f"sleep {mark}")
    eventually(lambda: not list(track.iterdir()), within=60, what="the record to go")


def test_a_started_program_outlives_us_with_its_input_and_log(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "a log"
    begun = time.monotonic()
    host.start(["sh", "-c", f"cat; echo ready; exec sleep {MARK}012"], soon(), stdin=b"input\n" * 20000, log=str(log))
    assert time.monotonic() - begun < 30
    eventually(lambda: log.exists() and log.read_text().endswith("ready\n"), within=60, what="the log")
    assert log.stat().st_size == 20000 * 6 + 6
    (found,) = running(f"sleep {MARK}012")
    descriptors = {int(fd.name): str(fd.readlink()) for fd in Path(f"/proc/{found.pid}/fd").iterdir()}
    assert set(descriptors) == {0, 1, 2}
    assert descriptors[1] == descriptors[2] == str(log)
    processes.end([found])


def test_a_started_program_ignores_no_signal(host: Host) -> None:
    host.start(["sleep", f"{MARK}013"], soon())
    (found,) = eventually(lambda: running(f"sleep {MARK}013"), within=60, what="the program")
    (line,) = [x for x in Path(f"/proc/{found.pid}/status").read_text().splitlines() if x.startswith("SigIgn")]
    ignored = int(line.split()[1], 16) & 0x7FFFFFFF  # glibc's posix_spawn ignores its own 32 and 33
    assert ignored == 0
    processes.end([found])


def test_starting_what_is_not_there_says_so(host: Host) -> None:
    with pytest.raises(NotConfigured, match="no-such-program"):
        host.start(["no-such-program"], soon())


def test_a_terminal_is_one_and_carries_input_and_output(host: Host) -> None:
    out: list[bytes] = []
    command = Command(
        argv=["sh", "-c", "test -t 0 && test -t 1 && read x && echo got=$x >&2"], tty=True, env={"A": "b"}
    )
    streams = Streams(stdin=io.BytesIO(b"hello\n"), stdout=out.append, stderr=nowhere)
    assert host.stream(command, streams, soon()) == 0
    assert b"got=hello\r\n" in b"".join(out)


def test_on_a_terminal_the_prelude_comes_by_descriptor_3(host: Host) -> None:
    out: list[bytes] = []
    command = Command(argv=["sh", "-c", "cat <&3"], tty=True, prelude=b"secret header\n" * 500)
    assert host.stream(command, Streams(stdout=out.append, stderr=nowhere), soon()) == 0
    assert b"".join(out) == b"secret header\r\n" * 500


def test_without_a_terminal_the_prelude_comes_before_the_input(host: Host) -> None:
    out: list[bytes] = []
    streams = Streams(stdin=io.BytesIO(b"then this"), stdout=out.append, stderr=nowhere)
    assert host.stream(Command(argv=["cat"], prelude=b"first, "), streams, soon()) == 0
    assert b"".join(out) == b"first, then this"


def test_a_terminal_command_ends_at_its_deadline_too(host: Host) -> None:
    with pytest.raises(Timeout):
        host.stream(
            Command(argv=["sh", "-c", f"trap : HUP TERM INT; sleep {MARK}014; sleep {MARK}014"], tty=True),
            Streams(stdout=nowhere, stderr=nowhere),
            Deadline(1.5),
        )
    gone(f"{MARK}014")


def test_files_are_written_whole_with_their_mode(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "new dir" / "it's -a\nfile"
    data = os.urandom(200_000)
    host.write_file(str(path), data, soon())
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    host.write_file(str(path), b"", soon(), mode=0o644)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"", 0o644)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_files_that_cannot_be_written_are_an_error(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    for path in ("file/below", "dir"):
        with pytest.raises(BackendError):
            host.write_file(str(tmp_path / path), b"x", soon())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dir", "file"]


def test_files_are_read_and_a_missing_one_is_none(host: Host, tmp_path: Path) -> None:
    (tmp_path / "-n").write_bytes(b"\0\xff")
    assert host.read_file(str(tmp_path / "-n"), soon()) == b"\0\xff"
    assert host.read_file(str(tmp_path / "none"), soon()) is None
    assert host.read_file(str(tmp_path / "-n" / "below"), soon()) is None
    with pytest.raises(BackendError):
        host.read_file(str(tmp_path), soon())
    (tmp_path / "long").write_bytes(bytes(2000))
    with pytest.raises(BackendError, match="1000"):
        host.read_file(str(tmp_path / "long"), soon(), limit=1000)


def test_the_work_directory_is_absolute(host: Host) -> None:
    assert host.work_dir(soon()) == f"{Path.home()}/.local/share/sandboxer/sandboxes"


@pytest.mark.parametrize(
    "verb",
    [
        lambda host, late: host.run(["true"], late),
        lambda host, late: host.start(["true"], late),
        lambda host, late: host.write_file("/tmp/never", b"", late),
        lambda host, late: host.read_file("/etc/passwd", late),
        lambda host, late: host.connect(late),
    ],
)
def test_nothing_begins_after_the_deadline(host: Host, verb: Callable[[Host, Deadline], object]) -> None:
    late = Deadline(5)
    late.cancel()
    with pytest.raises(SandboxerError) as caught:
        verb(host, late)
    assert not isinstance(caught.value, Denied)
    assert caught.value.retryable


def test_many_commands_at_once_all_come_back(host: Host) -> None:
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(host.run(["echo", str(n)], soon()).text)) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(int, results)) == list(range(20))


def test_a_deleted_current_directory_is_not_heard_of(tmp_path: Path) -> None:
    """The program starts at `/`, and its shell has nothing to say about it."""
    program = (
        "import os, sys; from sandboxer.hosts.local import LocalHost; from sandboxer.models import HostSettings; "
        "from sandboxer.timing import Deadline; os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); "
        "host = LocalHost('local', HostSettings()); "
        "print([host.run(argv, Deadline(60)) for argv in (['/bin/pwd'], ['sh', '-c', 'pwd; echo $PWD'])], "
        "host.run(['sh', '-c', 'pwd; echo $PWD'], Deadline(60), cwd='/usr'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "gone")], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    at_root, elsewhere = [Result(0, b"/\n", b""), Result(0, b"/\n/\n", b"")], Result(0, b"/usr\n/usr\n", b"")
    assert done.stdout == f"{at_root} {elsewhere}\n"


def test_a_work_directory_that_no_record_could_hold_is_refused_before_it_is_used(host: Host, tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"home\xff")
    with pytest.raises(Invalid, match="is not written in UTF-8") as caught:
        host.check_place(str(place / "sandboxes"), Deadline(30))
    assert "work_dir" in str(caught.value.hint)
    assert not place.exists()
