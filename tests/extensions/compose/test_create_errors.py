"""Every way in which a stack fails to come up is told apart, and leaves nothing after teardown. Real programs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import BackendError, Denied, Invalid, NotConfigured, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import Context, Exec
from sandboxer.extensions.compose_ssh.exec import KILL_SECONDS
from sandboxer.extensions.compose_ssh.options import ComposeOptions
from sandboxer.hosts.base import Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings
from sandboxer.names import new_id
from sandboxer.timing import Deadline
from tests.extensions.compose.sandboxes import EXTENSION, INSTALL, Bed, spec
from tests.testbed import repositories
from tests.testbed.components import REPOSITORY, have
from tests.testbed.fault_proxy import FaultProxy, Mode
from tests.testbed.waiting import eventually

BASE = "localhost/sbx-base:1"


def fails(bed: Bed, repo: Path, kind: type[SandboxerError], **options: object) -> SandboxerError:
    """The error with which a sandbox of `repo` does not come up; nothing is left of it."""
    with bed.nothing_left(), pytest.raises(kind) as caught, bed.sandbox(repo, **options):
        pass
    assert type(caught.value) is kind
    assert caught.value.hint
    return caught.value


def written(folder: Path, compose: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "compose.yaml").write_text(textwrap.dedent(compose))
    return folder


def test_a_service_that_ends_with_another_code_is_named_with_its_code_and_last_words(bed: Bed, tmp_path: Path) -> None:
    error = fails(bed, repositories.exits(tmp_path / "app", code=3), BackendError)
    assert "'job' ended with exit code 3" in error.message
    assert "giving up" in error.message
    assert error.details is not None
    assert error.details["service"] == "job"


def test_a_service_that_ends_with_zero_is_fine(podman: Bed, tmp_path: Path) -> None:
    with podman.sandbox(repositories.exits(tmp_path / "app", code=0), settle=0.5):
        pass


def test_an_unhealthy_service_fails_with_its_name(either: Bed, tmp_path: Path) -> None:
    assert "'main' is unhealthy" in fails(either, repositories.unhealthy(tmp_path / "app"), BackendError).message


def test_a_health_check_that_never_answers_is_a_timeout_that_says_so(podman: Bed, tmp_path: Path) -> None:
    repo = repositories.never_healthy(tmp_path / "app")
    with podman.nothing_left():
        handle = podman.provision(repo)
        with pytest.raises(SandboxerError, match=r"health check of service 'main'") as caught:
            EXTENSION.wait_ready(handle, podman.context(seconds=3))
        assert caught.value.code == "timeout"
        podman.teardown(handle)


def _crashing(folder: Path, *, restart: str, until: str) -> Path:
    """A service that ends with code 7 until the condition holds; it counts its starts in a volume."""
    command = f"echo start >> /seen/starts; {until} || {{ echo no database yet; exit 7; }}; exec sleep 600"
    service = {"image": BASE, "command": ["sh", "-c", command], "restart": restart, "volumes": ["seen:/seen"]}
    return written(folder, json.dumps({"services": {"main": service}, "volumes": {"seen": {}}}))


@pytest.mark.parametrize("restart", ["on-failure", "always"])
def test_a_service_that_crashes_until_its_database_is_there_comes_up(bed: Bed, tmp_path: Path, restart: str) -> None:
    repo = _crashing(tmp_path / "app", restart=restart, until="[ $$(grep -c start /seen/starts) -gt 5 ]")
    with bed.nothing_left(), bed.sandbox(repo, settle=0.5) as (handle, _):
        assert bed.run(handle, "grep", "-c", "start", "/seen/starts")[1] == b"6\n"


@pytest.mark.parametrize("restart", ["on-failure", "always"])
def test_a_service_that_never_stops_crashing_is_told_with_its_code_when_the_time_is_over(
    bed: Bed, tmp_path: Path, restart: str
) -> None:
    repo = _crashing(tmp_path / "app", restart=restart, until="false")
    with bed.nothing_left():
        handle = bed.provision(repo)
        with pytest.raises(Timeout) as caught:
            EXTENSION.wait_ready(handle, bed.context(seconds=8))
        bed.teardown(handle)
    assert "'main' keeps ending with exit code 7" in caught.value.message
    assert "no database yet" in caught.value.message
    assert caught.value.details is not None
    assert (caught.value.details["service"], caught.value.details["exit_code"]) == ("main", 7)


def test_a_service_that_may_restart_so_often_and_no_more_fails_then(bed: Bed, tmp_path: Path) -> None:
    repo = _crashing(tmp_path / "app", restart="on-failure:2", until="false")
    error = fails(bed, repo, BackendError)
    assert "'main' ended with exit code 7" in error.message
    assert "no database yet" in error.message


def test_a_broken_file_is_invalid_with_its_line_before_anything_is_made(podman: Bed, tmp_path: Path) -> None:
    saved: list[Handle] = []
    with podman.nothing_left(), pytest.raises(Invalid, match=r"compose\.yaml, line \d"):
        podman.provision(repositories.bad_yaml(tmp_path / "app"), save=saved.append)
    assert saved == []


def test_no_compose_file_is_invalid_and_says_what_was_looked_for(podman: Bed, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    with pytest.raises(Invalid, match=r"compose\.yaml, compose\.yml, docker-compose\.yml, docker-compose\.yaml"):
        podman.provision(tmp_path / "app")


def test_a_file_that_the_front_end_refuses_is_invalid(bed: Bed, tmp_path: Path) -> None:
    compose = f'services: {{main: {{image: "{BASE}-${{NOT_SET:?say which}}"}}}}\n'
    assert "say which" in fails(bed, written(tmp_path / "app", compose), Invalid).message


def test_a_missing_image_is_told(either: Bed, tmp_path: Path) -> None:
    assert "could not be pulled" in fails(either, repositories.missing_image(tmp_path / "app"), BackendError).message


def test_podman_is_told_to_be_given_full_names(podman: Bed, tmp_path: Path) -> None:
    error = fails(podman, written(tmp_path / "app", "services: {main: {image: nginx}}\n"), BackendError)
    assert "short name" in error.message
    assert "docker.io/library/nginx" in error.hint


def test_a_build_that_fails_is_told_and_its_container_goes_too(bed: Bed, tmp_path: Path) -> None:
    error = fails(bed, repositories.broken_build(tmp_path / "app"), BackendError)
    assert "could not be built" in error.message


def test_a_port_that_is_taken_is_told_with_the_way_out(either: Bed, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        repo = repositories.web_and_db(tmp_path / "app", port=taken.getsockname()[1])
        error = fails(either, repo, BackendError, publish="declared")
    assert "already in use" in error.message
    assert "publish: remapped" in error.hint


def test_a_full_address_pool_is_told_with_its_limit(either: Bed, tmp_path: Path) -> None:
    engine = either.engine
    # takes every subnet of the pool at once, as many little networks would
    first, rest = next(engine.net.subnets(new_prefix=17)), engine.net
    subnets = [first, list(rest.subnets(new_prefix=17))[1]]
    names = [f"full{number}" for number in range(len(subnets))]
    for name, subnet in zip(names, subnets, strict=True):
        engine.run(engine.program, "network", "create", "--subnet", str(subnet), name, check=False)
    try:
        error = fails(either, repositories.minimal(tmp_path / "app"), BackendError)
    finally:
        engine.run(engine.program, "network", "rm", *names, check=False)
    assert "address pools are used up" in error.message
    assert "default-address-pools" in error.hint


def local(bed: Bed, **settings: object) -> Context:
    """This machine with other settings."""
    chosen = msgspec.convert({"work_dir": str(bed.work_dir), "env": bed.engine.env, **settings}, HostSettings)
    return Context(host=LocalHost("local", chosen), install=INSTALL, deadline=Deadline(20))


def test_without_its_program_it_is_not_configured_and_the_hint_says_what_to_type(here: Bed, tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="no-such-compose"):
        EXTENSION.check(local(here, compose="no-such-compose"))
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in ("sh", "awk", "podman", "sleep", "kill"):
        (bin_dir / name).symlink_to(have(name) or f"/bin/{name}")
    (bin_dir / "podman-compose").symlink_to(here.engine.compose[0])
    with pytest.raises(NotConfigured) as caught:
        EXTENSION.check(local(here, env={"PATH": str(bin_dir)}))
    assert caught.value.hint == (
        "set `compose: podman-compose` for the host in config.yaml, or SANDBOXER_COMPOSE_CMD=podman-compose"
    )


@pytest.mark.parametrize("engine_too", [False, True])
def test_a_create_without_its_programs_makes_nothing_and_can_be_forgotten(
    here: Bed, tmp_path: Path, engine_too: bool
) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    programs = [
        have(name) or f"/bin/{name}" for name in ("sh", "awk", "mkdir", "sleep", "kill", "rm", "rmdir", "grep", "sort")
    ]
    for program in programs if engine_too else [*programs, str(have("podman"))]:
        (bin_dir / Path(program).name).symlink_to(program)
    context = local(here, compose="podman-compose", env={**here.engine.env, "PATH": str(bin_dir)})
    saved: list[Handle] = []
    context = msgspec.structs.replace(context, save=saved.append)
    wanted = spec(repositories.minimal(tmp_path / "app"), sandbox_id=new_id(), options=ComposeOptions())
    with here.nothing_left():
        with pytest.raises(NotConfigured, match=r"'podman(-compose)?' is not on the host") as caught:
            EXTENSION.provision(wanted, context)
        assert caught.value.made_nothing
        EXTENSION.teardown(saved[0], context)


def test_a_create_without_docker_s_daemon_makes_nothing(docker: Bed, tmp_path: Path) -> None:
    env = {**docker.engine.env, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    context = local(docker, compose="docker compose", env=env)
    wanted = spec(repositories.minimal(tmp_path / "app"), sandbox_id=new_id(), options=ComposeOptions())
    with docker.nothing_left(), pytest.raises(Unavailable, match="daemon") as caught:
        EXTENSION.provision(wanted, context)
    assert caught.value.made_nothing


def test_a_docker_without_the_plug_in_is_not_configured(docker: Bed, tmp_path: Path) -> None:
    context = local(docker, compose="docker nosuchplugin")
    wanted = spec(repositories.minimal(tmp_path / "app"), sandbox_id=new_id(), options=ComposeOptions())
    saved: list[Handle] = []
    with docker.nothing_left():
        with pytest.raises(NotConfigured, match="nosuchplugin"):
            EXTENSION.provision(wanted, msgspec.structs.replace(context, save=saved.append))
        EXTENSION.teardown(saved[0], context)


def test_a_daemon_that_does_not_run_is_unavailable_and_a_socket_that_is_shut_denied(
    docker: Bed, tmp_path: Path
) -> None:
    env = {**docker.engine.env, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    context = local(docker, compose="docker compose", env=env)
    with pytest.raises(Unavailable, match="daemon"):
        EXTENSION.check(context)
    handle = docker.provision(repositories.minimal(tmp_path / "app"), settle=0)
    try:
        # a listing that fails is unknown, never empty
        assert EXTENSION.status(handle, context).presence == "unknown"
        for ask in (
            lambda: EXTENSION.find(str(handle.data["sandbox_id"]), context),
            lambda: EXTENSION.inventory(context),
            lambda: EXTENSION.teardown(handle, context),
        ):
            with pytest.raises(SandboxerError):
                ask()
        assert EXTENSION.status(handle, docker.context()).presence == "running"
    finally:
        docker.teardown(handle)


def test_a_user_who_may_not_use_the_socket_is_denied(docker: Bed) -> None:
    socket_path = docker.engine.root / "docker.sock"
    client = have("docker")
    words = ["setpriv", "--reuid", "65534", "--clear-groups", str(client), "-H", f"unix://{socket_path}", "version"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    from sandboxer.extensions.compose_ssh.errors import translate
    from sandboxer.hosts.base import Result

    error = translate(Result(1, b"", (said.stderr + said.stdout).encode()), doing="asking", engine="docker")
    assert isinstance(error, Denied)
    assert "group `docker`" in error.hint


def test_a_dead_host_is_unavailable(podman: Bed, tmp_path: Path) -> None:
    from sandboxer.hosts.factory import open_host

    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    host = open_host("dead", HostSettings(address="127.0.0.1", port=port, work_dir="/tmp"))
    context = Context(host=host, install=INSTALL, deadline=Deadline(10))
    wanted = spec(repositories.minimal(tmp_path / "app"), sandbox_id=new_id(), options=ComposeOptions())
    with pytest.raises(Unavailable):
        EXTENSION.provision(wanted, context)
    host.close()


def test_a_command_whose_host_falls_silent_is_not_waited_for(podman: Bed, tmp_path: Path) -> None:
    """Promise 22: within the deadline + 5 s, although what runs inside should be ended too."""
    from sandboxer.hosts.factory import open_host

    port = podman.settings.port or 22
    with podman.sandbox(repositories.minimal(tmp_path / "app")) as (handle, _), FaultProxy(port) as proxy:
        known = Path(str(podman.settings.known_hosts)).read_text()
        (tmp_path / "known").write_text(known.replace(f":{port}", f":{proxy.port}"))
        through = {"port": proxy.port, "known_hosts": str(tmp_path / "known")}
        host = open_host("alpha", msgspec.structs.replace(podman.settings, **through))
        context = Context(host=host, install=INSTALL, deadline=Deadline(4))

        def silence(_: bytes) -> None:
            proxy.set(Mode.BLACKHOLE)

        request = Exec(argv=("sh", "-c", "echo; sleep 1000"))
        started = time.monotonic()
        with pytest.raises(Timeout, match="sh did not end in time in service 'main'") as caught:
            EXTENSION.exec(handle, request, Streams(stdout=silence, stderr=silence), context)
        assert caught.value.outcome == "unknown"
        assert time.monotonic() - started < 4 + KILL_SECONDS
        host.close()


def test_files_of_container_users_are_removed(either: Bed, tmp_path: Path) -> None:
    fails_not = repositories.owned_files(tmp_path / "app", owner=4711)
    with either.nothing_left(), either.sandbox(fails_not, settle=0) as (handle, _):
        eventually(lambda: either.run(handle, "test", "-e", "/out/done")[0] == 0, within=10, what="the files")


# -- crashes --------------------------------------------------------------------------------------------------------

CREATOR = """
import sys
from pathlib import Path
import msgspec
from sandboxer.hosts.factory import open_host
from sandboxer.models import HostSettings
from sandboxer.extensions.base import Context
from sandboxer.timing import Deadline
from tests.extensions.compose.sandboxes import EXTENSION, INSTALL, spec
from sandboxer.extensions.compose_ssh.options import ComposeOptions
name, settings, repo, sandbox_id = sys.argv[1:]
host = open_host(name, msgspec.json.decode(settings, type=HostSettings))
context = Context(host=host, install=INSTALL, deadline=Deadline(60), progress=lambda *a: print(*a, flush=True))
EXTENSION.provision(spec(Path(repo), sandbox_id=sandbox_id, options=ComposeOptions()), context)
print("made", flush=True)
"""


@pytest.mark.parametrize("moment", ["sync", "start", "containers", "made"])
def test_a_creator_that_is_killed_leaves_what_another_process_finds_and_removes(
    bed: Bed, tmp_path: Path, moment: str
) -> None:
    repo = repositories.web_and_db(tmp_path / "app")
    sandbox_id = new_id()
    settings = msgspec.json.encode(bed.settings).decode()
    words = [sys.executable, "-c", CREATOR, "alpha", settings, str(repo), sandbox_id]
    with bed.nothing_left():
        path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
        creator = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
        assert creator.stdout is not None
        awaited = "start" if moment == "containers" else moment
        for line in creator.stdout:
            if line.startswith(awaited):
                break
        if moment == "containers":
            name = f"sbx-{sandbox_id}"
            eventually(lambda: any(name in c for c in bed.engine.resources()["networks"]), within=20, what="a network")
        creator.kill()
        creator.wait()
        creator.stdout.close()
        handle = EXTENSION.find(sandbox_id, bed.context())
        assert handle is not None
        bed.teardown(handle)
        assert EXTENSION.find(sandbox_id, bed.context()) is None


def remove_containers(bed: Bed, handle: Handle) -> None:
    words = ["rm", "-f", "-v", *(["--depend"] if bed.engine.program == "podman" else [])]
    for name in bed.names("containers", handle):
        bed.engine.run(bed.engine.program, *words, name, check=False)
    assert bed.names("containers", handle) == []


def empty_engine(bed: Bed, handle: Handle) -> None:
    remove_containers(bed, handle)
    bed.engine.wipe()


PARTS: dict[str, Callable[[Bed, Handle], object]] = {
    "directory": lambda bed, handle: bed.host.run(["rm", "-rf", handle.data["directory"]], Deadline(10)),
    "both directories": lambda bed, handle: bed.host.run(
        ["rm", "-rf", handle.data["directory"], handle.data["state"]], Deadline(10)
    ),
    "containers": remove_containers,
    "compose file": lambda bed, handle: bed.host.run(["rm", f"{handle.data['state']}/compose.yaml"], Deadline(10)),
    "everything in the engine": empty_engine,
}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_left_of_a_sandbox_is_found_and_removed(either: Bed, tmp_path: Path, part: str) -> None:
    with either.nothing_left():
        handle = either.provision(repositories.web_and_db(tmp_path / "app"), settle=0)
        PARTS[part](either, handle)
        sandbox_id = str(handle.data["sandbox_id"])
        assert [found.sandbox_id for found in EXTENSION.inventory(either.context())] == [sandbox_id]
        assert EXTENSION.status(handle, either.context()).presence in ("running", "stopped")
        found = EXTENSION.find(sandbox_id, either.context())
        assert found is not None
        either.teardown(found)
        assert EXTENSION.inventory(either.context()) == []
        assert EXTENSION.status(handle, either.context()).presence == "absent"


def test_a_network_that_a_stranger_has_joined_is_told_and_kept_findable(docker: Bed, tmp_path: Path) -> None:
    handle = docker.provision(repositories.minimal(tmp_path / "app"), settle=0)
    network = f"{handle.data['name']}_default"
    docker.engine.run("docker", "run", "-d", "--name", "stranger", "--network", network, BASE, "sleep", "600")
    try:
        with pytest.raises(BackendError, match="network") as caught:
            docker.teardown(handle)
        assert caught.value.retryable
        assert "stranger" in docker.engine.resources()["containers"]
        assert EXTENSION.find(str(handle.data["sandbox_id"]), docker.context()) is not None
    finally:
        docker.engine.run("docker", "rm", "-f", "stranger")
        docker.teardown(handle)
    assert EXTENSION.status(handle, docker.context()).presence == "absent"


def test_teardown_of_a_stack_that_ignores_its_stop_signal_is_quick(either: Bed, tmp_path: Path) -> None:
    handle = either.provision(repositories.ignores_term(tmp_path / "app"), settle=0)
    EXTENSION.teardown(handle, either.context(seconds=30))
    assert EXTENSION.status(handle, either.context()).presence == "absent"


def test_sandboxes_of_another_installation_are_not_listed(podman: Bed, tmp_path: Path) -> None:
    handle = podman.provision(repositories.minimal(tmp_path / "app"), settle=0)
    try:
        other = msgspec.structs.replace(podman.context(), install="someoneelse")
        assert EXTENSION.inventory(other) == []
    finally:
        podman.teardown(handle)


def test_creating_and_removing_at_once_do_not_disturb_each_other(podman: Bed, tmp_path: Path) -> None:
    repo = repositories.minimal(tmp_path / "app")
    errors: list[BaseException] = []

    def one() -> None:
        try:
            podman.teardown(podman.provision(repo, settle=0))
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    with podman.nothing_left():
        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert errors == []
