"""Commands, files, logs and ports inside a sandbox, beyond what the conformance suite asks."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import pytest

from sandboxer.errors import BackendError, Conflict, Invalid, SandboxerError, Timeout
from sandboxer.extensions.base import Exec
from sandboxer.extensions.modal import ModalExtension
from sandboxer.extensions.modal import exec as modal_exec
from sandboxer.extensions.modal.event_loop import bridge
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle
from sandboxer.timing import Deadline
from tests.extensions.modal.harness import context, made, run
from tests.fakes import Fault
from tests.fakes.modal import FakeModal
from tests.testbed.waiting import eventually

ROUTER = "POST /modal.task_command_router.TaskCommandRouter"
EXTENSION = ModalExtension()
MANY = os.urandom(5 * 1024 * 1024)


@pytest.fixture(scope="module")
def handle(cloud: FakeModal) -> Iterator[Handle]:
    box = made(cloud, command=["sh", "-c", "echo started; echo oops >&2; echo $GREETING"], env={"GREETING": "hello"})
    yield box
    EXTENSION.teardown(box, context(cloud))


def test_megabytes_go_in_and_out_byte_for_byte(clean: FakeModal, handle: Handle) -> None:
    code, out, err = run(clean, handle, "cat", stdin=MANY)
    assert (code, out == MANY, err) == (0, True, b"")


def test_an_input_that_is_not_known_beforehand_arrives_and_ends(clean: FakeModal, handle: Handle) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as source, open(writing, "wb") as sink:

        def feed() -> None:
            sink.write(MANY)
            sink.close()

        writer = threading.Thread(target=feed)
        writer.start()
        out = bytearray()
        streams = Streams(stdin=source, stdout=out.extend, stderr=out.extend)
        assert EXTENSION.exec(handle, Exec(argv=("cat",)), streams, context(clean)) == 0
        writer.join()
    assert bytes(out) == MANY


def test_a_command_that_takes_no_input_ends_though_there_is_one(clean: FakeModal, handle: Handle) -> None:
    assert run(clean, handle, "true", stdin=MANY)[0] == 0


def test_an_open_input_does_not_keep_a_command_that_has_ended(clean: FakeModal, handle: Handle) -> None:
    reading, writing = os.pipe()
    started = time.monotonic()
    with open(reading, "rb") as source:
        out = bytearray()
        streams = Streams(stdin=source, stdout=out.extend, stderr=out.extend)
        assert EXTENSION.exec(handle, Exec(argv=("echo", "done")), streams, context(clean)) == 0
        assert time.monotonic() - started < 30
        os.close(writing)
    assert bytes(out) == b"done\n"


def test_what_a_command_leaves_running_does_not_hold_it_up(clean: FakeModal, handle: Handle) -> None:
    started = time.monotonic()
    code, out, _ = run(clean, handle, "sh", "-c", "echo out; sleep 60 & exit 4")
    assert (code, out) == (4, b"out\n")
    assert time.monotonic() - started < 30


def test_a_command_that_writes_a_lot_waits_for_a_slow_reader_and_loses_nothing(
    clean: FakeModal, handle: Handle
) -> None:
    seen = bytearray()
    pause = threading.Event()

    def slow(chunk: bytes) -> None:
        pause.wait(0.01)
        seen.extend(chunk)

    streams = Streams(stdout=slow, stderr=slow)
    script = "head -c 3000000 /dev/zero | tr '\\0' x"
    assert EXTENSION.exec(handle, Exec(argv=("sh", "-c", script)), streams, context(clean)) == 0
    assert bytes(seen) == b"x" * 3_000_000


def test_a_reader_that_fails_kills_the_command_and_its_children(clean: FakeModal, handle: Handle) -> None:
    def refuse(_chunk: bytes) -> None:
        raise Conflict("nobody wants it")

    streams = Streams(stdout=refuse, stderr=refuse)
    with pytest.raises(Conflict):
        EXTENSION.exec(handle, Exec(argv=("sh", "-c", "echo x; sleep 333 & wait")), streams, context(clean))
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    eventually(lambda: b"sleep 333" not in run(clean, handle, "sh", "-c", look)[1], within=5, what="it is killed")


def test_a_command_that_is_not_wanted_any_more_before_it_has_told_its_process_is_killed(
    clean: FakeModal, handle: Handle
) -> None:
    clean.script.add(Fault(match=f"{ROUTER}/TaskExecStdioRead", kind="slow", seconds=1.5, times=2))
    streams = Streams(stdout=lambda _: None, stderr=lambda _: None)
    with pytest.raises(Timeout):
        EXTENSION.exec(handle, Exec(argv=("sleep", "444")), streams, context(clean, seconds=1))
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    eventually(lambda: b"sleep 444" not in run(clean, handle, "sh", "-c", look)[1], within=5, what="it is killed")


def test_a_cancelled_deadline_ends_a_command_within_a_moment(clean: FakeModal, handle: Handle) -> None:
    deadline = Deadline(60)
    threading.Timer(0.5, deadline.cancel).start()
    streams = Streams(stdout=lambda _: None, stderr=lambda _: None)
    started = time.monotonic()
    with pytest.raises(Timeout):
        EXTENSION.exec(handle, Exec(argv=("sleep", "99")), streams, context(clean, deadline=deadline))
    assert time.monotonic() - started < 30


def test_a_connection_that_breaks_in_the_middle_is_taken_up_again(clean: FakeModal, handle: Handle) -> None:
    clean.script.add(
        Fault(match=f"{ROUTER}/TaskExecStdioRead", kind="truncate", times=2),
        Fault(match=f"{ROUTER}/TaskExecStart", kind="lost-answer"),
        Fault(match=f"{ROUTER}/TaskExecStdinWrite", kind="lost-answer"),
    )
    code, out, _ = run(clean, handle, "cat", stdin=MANY[:1_000_000])
    assert (code, out == MANY[:1_000_000]) == (0, True)
    assert len(clean.script.struck) >= 3


def test_a_worker_that_is_gone_is_an_error_not_an_exit_code(clean: FakeModal) -> None:
    box = made(clean)
    EXTENSION.teardown(box, context(clean))
    with pytest.raises(SandboxerError) as caught:
        run(clean, box, "true")
    assert caught.value.hint


def test_a_sandbox_that_ends_under_a_command_takes_it_along(clean: FakeModal) -> None:
    box = made(clean, ttl=1.5)
    try:
        assert run(clean, box, "sleep", "60", seconds=20)[0] == 137
    except SandboxerError as error:  # the worker may be gone before it can tell
        assert not isinstance(error, Timeout)
    EXTENSION.teardown(box, context(clean))


def test_arguments_that_are_too_long_are_refused_with_a_way_out(clean: FakeModal, handle: Handle) -> None:
    with pytest.raises(Invalid) as caught:
        run(clean, handle, "echo", "x" * 70_000)
    assert "stdin" in caught.value.hint


def test_a_directory_that_is_not_there_is_told_by_the_shell(clean: FakeModal, handle: Handle) -> None:
    code, out, err = run(clean, handle, "pwd", cwd="/not/there")
    assert (code, out) == (126, b"")
    assert b"/not/there" in err


def test_environment_values_are_not_in_any_argument_list(clean: FakeModal, handle: Handle) -> None:
    """Promise 28."""
    script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; echo; echo \"$CANARY\""
    code, out, _ = run(clean, handle, "sh", "-c", script, env={"CANARY": "sing-a-song"})
    assert code == 0
    assert out.count(b"sing-a-song") == 1
    starts = [call for call in clean.calls if call.method == "TaskExecStart"]
    assert not any("sing-a-song" in word for call in starts for word in call.message.command_args)


def test_a_terminal_is_one_with_everything_on_stdout(clean: FakeModal, handle: Handle) -> None:
    code, out, err = run(clean, handle, "sh", "-c", "test -t 0 && test -t 1 && echo yes; echo err >&2", tty=True)
    assert code == 0
    assert (b"yes" in out, b"err" in out, err) == (True, True, b"")


def test_the_logs_are_what_its_own_program_wrote(clean: FakeModal, handle: Handle) -> None:
    def logged(*, tail: int | None) -> tuple[bytes, bytes]:
        out, err = bytearray(), bytearray()
        streams = Streams(stdout=out.extend, stderr=err.extend)
        EXTENSION.logs(handle, streams, context(clean), service=None, follow=False, tail=tail)
        return bytes(out), bytes(err)

    eventually(lambda: logged(tail=None) == (b"started\nhello\n", b"oops\n"), within=5, what="the log")
    assert sum(map(len, logged(tail=1))) < 10
    assert logged(tail=0) == (b"", b"")


@pytest.mark.parametrize("gpu", [None, "T4"])
def test_logs_can_be_followed_until_the_sandbox_ends(clean: FakeModal, gpu: str | None) -> None:
    box = made(clean, ttl=1.5, command=["sh", "-c", "echo one; sleep 0.3; echo two"], gpu=gpu)
    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    EXTENSION.logs(box, streams, context(clean), service=None, follow=True, tail=None)
    assert bytes(out) == b"one\ntwo\n"
    EXTENSION.teardown(box, context(clean))


def test_following_ends_with_the_deadline(clean: FakeModal, handle: Handle) -> None:
    streams = Streams(stdout=lambda _: None, stderr=lambda _: None)
    with pytest.raises(Timeout):
        EXTENSION.logs(handle, streams, context(clean, seconds=1), service=None, follow=True, tail=None)


def test_ports_are_told_as_services(clean: FakeModal) -> None:
    box = made(clean, ports=[8080, 9090])
    services = EXTENSION.wait_ready(box, context(clean)).reachability.services
    assert [(one.name, one.container_port, one.url) for one in services] == [
        ("port-8080", 8080, "https://127.0.0.1:8080"),
        ("port-9090", 9090, "https://127.0.0.1:9090"),
    ]
    EXTENSION.teardown(box, context(clean))


def test_a_broken_archive_or_place_is_told(clean: FakeModal, handle: Handle) -> None:
    with pytest.raises(BackendError) as caught:
        EXTENSION.put_archive(handle, "/tmp/x", io.BytesIO(b"this is no archive" * 100), context(clean))
    assert caught.value.hint
    with pytest.raises(Invalid):
        EXTENSION.get_archive(handle, "/", lambda _: None, context(clean))
    with pytest.raises(Invalid, match="service"):
        EXTENSION.path_kind(handle, "/tmp", context(clean), service="web")


@pytest.mark.parametrize(
    ("path", "top"), [(".", "here"), ("./deep", "deep"), ("/tmp/here/deep/", "deep"), ("..", "tmp")]
)
def test_places_are_taken_out_by_their_own_name(clean: FakeModal, path: str, top: str) -> None:
    box = made(clean, workdir="/tmp/here")
    run(clean, box, "sh", "-c", "mkdir -p deep && echo x > deep/file")
    packed = bytearray()
    EXTENSION.get_archive(box, path, packed.extend, context(clean))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {top}
    EXTENSION.teardown(box, context(clean))


class LateProcess:
    """A process of the SDK whose time is over: its streams end, and it waits for -1."""

    def __init__(self) -> None:
        self.stdout, self.stderr = _chunks(b"12\nso far\n"), _chunks()
        self.wait = SimpleNamespace(aio=self._wait)

    async def _wait(self) -> int:
        return -1


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def test_a_command_whose_time_is_over_by_the_sdks_clock_is_a_timeout_with_the_output() -> None:
    async def start(*_words: str, **_more: object) -> LateProcess:
        return LateProcess()

    async def find() -> object:
        return SimpleNamespace(exec=SimpleNamespace(aio=start))

    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    running = modal_exec.RunningCommand(bridge(), find, Exec(argv=("make",)), streams)
    with pytest.raises(Timeout) as caught:
        running.run(Deadline(20))
    assert (caught.value.exit_code, bytes(out)) == (124, b"so far\n")
