"""Services: started, supervised, settled, logged, and ended with the sandbox."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable

import pytest

from sandboxer.errors import BackendError, Invalid, NotFound, SandboxerError
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box
from tests.testbed.waiting import eventually

NASTY = "a 'b' \"c\" $HOME `id` \\ *\n-n\té"


def _service(script: str, *words: str, **more: object) -> dict[str, object]:
    return {"command": ["sh", "-c", script, "sh", *words], **more}


def _log(box: Box, *, service: str | None = None, tail: int | None = None) -> str:
    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    EXTENSION.logs(box.handle, streams, box.bench.context(), service=service, follow=False, tail=tail)
    return out.decode()


def test_a_service_runs_beside_the_commands_and_ends_with_the_sandbox(bench: Bench) -> None:
    server = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, bind='127.0.0.1', port=8000)"
    client = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/hello').read().decode())"
    services = {"web": {"command": ["python3", "-u", "-c", server]}}
    with bench.box(services=services, settle=0.4, python=True) as box:
        box.sh("echo 'hello from a service' >/workspace/hello")
        answer = eventually(lambda: box.run("python3", "-c", client)[1], within=10, what="the service to listen")
        assert answer == b"hello from a service\n\n"
        assert "GET /hello" in _log(box, service="web")
        box.remove()
        assert bench.census(box.sandbox_id) == []


def test_words_environment_and_folder_of_a_service_arrive_unchanged(bench: Bench) -> None:
    script = 'printf "%s|%s|%s" "$1" "$VALUE" "$PWD" >/workspace/seen; env >/workspace/env; sleep 60'
    services = {"a.b-c": _service(script, NASTY, env={"VALUE": NASTY}, cwd="/tmp")}
    with bench.box(services=services, settle=0.1) as box:
        assert (box.directory / "workspace/seen").read_text() == f"{NASTY}|{NASTY}|/tmp"
        assert "SANDBOXER" not in (box.directory / "workspace/env").read_text()


def test_the_environment_of_a_service_is_in_no_command_line(bench: Bench) -> None:
    services = {"a": _service("sleep 60", env={"TOKEN": "s3cret-value"})}
    with bench.box(services=services, settle=0.1) as box:
        commands = box.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "sleep" in commands
        assert "s3cret-value" not in commands


def test_a_service_that_ends_badly_fails_the_create_with_what_it_said(bench: Bench) -> None:
    services = {"good": _service("sleep 60"), "bad": _service("echo first line; echo the reason >&2; exit 3")}
    with pytest.raises(BackendError, match="'bad' ended with 3") as caught, bench.box(services=services, settle=5):
        raise AssertionError("it must not be ready")
    assert "the reason" in caught.value.message
    assert "services.bad" in caught.value.hint


def test_a_program_that_is_not_there_fails_the_create(bench: Bench) -> None:
    services = {"bad": {"command": ["no-such-program"]}}
    with pytest.raises(BackendError, match=r"'bad' ended with 127.*not found"), bench.box(services=services):
        raise AssertionError("it must not be ready")


def test_a_service_that_ends_with_0_is_settled(bench: Bench) -> None:
    with bench.box(services={"once": _service("echo done")}, settle=30) as box:
        assert _log(box) == "done\n"


def test_ready_comes_after_the_settle_time_and_not_much_later(bench: Bench) -> None:
    started = time.monotonic()
    with bench.box(services={"a": _service("sleep 60")}, settle=0.6):
        assert 0.6 <= time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [("always", 0, True), ("on-failure", 0, False), ("on-failure", 7, True), ("never", 7, False)],
)
def test_a_service_is_started_again_as_asked(bench: Bench, restart: str, code: int, again: bool) -> None:
    script = f"echo run >>/workspace/runs; [ -e /workspace/go ] || sleep 0.3; exit {code}"
    with bench.box(services={"a": _service(script, restart=restart)}, settle=0.05) as box:
        box.sh("touch go")
        runs = box.directory / "workspace/runs"
        if again:
            eventually(lambda: runs.read_text().count("run") > 1, within=5, what="a second run")
        else:
            # with nothing left to watch, the supervisor becomes a mere holder
            eventually(
                lambda: "2147483647" in box.sh("cat /proc/[0-9]*/cmdline 2>/dev/null; true"), within=20, what="the end"
            )
            assert runs.read_text().count("run") == 1


def test_services_start_again_with_a_stopped_sandbox(bench: Bench) -> None:
    with bench.box(services={"a": _service("echo up; sleep 60")}, settle=0.05) as box:
        os.kill(box.recorded()["child"], 9)
        eventually(lambda: box.presence() == "stopped", within=5, what="the end")
        assert _log(box) == "up\n", "logs can be read of a stopped sandbox"
        box.sh("true")
        eventually(lambda: _log(box) == "up\nup\n", within=5, what="the service's second start")


def test_logs_of_one_or_all_services_whole_or_the_end(bench: Bench) -> None:
    services = {"a": _service("seq 1 50; sleep 60"), "b": _service("echo of-b >&2; sleep 60")}
    with bench.box(services=services, settle=0.2) as box:
        assert _log(box, service="a").split() == [str(n) for n in range(1, 51)]
        assert _log(box, service="a", tail=2) == "49\n50\n"
        both = _log(box)
        assert "of-b" in both
        assert "50" in both
        with pytest.raises(NotFound, match="no service 'c'"):
            _log(box, service="c")


@pytest.mark.parametrize("follow", [False, True])
def test_the_last_lines_of_a_log_that_is_one_huge_hole_come_at_once(bench: Bench, follow: bool) -> None:
    hole = "echo start; truncate -s 4T /var/log/services/a.log; echo end; sleep 60"
    with bench.box(services={"a": _service(hole), "b": _service("seq 1 50; sleep 60")}, settle=0.2) as box:
        seen = bytearray()
        if follow:
            _in_background(lambda: _follow(box, seen, service=None, tail=2))
        else:
            seen += _log(box, tail=2).encode()
        eventually(lambda: b"\0end\n" in seen, within=20, what="the end of the log")
        assert len(seen) < 3_000_000
        assert b"49\n50\n" in seen
        assert _log(box, service="b", tail=3) == "48\n49\n50\n"


def test_logs_can_be_followed(bench: Bench) -> None:
    script = "echo first; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo second; sleep 60"
    with bench.box(services={"a": _service(script)}, settle=0.05) as box:
        seen = bytearray()
        _in_background(lambda: _follow(box, seen))
        eventually(lambda: seen == b"first\n", within=5, what="the first line")
        box.sh("touch go")
        eventually(lambda: seen == b"first\nsecond\n", within=5, what="the second line")


def _follow(box: Box, seen: bytearray, *, service: str | None = "a", tail: int | None = None) -> None:
    streams = Streams(stdout=seen.extend, stderr=seen.extend, stdin=io.BytesIO())
    try:
        EXTENSION.logs(box.handle, streams, box.bench.context(seconds=10), service=service, follow=True, tail=tail)
    except SandboxerError:
        return  # the sandbox's end, or the deadline


def _in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def test_a_log_cannot_be_turned_into_a_window_on_the_hosts_files(bench: Bench) -> None:
    with bench.box(services={"a": _service("sleep 60")}, settle=0.05) as box:
        code, _, _ = box.run("sh", "-c", "cd /var/log/services; rm -f a.log; ln -sf /etc/shadow a.log; mv a.log b.log")
        assert code != 0
        assert "root" not in _log(box)


def test_a_service_is_no_place_for_commands(box: Box) -> None:
    streams = Streams(stdout=lambda _: None, stderr=lambda _: None)
    with pytest.raises(Invalid, match="service"):
        EXTENSION.exec(box.handle, Exec(argv=("true",), service="web"), streams, box.bench.context())
