"""The testbed's own tests: each piece works for real, and the census sees what is planted."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from tests.testbed import components, processes, repositories
from tests.testbed.fault_proxy import FaultProxy, Mode

from .census import Census
from .engines import Docker, Engine, Podman
from .hosts import KINDS, ComposeHost, Kind, engine_for, need_kind
from .sshd import Sshd
from .waiting import eventually


@pytest.fixture(scope="module")
def engines() -> Iterator["Engines"]:
    with ExitStack() as stack:
        yield Engines(stack)


class Engines:
    """One engine of each kind, started when a test first asks for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._running = stack, dict[type[Engine], Engine]()

    def of(self, kind: Kind) -> Engine:
        need_kind(kind)
        wanted = engine_for(kind)
        if wanted not in self._running:
            engine = self._stack.enter_context(wanted())
            engine.build_base()
            self._running[wanted] = engine
        return self._running[wanted]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(port: int) -> str:
    def answer() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    return eventually(answer, within=10, what="the web service to answer")


# components


def test_a_component_is_a_path_or_named_as_missing() -> None:
    assert components.have("sh")
    assert components.have("no-such-program") is None
    assert components.missing(["sh", "no-such-program"]) == ["no-such-program"]


def test_a_missing_component_skips_by_name_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(BaseException, match="missing: no-such-program") as skipped:
        components.need("no-such-program")
    assert type(skipped.value).__name__ == "SkipTest"
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError, match="missing: no-such-program"):
        components.need("no-such-program")


def test_the_install_script_has_nothing_to_say_when_all_is_there() -> None:
    words = [str(components.REPOSITORY / "scripts/testbed/install"), "--check"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    lacking = components.missing(["sshd", "rsync", "strace", "bwrap", *KINDS])
    assert bool(said.stdout) == bool(set(lacking) - {"root"}), said.stdout


# sshd


def test_an_sshd_takes_its_key_a_certificate_and_a_jump_and_passes_words_through(tmp_path: Path) -> None:
    components.need("sshd")
    hostile = ["a b", "$HOME", "'", "*", ""]
    with (
        Sshd(tmp_path / "a", user_ca=True, host_ca=True, set_env={"GREETING": "two words"}) as first,
        Sshd(tmp_path / "b", alias="inner", jump=first) as second,
    ):
        assert first.run("printf", "%s|", *hostile).stdout == "a b|$HOME|'|*||"
        assert first.run("sh", "-c", "echo $GREETING").stdout == "two words\n"
        assert first.run("whoami", alias="testhost-cert").stdout.strip() == first.user
        assert first.run("whoami", alias="testhost-ca").stdout.strip() == first.user
        assert second.run("sh", "-c", "exit 42", check=False).returncode == 42
        assert first.log.read_text().count("Accepted publickey") == 5, "the jump is a login of its own"


def test_an_sshd_with_a_wrong_host_key_is_refused_by_its_clients(tmp_path: Path) -> None:
    components.need("sshd")
    with Sshd(tmp_path, wrong_host_key=True) as sshd:
        refused = sshd.run("true", check=False)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr


def test_closing_an_sshd_ends_what_its_sessions_left_running(tmp_path: Path) -> None:
    components.need("sshd")
    seconds = f"10{os.getpid()}"  # nobody else's
    with Sshd(tmp_path) as sshd:
        sshd.run("sh", "-c", f"setsid sleep {seconds} > /dev/null 2>&1 < /dev/null & echo started")
        waiting = subprocess.Popen(sshd.words(f"sleep {seconds}"), stdin=subprocess.DEVNULL)
        eventually(lambda: len(_running(f"sleep {seconds}")) == 2, within=10, what="both sleeps")
    assert waiting.wait(5) == 255
    assert not _running(f"sleep {seconds}")
    assert not sshd.left_by_sessions()


def _running(command: str) -> list[processes.Process]:
    return [process for process in processes.everyone() if process.command == command]


# compose front ends on hosts


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_goes_up_and_down_over_ssh_and_leaves_nothing(engines: Engines, kind: Kind, tmp_path: Path) -> None:
    engine = engines.of(kind)
    port, project = free_port(), f"sbx-{kind.replace(' ', '')}{os.getpid()}"
    with ComposeHost(tmp_path, kind, engine) as host:
        repo = repositories.web_and_db(tmp_path / "repo", port=port, greeting=f"by {kind}")
        take = partial(Census.take, engines=[engine], dirs=[host.work_dir], marks=[project])
        before = take()
        there = host.work_dir / project
        subprocess.run(
            ["rsync", "-a", "-e", f"ssh -F {host.sshd.ssh_config}", f"{repo}/", f"{host.name}:{there}/"], check=True
        )
        compose = [*host.compose.split(), "-f", str(there / repositories.COMPOSE_FILE), "-p", project]
        host.sshd.run(*compose, "up", "-d")
        assert fetch(port) == f"by {kind}\n"
        listed = host.sshd.run(engine.program, "ps", "--format", "{{.Names}}").stdout
        assert project in listed
        during = take() - before
        for thing in ("container", "network", "volume", "interface", "network namespace", "mount", "directory"):
            assert any(thing in line for line in during), (thing, during)
        host.sshd.run(*compose, "down", "-t", "1", "-v", "--remove-orphans")
        shutil.rmtree(there)
        assert not take() - before


@pytest.mark.parametrize("kind", KINDS)
def test_broken_stacks_are_broken_in_the_way_they_say(engines: Engines, kind: Kind, tmp_path: Path) -> None:
    engine = engines.of(kind)
    take = partial(Census.take, engines=[engine], marks=[str(tmp_path)])
    before = take()

    def up(repo: Path) -> "subprocess.CompletedProcess[str]":
        words = [
            *_front_end(engine, kind),
            "-f",
            str(repo / repositories.COMPOSE_FILE),
            "-p",
            f"sbx-{repo.name}",
            "up",
            "-d",
        ]
        return engine.run(*words, check=False)

    def state(name: str, key: str) -> str:
        return engine.run(engine.program, "inspect", "-f", f"{{{{.State.{key}}}}}", name).stdout.strip()

    separator = "-" if kind == "docker compose" else "_"
    try:
        for broken in (repositories.missing_image, repositories.bad_yaml, repositories.broken_build):
            done = up(broken(tmp_path / broken.__name__.replace("_", "-")))
            assert done.returncode != 0, (broken.__name__, done.stdout, done.stderr)
        assert up(repositories.exits(tmp_path / "exits", code=3)).returncode == 0
        job = separator.join(("sbx-exits", "job", "1"))
        eventually(lambda: state(job, "ExitCode") == "3", within=5, what="the job to end")
        assert up(repositories.fixed_name(tmp_path / "fixed", container_name="the-one")).returncode == 0
        assert state("the-one", "Running") == "true"
        out = repositories.owned_files(tmp_path / "owned", owner=4321) / "out"
        assert up(out.parent).returncode == 0
        eventually((out / "done").exists, within=5, what="the files to be written")
        assert (out / "deep/er/file").stat().st_uid == 4321
        if engine.program == "docker":
            assert up(repositories.unhealthy(tmp_path / "ill")).returncode == 0
            ill = separator.join(("sbx-ill", "main", "1"))
            eventually(lambda: state(ill, "Health.Status") == "unhealthy", within=10, what="the check to fail")
        assert up(repositories.ignores_term(tmp_path / "deaf")).returncode == 0
        deaf = separator.join(("sbx-deaf", "main", "1"))
        engine.run(engine.program, "stop", "-t", "1", deaf)
        assert state(deaf, "ExitCode") == "137"
    finally:
        engine.wipe()
    assert not take() - before


def _front_end(engine: Engine, kind: Kind) -> Sequence[str]:
    return next(command.split() for command in engine.compose if Path(command).name == kind)


@pytest.mark.alone  # it looks at all addresses, rules and mounts of the machine
@pytest.mark.engines
@pytest.mark.parametrize("engine_class", [Docker, Podman])
def test_two_engines_of_a_kind_are_strangers_and_leave_nothing(engine_class: type[Engine]) -> None:
    components.need("dockerd" if engine_class is Docker else "podman")
    with engine_class() as one, engine_class() as two:
        roots = [one.root, two.root]
        for engine in (one, two):
            engine.build_base("localhost/mine:1", "docker.io/library/nginx:alpine")
            engine.run(engine.program, "network", "create", "thesame")
            words = ["run", "-d", "--network", "thesame", "--name", "same"]
            engine.run(engine.program, *words, "docker.io/library/nginx:alpine", "sleep", "1000")
        one.wipe()
        assert not one.resources()["containers"]
        assert two.resources()["containers"] == {"same"}
        nets = [one.net, two.net]
        assert two.interfaces()
    mounts = Path("/proc/self/mountinfo").read_text()
    for root, net in zip(roots, nets, strict=True):
        assert not root.exists()
        assert f" {root}/" not in mounts
        assert f"{net.network_address}"[:7] not in subprocess.run(["ip", "addr"], capture_output=True, text=True).stdout
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
        assert f" {str(net.network_address).removesuffix('.0.0')}." not in rules
        assert not [p for p in processes.everyone() if f"{root}/" in p.command]


@pytest.mark.alone  # whoever takes the slot in between has things of the same names
@pytest.mark.engines
@pytest.mark.parametrize("engine_class", [Docker, Podman])
def test_what_a_killed_run_leaves_goes_when_its_slot_is_taken_again(engine_class: type[Engine]) -> None:
    components.need("dockerd" if engine_class is Docker else "podman")
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from testbed.engines import {engine_class.__name__}
engine = {engine_class.__name__}()
engine.build_base()
engine.run(engine.program, "network", "create", "net")
words = ["run", "-d", "--network", "net", "--name", "left", "localhost/sbx-base:1", "sleep", "1000"]
print(engine.name, engine.root, engine.run(engine.program, *words).stdout, flush=True)
os.kill(os.getpid(), 9)
"""
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    name, root, container = died.stdout.split()
    assert Path(root).exists()
    with engine_class() as engine:
        if engine.name == name:  # nobody was quicker
            assert not any(engine.resources().values())
            assert not engine.interfaces()
            assert not engine.namespaces()
    assert name not in "".join(str(path) for path in Path("/sys/fs/cgroup").glob("*/*"))
    assert container not in "".join(str(path) for path in Path("/sys/fs/cgroup").glob("*/libpod_parent/*"))
    assert not Path("/run/runc", container).exists()


# census


def test_the_census_sees_planted_directories_processes_and_mounts(tmp_path: Path) -> None:
    mark = f"sbx-planted{os.getpid()}"
    before = Census.take(dirs=[tmp_path], marks=[mark])
    assert not before.found
    folder = tmp_path / f"{mark}-folder"
    folder.mkdir()
    planted: list[tuple[Sequence[str], dict[str, str], Path]] = [
        (["sleep", "1021"], {"MARK": f"{mark}-by-environment"}, tmp_path),
        (["sleep", "1022"], {}, folder),
        (["sh", "-c", f"sleep 1023; : {mark}"], {}, tmp_path),
    ]
    children = [subprocess.Popen(words, env={**os.environ, **env}, cwd=cwd) for words, env, cwd in planted]
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=False).returncode == 0
    )
    try:
        left = eventually(
            lambda: (
                (found := Census.take(dirs=[tmp_path], marks=[mark]) - before) and len(found) == 4 + mounted and found
            ),
            within=5,
            what="the census to see all",
        )
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        processes.end(
            p for child in children for p in [processes.look(child.pid), *processes.descendants(child.pid)] if p
        )
        for child in children:
            child.wait()
    assert left
    lines = "\n".join(left)
    assert f"directory {folder}" in lines
    assert "sleep 1021" in lines
    assert "sleep 1022" in lines
    assert f"sleep 1023; : {mark}" in lines
    assert (f"mount {folder}" in lines) == mounted
    shutil.rmtree(folder)
    assert not Census.take(dirs=[tmp_path], marks=[mark]) - before


@pytest.mark.parametrize("kind", ["docker compose", "podman-compose"])
def test_the_census_sees_a_planted_container_network_and_volume(engines: Engines, kind: Kind) -> None:
    engine = engines.of(kind)
    take = partial(Census.take, engines=[engine], marks=[f"{engine.root}/"])
    before = take()
    for words in (
        ("network", "create", "planted-net"),
        ("volume", "create", "planted-volume"),
        ("run", "-d", "--name", "planted", "--network", "planted-net", "localhost/sbx-base:1", "sleep", "1000"),
    ):
        engine.run(engine.program, *words)
    if engine.kind == "podman":
        engine.run("podman", "pod", "create", "--infra=false", "--name", "planted-pod")
    left = take() - before
    engine.wipe()
    expected = ["container planted", "network planted-net", "volume planted-volume"]
    for line in [*expected, *(["pod planted-pod"] if engine.kind == "podman" else [])]:
        assert f"{engine.name} {line}" in left
    for kind_of_thing in ("network namespace", "mount", f"{engine.name} interface"):
        assert any(line.startswith(kind_of_thing) for line in left), left
    assert not take() - before


# faulty networks


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is cut is what these tests are about: nothing to print."""


class _Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b"x" * 5000)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    server = _Server(("127.0.0.1", 0), _Hello)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with FaultProxy(server.server_address[1]) as proxy:
        yield proxy
    server.shutdown()
    server.server_close()
    thread.join()


def ask(proxy: FaultProxy, *, timeout: float = 5) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/", timeout=timeout) as response:
        return bytes(response.read())


def test_the_proxy_passes_delays_and_refuses(proxy: FaultProxy) -> None:
    assert len(ask(proxy)) == 5000
    proxy.set(Mode.DELAY, 0.1)
    start = time.monotonic()
    assert len(ask(proxy)) == 5000
    assert time.monotonic() - start >= 0.2
    proxy.set(Mode.REFUSE)
    with pytest.raises(OSError, match="refused"):
        ask(proxy)
    proxy.set(Mode.PASS)
    assert len(ask(proxy)) == 5000


def test_the_proxy_resets_open_and_new_connections(proxy: FaultProxy) -> None:
    with closing(socket.create_connection((proxy.host, proxy.port), timeout=5)) as connection:
        eventually(lambda: proxy.open_connections == 1, within=5, what="the connection to be accepted")
        proxy.set(Mode.RESET)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(OSError, match=r"reset|closed"):
        ask(proxy)
    eventually(lambda: proxy.open_connections == 0, within=5, what="the connections to end")


def test_a_black_hole_holds_back_and_lets_go(proxy: FaultProxy) -> None:
    proxy.set(Mode.BLACKHOLE)
    with closing(socket.create_connection((proxy.host, proxy.port), timeout=0.2)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.set(Mode.BLACKHOLE_AFTER, 27 + 100)  # the request, and so much of the answer
        received = b""
        while len(received) < 100:
            received += connection.recv(4096)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert len(received) == 100
        proxy.set(Mode.PASS)
        connection.settimeout(5)
        while not received.endswith(b"x" * 5000):
            received += connection.recv(4096)


def test_ssh_through_the_proxy_hangs_in_a_black_hole_and_not_after_it(tmp_path: Path) -> None:
    components.need("sshd")
    with Sshd(tmp_path) as sshd, FaultProxy(sshd.port) as proxy:
        through = [
            *sshd.words()[:-1],
            "-p",
            str(proxy.port),
            "-o",
            f"HostKeyAlias=[{sshd.host}]:{sshd.port}",
            sshd.alias,
        ]
        assert subprocess.run([*through, "true"], check=False).returncode == 0
        proxy.set(Mode.BLACKHOLE_AFTER, 1500)  # past the greeting, inside the key exchange
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([*through, "true"], timeout=1, check=False)
        proxy.set(Mode.PASS)
        assert subprocess.run([*through, "true"], check=False).returncode == 0
