"""Commands inside: inputs, ends, and what is left when something breaks."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import threading
import time
from typing import Any

import msgspec
import pytest

from sandboxer.errors import BackendError, Conflict, Denied, Invalid, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import Exec
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.extensions.e2b.handle import sandbox_data
from sandboxer.extensions.shell.processes import KILL_TREE
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle
from sandboxer.secrets import Secret
from tests.extensions.e2b.harness import context, made, spec
from tests.fakes import Fault
from tests.fakes.e2b import FakeE2B
from tests.testbed.waiting import eventually

START = "POST /process.Process/Start"


class Ran:
    """What a command said and how it ended."""

    def __init__(self, fake: FakeE2B, handle: Handle, *argv: str, **more: Any) -> None:
        self.out, self.err = bytearray(), bytearray()
        seconds = more.pop("seconds", 20.0)
        streams = Streams(stdin=more.pop("stdin", None), stdout=self.out.extend, stderr=self.err.extend)
        extension = more.pop("extension", None) or E2BExtension()
        self.code = extension.exec(handle, Exec(argv=argv, **more), streams, context(fake, seconds=seconds))


@pytest.fixture(scope="module")
def handle(shared: FakeE2B) -> Handle:
    return made(shared)


def alive(fake: FakeE2B, handle: Handle, word: str) -> bool:
    """Whether a process with this word in its arguments runs inside."""
    script = 'for d in /proc/[0-9]*; do tr "\\0" " " <$d/cmdline; echo; done 2>/dev/null'
    return word.encode() in Ran(fake, handle, "sh", "-c", script).out


def test_a_time_out_ends_also_what_has_left_its_parents(shared: FakeE2B, handle: Handle) -> None:
    """Promise 22: no stray process stays. The shell in between has gone, and its child belongs to nobody."""
    with pytest.raises(Timeout, match="was ended"):
        Ran(shared, handle, "sh", "-c", "(sleep 4321 & sleep 4321 & exit 0); exec sleep 4321", seconds=1.0)
    assert not alive(shared, handle, "sleep 4321")


def test_a_planted_orphan_in_a_session_of_its_own_is_seen(shared: FakeE2B, handle: Handle) -> None:
    """The look above is not blind: who leaves the session on purpose stays, and is seen."""
    with pytest.raises(Timeout):
        Ran(shared, handle, "sh", "-c", "setsid setsid sleep 4322 & sleep 60", seconds=1.0)
    seen = alive(shared, handle, "sleep 4322")
    Ran(shared, handle, "sh", "-c", "pkill -f 'sleep 4322' || true")
    assert seen


@pytest.mark.parametrize("number", ["0", "1", "-1", "", "x"])
def test_the_end_of_everything_is_refused(shared: FakeE2B, handle: Handle, number: str) -> None:
    assert Ran(shared, handle, "sh", "-c", KILL_TREE, "sh", number).code == 2


def test_an_interrupt_ends_the_command(shared: FakeE2B, handle: Handle) -> None:
    def interrupt(_chunk: bytes) -> None:
        raise KeyboardInterrupt

    streams = Streams(stdout=interrupt, stderr=interrupt)
    with pytest.raises(KeyboardInterrupt):
        E2BExtension().exec(handle, Exec(argv=("sh", "-c", "echo go; exec sleep 4323")), streams, context(shared))
    assert not alive(shared, handle, "sleep 4323")


def test_a_broken_stream_is_told_and_the_command_ended(shared: FakeE2B, handle: Handle) -> None:
    shared.script.add(Fault(match=START, kind="truncate"))
    with pytest.raises((Unavailable, BackendError)) as caught:
        Ran(shared, handle, "sh", "-c", "exec sleep 4324")
    assert caught.value.outcome == "unknown"
    assert not alive(shared, handle, "sleep 4324")


def test_a_command_ends_by_envds_own_time_when_we_are_gone(shared: FakeE2B, handle: Handle) -> None:
    Ran(shared, handle, "true", seconds=10)
    told = int(shared.asked(START)[-1].headers["connect-timeout-ms"])
    assert 10_000 < told < 45_000


def test_an_input_of_megabytes_arrives(shared: FakeE2B, handle: Handle) -> None:
    data = os.urandom(3 << 20)
    ran = Ran(shared, handle, "cat", stdin=io.BytesIO(data))
    assert (ran.code, ran.out == data) == (0, True)


def test_an_input_that_comes_bit_by_bit_is_answered_bit_by_bit(shared: FakeE2B, handle: Handle) -> None:
    reading, writing = os.pipe()
    seen = threading.Event()
    out = bytearray()

    def take(chunk: bytes) -> None:
        out.extend(chunk)
        seen.set()

    def type_() -> None:
        os.write(writing, b"one\n")
        seen.wait(10)
        os.write(writing, b"two\n")
        os.close(writing)

    threading.Thread(target=type_, daemon=True).start()
    with open(reading, "rb", buffering=0) as source:
        streams = Streams(stdin=source, stdout=take, stderr=take)
        code = E2BExtension().exec(handle, Exec(argv=("cat",)), streams, context(shared))
    assert (code, bytes(out)) == (0, b"one\ntwo\n")


def test_who_does_not_read_its_input_is_not_waited_for(shared: FakeE2B, handle: Handle) -> None:
    started = time.monotonic()
    assert Ran(shared, handle, "true", stdin=io.BytesIO(bytes(5 << 20))).code == 0
    reading, writing = os.pipe()  # nobody ever writes to it
    with open(reading, "rb", buffering=0) as source:
        assert Ran(shared, handle, "sh", "-c", "exit 4", stdin=source).code == 4
    os.close(writing)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("envd", ["0.2.8", "0.3.9", "0.4.1", "0.5.1", "0.5.6"])
def test_an_older_envd_gets_what_it_understands(envd: str) -> None:
    with FakeE2B(envd_version=envd) as fake:
        handle = made(fake)
        data = bytes(range(256)) * 1000
        ran = Ran(fake, handle, "sh", "-c", "cat; ls -A /tmp >&2", stdin=io.BytesIO(data))
        assert (ran.code, ran.out == data, bytes(ran.err)) == (0, True, b"")
        assert Ran(fake, handle, "sh", "-c", "read x; echo $?").out == b"1\n"


def test_without_an_input_there_is_none(shared: FakeE2B, handle: Handle) -> None:
    assert Ran(shared, handle, "cat").code == 0


def test_a_terminal_is_one(shared: FakeE2B, handle: Handle) -> None:
    ran = Ran(shared, handle, "sh", "-c", "test -t 0 && test -t 1 && stty size; exit 6", tty=True)
    assert ran.code == 6
    assert ran.out.split() == [b"24", b"80"]


def test_keys_reach_a_terminal(shared: FakeE2B, handle: Handle) -> None:
    ran = Ran(shared, handle, "sh", "-c", "read line; echo got $line", tty=True, stdin=io.BytesIO(b"key\n"))
    assert b"got key" in ran.out


def test_a_directory_that_is_not_there_is_126(shared: FakeE2B, handle: Handle) -> None:
    assert Ran(shared, handle, "true", cwd="/no/such").code == 126
    assert Ran(shared, handle, "pwd", cwd="-P").code == 126
    assert Ran(shared, handle, "sh", "-c", "mkdir -p sub && cd sub && pwd").out == b"/home/user/sub\n"
    assert Ran(shared, handle, "pwd", cwd="sub").out == b"/home/user/sub\n"


def test_a_program_whose_name_looks_like_an_option_is_not_one(shared: FakeE2B, handle: Handle) -> None:
    assert Ran(shared, handle, "-a").code == 127


def test_an_argument_that_no_program_can_be_given_is_refused(shared: FakeE2B, handle: Handle) -> None:
    with pytest.raises(Invalid):
        Ran(shared, handle, "echo", "a\0b")


def test_a_service_is_refused(shared: FakeE2B, handle: Handle) -> None:
    with pytest.raises(Invalid, match="services"):
        Ran(shared, handle, "true", service="web")


def test_environment_values_are_in_no_argument(shared: FakeE2B, handle: Handle) -> None:
    """Promise 28."""
    ran = Ran(shared, handle, "sh", "-c", 'tr "\\0" " " </proc/$$/cmdline; echo "$CANARY"', env={"CANARY": "c4n4ry"})
    assert bytes(ran.out).count(b"c4n4ry") == 1


def test_a_variable_of_the_profile_is_there_for_every_command(fake: FakeE2B) -> None:
    handle = made(fake, options={"env": {"FROM_PROFILE": "x y"}})
    assert Ran(fake, handle, "sh", "-c", "echo $FROM_PROFILE").out == b"x y\n"


def test_commands_run_as_the_user_of_the_profile(fake: FakeE2B) -> None:
    handle = made(fake, options={"user": "root"})
    assert Ran(fake, handle, "sh", "-c", "echo $USER $HOME").out == b"root /root\n"


def stale(extension: E2BExtension) -> None:
    """Spoil the token that an extension knows."""
    (mark,) = extension._accesses._known
    known = extension._accesses._known[mark]
    extension._accesses._known[mark] = msgspec.structs.replace(known, token=Secret("stale"))


def test_a_token_that_is_not_valid_any_more_is_asked_for_again(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = made(fake, extension=extension)
    stale(extension)
    assert Ran(fake, handle, "true", extension=extension).code == 0


def test_an_archive_that_was_sent_with_a_stale_token_is_not_sent_as_an_empty_one(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = made(fake, extension=extension)
    stale(extension)
    with pytest.raises(Denied):
        extension.put_archive(handle, "there", io.BytesIO(b"\0" * 10240), context(fake))
    extension.put_archive(handle, "there", io.BytesIO(b"\0" * 10240), context(fake))


def test_a_sandbox_that_has_ended_is_told_so(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = made(fake, extension=extension)
    fake.estate.end(fake.estate.sandboxes[sandbox_data(handle).id])
    for use in (extension, E2BExtension()):
        with pytest.raises(Conflict) as caught:
            Ran(fake, handle, "true", extension=use)
        assert "reconcile" in caught.value.hint


def test_a_sandbox_that_is_paused_is_told_so(fake: FakeE2B) -> None:
    handle = made(fake)
    E2BExtension().stop(handle, context(fake))
    with pytest.raises(Conflict, match="paused"):
        Ran(fake, handle, "true")


def test_an_envd_that_comes_up_late_is_waited_for(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = extension.provision(spec(), context(fake))
    body = {"message": "The sandbox is running but port is not open", "code": 502}
    fake.script.add(Fault(match="GET /health", kind="status", status=502, body=body, times=7))
    assert extension.wait_ready(handle, context(fake)).reachability.provider_id == sandbox_data(handle).id


def test_an_envd_that_never_comes_up_ends_with_the_deadline(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = extension.provision(spec(), context(fake))
    fake.script.add(Fault(match="GET /health", kind="hang", times=None))
    with pytest.raises((Timeout, Unavailable)):
        extension.wait_ready(handle, context(fake, seconds=1.5))


def test_a_template_with_less_than_declared_fails_the_create(fake: FakeE2B) -> None:
    with pytest.raises(BackendError, match="declares 8"):
        made(fake, options={"vcpu": 8})


def test_what_is_ready_says_how_it_is_reached(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = made(fake, options={"ports": [8080], "template": "large"})
    ready = extension.wait_ready(handle, context(fake))
    assert ready.reachability.command == f"sandboxer exec {sandbox_data(handle).sandbox_id} -- sh"
    assert ready.resources is not None
    assert (ready.resources.vcpu, ready.resources.memory_gib) == (8, 4)
    assert ready.isolation.class_ == "remote", "of a server that is not E2B's own, nothing is claimed"
    assert ready.reachability.services == [], "nor are addresses made up for it"


@pytest.fixture(scope="module")
def crowd(shared: FakeE2B) -> Handle:
    return made(shared)


def test_many_commands_at_once_do_not_mix(shared: FakeE2B, crowd: Handle) -> None:
    wrong: list[str] = []

    def one(number: int) -> None:
        ran = Ran(shared, crowd, "sh", "-c", f"seq {number} {number + 500}; exit {number % 200}")
        if ran.code != number % 200 or ran.out.split() != [b"%d" % n for n in range(number, number + 501)]:
            wrong.append(f"{number}: {ran.code}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_logs_are_the_sandboxs_own(fake: FakeE2B) -> None:
    extension, handle = E2BExtension(), made(fake)
    Ran(fake, handle, "sh", "-c", "echo first; sleep 0.05; echo second")

    def logs(tail: int | None) -> list[bytes]:
        out = bytearray()
        streams = Streams(stdout=out.extend, stderr=out.extend)
        extension.logs(handle, streams, context(fake), service=None, follow=False, tail=tail)
        return bytes(out).splitlines()

    assert eventually(lambda: any(b"Process ended" in line for line in logs(None)), within=5, what="the log")
    everything = logs(None)
    assert [line.rsplit(b" ", 1)[-1] for line in everything if b"info first" in line or b"info second" in line] == [
        b"first",
        b"second",
    ]
    assert logs(2) == everything[-2:]
    assert logs(0) == []


def test_a_log_of_thousands_of_entries_is_read_to_its_end(fake: FakeE2B) -> None:
    extension, handle = E2BExtension(), made(fake)
    sandbox = fake.estate.sandboxes[sandbox_data(handle).id]
    for number in range(2500):
        sandbox.log(f"entry {number}")
    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    extension.logs(handle, streams, context(fake), service=None, follow=False, tail=None)
    entries = [line.rsplit(b" ", 1)[-1] for line in bytes(out).splitlines() if b"entry " in line]
    assert entries == [b"%d" % number for number in range(2500)]


def test_a_followed_log_goes_on_until_the_end_of_its_time(fake: FakeE2B) -> None:
    extension, handle = E2BExtension(), made(fake)
    sandbox = fake.estate.sandboxes[sandbox_data(handle).id]
    out = bytearray()

    def take(chunk: bytes) -> None:
        if b"later" not in out:
            sandbox.log("later")
        out.extend(chunk)

    with pytest.raises(Timeout):
        extension.logs(
            handle, Streams(stdout=take, stderr=take), context(fake, seconds=2.5), service=None, follow=True, tail=1
        )
    assert bytes(out).count(b"later") >= 1


def test_a_log_of_nothing_is_an_error(fake: FakeE2B) -> None:
    extension, handle = E2BExtension(), made(fake)
    extension.teardown(handle, context(fake))
    with pytest.raises(SandboxerError):
        extension.logs(
            handle, Streams(stdout=print, stderr=print), context(fake), service=None, follow=False, tail=None
        )


def test_what_is_copied_out_is_not_written_to_the_log(fake: FakeE2B) -> None:
    """Promise 28: E2B's log holds what commands write, and files are not to stand in it."""
    extension, handle = E2BExtension(), made(fake)
    Ran(fake, handle, "sh", "-c", "cat >kept", stdin=io.BytesIO(b"c4n4ry of the file"))
    sink = bytearray()
    extension.get_archive(handle, "kept", sink.extend, context(fake))
    assert b"c4n4ry" in sink
    assert Ran(fake, handle, "sh", "-c", "ls -A /tmp").out == b"", "nothing of ours stays inside"
    assert "c4n4ry" not in str(fake.estate.sandboxes[sandbox_data(handle).id].logs)


def test_a_copy_out_that_breaks_off_leaves_nothing_inside(fake: FakeE2B) -> None:
    extension, handle = E2BExtension(), made(fake)
    Ran(fake, handle, "sh", "-c", "head -c 1000000 /dev/urandom >kept")
    fake.script.add(Fault(match="GET /files", kind="truncate"))
    with pytest.raises(SandboxerError):
        extension.get_archive(handle, "kept", bytearray().extend, context(fake))
    assert Ran(fake, handle, "sh", "-c", "ls -A /tmp").out == b""


def test_a_hundred_megabytes_go_in_and_come_out(fake: FakeE2B) -> None:
    extension, handle = E2BExtension(), made(fake)
    data = os.urandom(1 << 20) * 100
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("big")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    packed.seek(0)
    extension.put_archive(handle, "there", packed, context(fake))
    size = 0

    def count(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)

    extension.get_archive(handle, "there/big", count, context(fake))
    assert size >= len(data)
    assert Ran(fake, handle, "sh", "-c", "wc -c <there/big").out.strip() == str(len(data)).encode()


def stream(*messages: dict[str, Any], error: str | None = None) -> Fault:
    """What envd answers to the next start: these events, and how the stream ends."""
    last = {"error": {"code": error, "message": "context deadline exceeded"}} if error else {}
    framed = [(0, {"event": message}) for message in messages] + [(2, last)]
    body = b"".join(struct.pack(">BI", flags, len(raw := msgspec.json.encode(said))) + raw for flags, said in framed)
    return Fault(
        match=START, kind="status", status=200, body=body, headers={"content-type": "application/connect+json"}
    )


def test_a_stream_that_ends_because_its_time_is_over_is_a_timeout_with_the_output(
    shared: FakeE2B, handle: Handle
) -> None:
    out = bytearray()
    shared.script.add(stream({"start": {"pid": 4}}, {"data": {"stdout": b"so far\n"}}, error="deadline_exceeded"))
    streams = Streams(stdout=out.extend, stderr=out.extend)
    with pytest.raises(Timeout) as caught:
        E2BExtension().exec(handle, Exec(argv=("make",)), streams, context(shared))
    assert (caught.value.exit_code, bytes(out)) == (124, b"so far\n")


def test_a_start_that_is_refused_because_its_time_is_over_is_a_timeout(shared: FakeE2B, handle: Handle) -> None:
    body = {"code": "deadline_exceeded", "message": "context deadline exceeded"}
    shared.script.add(Fault(match=START, kind="status", status=504, body=body))
    with pytest.raises(Timeout):
        Ran(shared, handle, "true")
