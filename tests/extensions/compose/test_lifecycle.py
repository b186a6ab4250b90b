"""A compose repository from nothing to curl to nothing, with each front end over a real sshd."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import Conflict, Invalid, NotFound, Unsupported
from sandboxer.hosts.base import Streams
from sandboxer.hosts.trees.tar_writer import write_tar
from sandboxer.models import Handle, Service
from sandboxer.names import LABEL_ID, LABEL_INSTALL
from sandboxer.telemetry.processes import sandbox_usage
from sandboxer.timing import Deadline
from tests.extensions.compose.sandboxes import EXTENSION, INSTALL, Bed
from tests.testbed import repositories
from tests.testbed.waiting import eventually


def fetch(service: Service, path: str = "/") -> str:
    """A page of a published web server, once it answers."""

    def get() -> str | None:
        connection = http.client.HTTPConnection(service.host, service.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except OSError:
            return None
        finally:
            connection.close()

    return str(eventually(get, within=10, what=service.url))


def logs(bed: Bed, handle: Handle, *, service: str | None = None, tail: int | None = None) -> tuple[str, str]:
    out, err = bytearray(), bytearray()
    streams = Streams(stdout=out.extend, stderr=err.extend)
    EXTENSION.logs(handle, streams, bed.context(), service=service, follow=False, tail=tail)
    return out.decode(), err.decode()


def test_a_repository_comes_up_and_goes_away_without_a_trace(bed: Bed, tmp_path: Path) -> None:
    repo = repositories.web_and_db(tmp_path / "app", greeting="over ssh")
    (repo / ".git").mkdir()
    (repo / ".git" / "config").write_text("secret remote\n")
    said: list[str] = []
    with bed.nothing_left(), bed.sandbox(repo) as (handle, ready):
        # how it is reached
        (web,) = ready.reachability.services
        assert (web.name, web.container_port, web.host) == ("web", 8080, "127.0.0.1")
        assert fetch(web) == "over ssh\n"
        assert ready.reachability.kind == "ssh"
        assert ready.reachability.remote_dir == str(bed.work_dir / handle.data["name"])
        assert (ready.isolation.class_, ready.isolation.network) == ("container", "bridge")
        assert ready.isolation.syscalls == "filtered"
        # what lies there: the repository without .git, and the marker
        there = Path(ready.reachability.remote_dir)
        assert (there / "serve.sh").is_file()
        assert not (there / ".git").exists()
        marker = json.loads((there / ".sandboxer.json").read_text())
        assert marker[LABEL_ID] == handle.data["sandbox_id"]
        assert marker["sandboxer.extension"] == "ext.compose-ssh"
        # labels on everything
        for kind, word in (("containers", "container"), ("networks", "network"), ("volumes", "volume")):
            names = bed.names(kind, handle)
            assert names
            for item in json.loads(bed.engine.run(bed.engine.program, word, "inspect", *names).stdout):
                labels = (item.get("Config") or {}).get("Labels") or item.get("Labels") or item.get("labels")
                assert labels[LABEL_INSTALL] == INSTALL, item
        # commands and logs, by service
        assert bed.run(handle, "cat", "/www/index.html")[1] == b"over ssh\n"
        assert bed.run(handle, "ls", "/data", service="db")[1] == b"starts\n"
        with pytest.raises(NotFound, match="nosuch"):
            bed.run(handle, "true", service="nosuch")
        for service, words in (("web", "echo to the log >/proc/1/fd/1"), ("db", "echo from db >/proc/1/fd/2")):
            assert bed.run(handle, "sh", "-c", words, service=service)[0] == 0
        assert logs(bed, handle, service="web", tail=1) == ("to the log\n", "")
        out, err = logs(bed, handle)
        assert "web | to the log\n" in out
        assert "db | from db\n" in err
        assert EXTENSION.status(handle, bed.context()).presence == "running"
    assert EXTENSION.status(handle, bed.context()).presence == "absent"
    assert said == []


def test_this_machine_is_a_host_too(here: Bed, tmp_path: Path) -> None:
    with here.nothing_left(), here.sandbox(repositories.web_and_db(tmp_path / "app"), settle=0) as (handle, ready):
        assert ready.reachability.kind == "local"
        assert ready.reachability.host is None
        assert fetch(ready.reachability.services[0]) == "hello\n"
        assert here.run(handle, "cat", stdin=b"through")[1] == b"through"


def test_three_of_one_repository_run_at_once_on_free_ports(bed: Bed, tmp_path: Path) -> None:
    repo = repositories.web_and_db(tmp_path / "app", container_name="the-web")
    done: dict[int, object] = {}

    def one(number: int) -> None:
        try:
            with bed.sandbox(repo, settle=0.5) as (handle, ready):
                (web,) = ready.reachability.services
                bed.run(handle, "sh", "-c", f"echo number {number} > /www/index.html")
                barrier.wait(60)
                done[number] = (web.port, fetch(web))
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            done[number] = error
            barrier.abort()

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    with bed.nothing_left():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    pages = [done[number] for number in range(3)]
    assert all(isinstance(page, tuple) for page in pages), pages
    assert [page[1] for page in pages if isinstance(page, tuple)] == [f"number {n}\n" for n in range(3)]
    assert len({page[0] for page in pages if isinstance(page, tuple)}) == 3


def test_declared_ports_are_taken_as_they_are_and_none_are_not_published(either: Bed, tmp_path: Path) -> None:
    port = either.engine.port(1)
    repo = repositories.web_and_db(tmp_path / "app", port=port)
    with either.sandbox(repo, publish="declared", settle=0) as (_, ready):
        assert [service.port for service in ready.reachability.services] == [port]
    with either.sandbox(repo, publish="none", settle=0) as (_, ready):
        assert ready.reachability.services == []


def test_the_commonest_port_of_all_is_on_the_loopback_unless_it_is_granted_to_the_public(
    podman: Bed, tmp_path: Path
) -> None:
    repo = repositories.minimal(tmp_path / "app")
    path = repo / "compose.yaml"
    port = podman.engine.port(2)
    path.write_text(path.read_text() + f'    ports: ["{port}:80"]\n')
    with podman.sandbox(repo, publish="declared", settle=0) as (_, ready):
        assert [(service.host, service.port) for service in ready.reachability.services] == [("127.0.0.1", port)]
        assert [note for note in ready.isolation.notes if str(port) in note]
        assert not [note for note in ready.isolation.notes if "others can reach it" in note]
    with podman.sandbox(repo, publish="declared", settle=0, grants=["port:public"]) as (_, ready):
        assert [note for note in ready.isolation.notes if "others can reach it" in note]


def test_a_build_leaves_the_image_alone_that_is_there_by_the_name_it_wants(either: Bed, tmp_path: Path) -> None:
    engine, name = either.engine, "localhost/sbx-example-web:1"
    engine.run(engine.program, "tag", "localhost/sbx-base:1", name)

    def image() -> str:
        return engine.run(engine.program, "image", "inspect", "--format", "{{.Id}}", name).stdout

    before = image()
    with either.nothing_left(), either.sandbox(repositories.web_and_db(tmp_path / "app"), settle=0) as (handle, _):
        assert image() == before
        assert either.run(handle, "ls", "/serve.sh")[0] == 0
        built = engine.run(engine.program, "images", "--format", "{{.Repository}}").stdout.split()
        assert [one for one in built if one.removeprefix("localhost/") == f"{handle.data['name']}-web"]


def test_ports_in_every_notation_are_remapped(bed: Bed, tmp_path: Path) -> None:
    repo = repositories.minimal(tmp_path / "app")
    ports = ['"18491:80"', '"127.0.0.1:18492:53/udp"', '"18493-18494:90-91"', "{target: 99, published: 18495}", "100"]
    ports.append('"${SOME_PORT:-18496}:101"')
    path = repo / "compose.yaml"
    path.write_text(path.read_text() + "    ports:\n" + "".join(f"      - {port}\n" for port in ports))
    with bed.sandbox(repo, settle=0) as (_, ready):
        services = ready.reachability.services
        assert sorted(service.container_port for service in services) == [53, 80, 90, 91, 99, 100, 101]
        assert {service.host for service in services} == {"127.0.0.1"}
        assert not {service.port for service in services} & set(range(18490, 18500))
        assert [s.url.partition(":")[0] for s in services if s.container_port == 53] == ["udp"]


def test_a_compose_file_in_a_folder_finds_its_neighbours_and_env(either: Bed, tmp_path: Path) -> None:
    repo = repositories.web_and_db(tmp_path / "app" / "deploy").parent
    (repo / "deploy" / ".env").write_text("GREETING=from .env\n")
    with either.sandbox(repo, compose_file="deploy/compose.yaml", settle=0) as (handle, ready):
        assert fetch(ready.reachability.services[0]) == "from .env\n"
        assert either.run(handle, "ls", "/srv", service="db")[1] == b"store.sh\n"


def test_fixed_names_of_networks_and_volumes_are_not_shared(bed: Bed, tmp_path: Path) -> None:
    repo = repositories.minimal(tmp_path / "app")
    path = repo / "compose.yaml"
    path.write_text(
        "name: taken\n"
        + path.read_text()
        + '    volumes: ["data:/data"]\n    networks: [inner]\n    container_name: precious\n'
        "volumes: {data: {name: precious-data}}\nnetworks: {inner: {name: precious-net}}\n"
    )
    engine = bed.engine
    engine.run(engine.program, "volume", "create", "precious-data")
    engine.run(engine.program, "run", "-d", "--name", "precious", "localhost/sbx-base:1", "sleep", "600")
    try:
        with bed.nothing_left(), bed.sandbox(repo, settle=0) as (handle, _):
            assert len(bed.names("volumes", handle)) == 1
            # the old name of the container still resolves inside
            assert bed.run(handle, "nslookup", "precious")[0] == 0
        assert "precious-data" in engine.resources()["volumes"]
        assert "precious" in engine.resources()["containers"]
    finally:
        engine.run(engine.program, "rm", "-f", "-v", "precious")
        engine.run(engine.program, "volume", "rm", "precious-data")


SEVERAL = {
    "override": {"compose.yaml": "first", "compose.override.yaml": "second"},
    "dotenv": {"compose.yaml": "other", "a.yaml": "first", "b.yaml": "second", ".env": "COMPOSE_FILE=a.yaml:b.yaml\n"},
}


@pytest.mark.parametrize("files", SEVERAL.values(), ids=SEVERAL)
def test_a_trusted_project_of_several_files_comes_up_as_compose_puts_them_together(
    bed: Bed, tmp_path: Path, files: dict[str, str]
) -> None:
    repo = tmp_path / "app"
    repo.mkdir()
    idle = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done"]
    first = {
        "image": "localhost/sbx-base:1",
        "command": idle,
        "environment": {"WHO": "first", "KEPT": "first", "FROM": "${UNKNOWN:-nothing}"},
        "ports": ["18478:80"],
        "volumes": ["named:/named", {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1 << 20}}, "./:/app:ro"],
        "deploy": {"resources": {"limits": {"memory": "64M"}}},
        "cap_add": ["SYS_PTRACE"],
    }
    second = {"environment": ["WHO=second"], "ports": ["18479:81"]}
    documents = {
        "first": {"services": {"main": first}, "volumes": {"named": {"name": "precious"}}},
        "second": {"services": {"main": second}},
        "other": {"services": {"other": {"image": "localhost/sbx-base:1", "command": ["false"]}}},
    }
    for name, which in files.items():
        (repo / name).write_text(json.dumps(documents[which]) if which in documents else which)
    with bed.nothing_left(), bed.sandbox(repo, settle=0, policy="trusted") as (handle, ready):
        assert "the compose file was not judged (policy: trusted)" in ready.isolation.notes
        assert [service.container_port for service in ready.reachability.services] == [80, 81]
        assert {service.host for service in ready.reachability.services} == {"127.0.0.1"}
        assert not [service for service in ready.reachability.services if service.port in (18478, 18479)]
        assert bed.run(handle, "sh", "-c", "echo $WHO $KEPT; ls /app")[1].split()[:2] == [b"second", b"first"]
        assert [name for name in bed.names("volumes", handle) if name.endswith("named")]


def test_external_volumes_and_networks_stay(either: Bed, tmp_path: Path) -> None:
    repo = repositories.minimal(tmp_path / "app")
    path = repo / "compose.yaml"
    path.write_text(
        path.read_text() + '    volumes: ["kept:/kept"]\n    networks: [kept]\n'
        "volumes: {kept: {external: true}}\nnetworks: {kept: {external: true}}\n"
    )
    engine = either.engine
    engine.run(engine.program, "volume", "create", "kept")
    engine.run(engine.program, "network", "create", "kept")
    try:
        granted = ["volume:kept", "network:kept"]
        with either.nothing_left(), either.sandbox(repo, settle=0, grants=granted) as (handle, ready):
            either.run(handle, "sh", "-c", "echo data > /kept/file")
            assert [note for note in ready.isolation.notes if "the volume kept, which is not only" in note]
            assert [note for note in ready.isolation.notes if note.startswith("granted volume:kept")]
        with either.sandbox(repo, settle=0, policy="trusted") as (handle, _):
            assert either.run(handle, "cat", "/kept/file")[1] == b"data\n"
    finally:
        engine.run(engine.program, "network", "rm", "kept")
        engine.run(engine.program, "volume", "rm", "kept")


def test_a_built_image_without_a_name_goes_with_its_sandbox(either: Bed, tmp_path: Path) -> None:
    repo = tmp_path / "app"
    repo.mkdir()
    (repo / "compose.yaml").write_text("services:\n  main: {build: .}\n")
    (repo / "Dockerfile").write_text('FROM localhost/sbx-base:1\nCOPY . /src\nCMD ["sleep", "600"]\n')
    with either.nothing_left(), either.sandbox(repo, settle=0) as (handle, _):
        # and what is ours is in no build context
        assert sorted(either.run(handle, "ls", "-A", "/src")[1].split()) == [b"Dockerfile", b"compose.yaml"]


def test_the_hosts_environment_is_not_interpolated_and_its_settings_only_for_a_trusted_file(
    either: Bed, tmp_path: Path
) -> None:
    repo = repositories.minimal(tmp_path / "app")
    path = repo / "compose.yaml"
    path.write_text(
        path.read_text() + '    environment: {GOT: "${SSH_CONNECTION:-nothing}", HOST: "${PATH:-no path}"}\n'
    )

    with either.sandbox(repo, settle=0, env={"SSH_CONNECTION": "told"}) as (handle, _):
        assert either.run(handle, "sh", "-c", "echo $GOT")[1] == b"told\n"
    for policy in ("contained", "trusted"):
        with either.sandbox(repo, settle=0, policy=policy) as (handle, _):
            assert either.run(handle, "sh", "-c", "echo $GOT")[1] == b"nothing\n"
            assert (either.run(handle, "sh", "-c", "echo $HOST")[1] == b"no path\n") is (policy == "contained")


def test_a_container_without_a_shell_can_be_entered_and_copied_from(either: Bed, tmp_path: Path) -> None:
    repo = tmp_path / "app"
    repo.mkdir()
    tools = "FROM localhost/sbx-base:1 AS tools\nFROM scratch\nCOPY --from=tools /bin/busybox /only/busybox\n"
    (repo / "Dockerfile").write_text(tools + 'CMD ["/only/busybox", "sleep", "600"]\n')
    (repo / "compose.yaml").write_text("services:\n  main: {build: ., init: true}\n")
    with either.sandbox(repo, settle=0) as (handle, _):
        assert either.run(handle, "/only/busybox", "echo", "here", env={"PATH": "/nowhere"})[:2] == (0, b"here\n")
        assert either.run(handle, "sh")[0] == 127
        assert EXTENSION.path_kind(handle, "/only/busybox", either.context()) == "file"
        EXTENSION.put_archive(handle, "/made/here", archive({"a": b"1"}), either.context())
        assert either.run(handle, "/only/busybox", "cat", "/made/here/a")[1] == b"1"
        # a command that outlives its time ends inside too, without any program in there
        with pytest.raises(Exception, match="time"):
            either.run(handle, "/only/busybox", "sleep", "4711", seconds=1)
        assert b"4711" not in either.run(handle, "/only/busybox", "ps", "w")[1]


def sink_of(file: io.BytesIO) -> Callable[[bytes], None]:
    def sink(chunk: bytes) -> None:
        file.write(chunk)

    return sink


def archive(files: dict[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    packed.seek(0)
    return packed


def test_relative_paths_start_at_the_working_directory_and_links_are_followed(either: Bed, tmp_path: Path) -> None:
    repo = repositories.minimal(tmp_path / "app")
    path = repo / "compose.yaml"
    path.write_text(path.read_text() + '    working_dir: /tmp\n    volumes: ["data:/data"]\nvolumes: {data: {}}\n')
    with either.sandbox(repo, settle=0) as (handle, _):
        context = either.context()
        EXTENSION.put_archive(handle, "in/here", archive({"f": b"relative"}), context)
        assert either.run(handle, "cat", "/tmp/in/here/f")[1] == b"relative"
        EXTENSION.put_archive(handle, "/data/deep", archive({"f": b"on a volume"}), context)
        assert either.run(handle, "cat", "/data/deep/f")[1] == b"on a volume"
        either.run(handle, "sh", "-c", "ln -s /tmp/in /tmp/link; ln -s nowhere /tmp/dangling")
        kinds = [EXTENSION.path_kind(handle, p, context) for p in ("link", "link/here/f", "dangling", "in/here/f/x")]
        assert kinds == ["directory", "file", "absent", "absent"]
        got = io.BytesIO()
        EXTENSION.get_archive(handle, "link", sink_of(got), context)
        with tarfile.open(fileobj=io.BytesIO(got.getvalue())) as tar:
            assert [name.rstrip("/") for name in tar.getnames()] == ["link", "link/here", "link/here/f"]
        with pytest.raises(Conflict, match="not a directory"):
            EXTENSION.put_archive(handle, "/tmp/in/here/f", archive({"g": b""}), context)
        with pytest.raises(Invalid, match="leads out"):
            EXTENSION.put_archive(handle, "/tmp", archive({"../g": b""}), context)


def test_a_directory_that_is_closed_for_its_owner_arrives_as_it_was(either: Bed, tmp_path: Path) -> None:
    """Its header comes twice in the archive: open before what is in it, and as it is at the end."""
    tree = tmp_path / "tree"
    (tree / "closed" / "shut").mkdir(parents=True)
    (tree / "closed" / "shut" / "file").write_text("inside")
    packed = io.BytesIO()
    (tree / "closed" / "shut").chmod(0)
    (tree / "closed").chmod(0o555)
    try:
        write_tar(tree, packed.write)
    finally:
        (tree / "closed").chmod(0o755)
        (tree / "closed" / "shut").chmod(0o755)
    with either.sandbox(repositories.minimal(tmp_path / "app"), settle=0) as (handle, _):
        packed.seek(0)
        EXTENSION.put_archive(handle, "/made/tree", packed, either.context())
        assert either.run(handle, "cat", "/made/tree/closed/shut/file")[:2] == (0, b"inside")
        shown = either.run(handle, "stat", "-c", "%a", "/made/tree/closed", "/made/tree/closed/shut")
        assert shown[:2] == (0, b"555\n0\n")


TMPFS = {
    "tmpfs": {"tmpfs": ["/scratch"]},
    "mount": {"volumes": [{"type": "tmpfs", "target": "/scratch"}]},
    "read-only": {"tmpfs": ["/scratch"], "read_only": True},
}


def in_memory(folder: Path, service: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    main = {"image": "localhost/sbx-base:1", "command": ["sleep", "600"], "init": True, **service}
    (folder / "compose.yaml").write_text(json.dumps({"services": {"main": main}}))
    return folder


@pytest.mark.parametrize("service", TMPFS.values(), ids=TMPFS)
def test_files_are_copied_into_and_out_of_a_file_system_in_memory(
    either: Bed, tmp_path: Path, service: dict[str, Any]
) -> None:
    with either.sandbox(in_memory(tmp_path / "app", service), settle=0) as (handle, _):
        context = either.context()
        assert EXTENSION.path_kind(handle, "/scratch/new", context) == "absent"
        EXTENSION.put_archive(handle, "/scratch", archive({"f": b"1"}), context)
        EXTENSION.put_archive(handle, "/scratch/new/deep", archive({"g": b"2"}), context)
        EXTENSION.put_archive(handle, "/dev/shm", archive({"h": b"3"}), context)
        either.run(handle, "ln", "-s", "/scratch", "/dev/shm/link")
        EXTENSION.put_archive(handle, "/dev/shm/link/by", archive({"link": b"4"}), context)
        read = ("cat", "/scratch/f", "/scratch/new/deep/g", "/dev/shm/h", "/scratch/by/link")
        assert either.run(handle, *read)[1] == b"1234"
        kinds = [EXTENSION.path_kind(handle, path, context) for path in ("/scratch/f", "/scratch/new", "/scratch/no")]
        assert kinds == ["file", "directory", "absent"]
        with pytest.raises(Conflict, match="not a directory"):
            EXTENSION.put_archive(handle, "/scratch/f", archive({"g": b""}), context)
        for path, names in (
            ("/scratch/f", ["f"]),
            ("/dev/shm/link/new", ["new", "new/deep", "new/deep/g"]),
            ("/dev/shm/link", ["link", "link/by", "link/by/link", "link/f", "link/new", "link/new/deep"]),
        ):
            got = io.BytesIO()
            EXTENSION.get_archive(handle, path, sink_of(got), context)
            with tarfile.open(fileobj=io.BytesIO(got.getvalue())) as tar:
                assert sorted(name.rstrip("/") for name in tar.getnames())[: len(names)] == names
        with pytest.raises(NotFound):
            EXTENSION.get_archive(handle, "/scratch/no", sink_of(io.BytesIO()), context)


def test_hard_links_are_copied_both_ways_and_what_is_no_file_is_left_out_and_counted(
    either: Bed, tmp_path: Path
) -> None:
    repo = in_memory(tmp_path / "app", {"volumes": ["./data:/data"]})
    (repo / "data" / "sub").mkdir(parents=True)
    with either.sandbox(repo, settle=0) as (handle, _):
        data = Path(str(handle.data["directory"])) / "data"
        (data / "a").write_bytes(b"once")
        (data / "b").hardlink_to(data / "a")
        (data / "sub" / "c").hardlink_to(data / "a")
        os.mkfifo(data / "fifo")
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            one.bind(str(data / "one.sock"))
            two.bind(str(data / "sub" / "two.sock"))
            context = either.context()
            for path in ("/data", "data/../data"):
                got = io.BytesIO()
                left_out = EXTENSION.get_archive(handle, path, sink_of(got), context)
                assert left_out is not None
                assert left_out.count == 2  # the FIFO is in the archive: whoever unpacks it leaves it out
                assert sum(".sock" in said for said in left_out.said) == 2
            for path in ("/data/one.sock", "/data/fifo"):
                assert EXTENSION.path_kind(handle, path, context) == "file"
                nothing = io.BytesIO()
                EXTENSION.get_archive(handle, path, sink_of(nothing), context)
                with tarfile.open(fileobj=io.BytesIO(nothing.getvalue())) as tar:
                    assert not [member for member in tar if member.isreg() or member.isdir()]
        with tarfile.open(fileobj=io.BytesIO(got.getvalue())) as tar:
            for name in ("data/a", "data/b", "data/sub/c"):
                file = tar.extractfile(name)
                assert file is not None
                assert file.read() == b"once"
        got.seek(0)
        EXTENSION.put_archive(handle, "/srv/copy", sound(got), context)
        look = "cd /srv/copy/data; cat a b sub/c; [ a -ef b ] && [ a -ef sub/c ]"
        assert either.run(handle, "sh", "-c", look)[:2] == (0, b"onceonceonce")


def sound(archive: io.BytesIO) -> io.BytesIO:
    """An archive without its FIFOs."""
    kept = io.BytesIO()
    with tarfile.open(fileobj=archive) as tar, tarfile.open(fileobj=kept, mode="w") as out:
        for member in tar:
            if not member.isfifo():
                out.addfile(member, tar.extractfile(member) if member.isreg() else None)
    kept.seek(0)
    return kept


def test_a_copy_onto_a_read_only_root_is_there_or_an_error(either: Bed, tmp_path: Path) -> None:
    repo = in_memory(tmp_path / "app", {"tmpfs": ["/scratch"], "read_only": True})
    with either.sandbox(repo, settle=0) as (handle, _):
        try:
            EXTENSION.put_archive(handle, "/opt/new", archive({"f": b"there"}), either.context())
        except Conflict as error:
            assert "read-only" in error.message
        else:
            assert either.run(handle, "cat", "/opt/new/f")[1] == b"there"


def test_a_file_system_in_memory_of_a_container_that_has_ended_is_an_error(either: Bed, tmp_path: Path) -> None:
    repo = in_memory(tmp_path / "app", {"tmpfs": ["/scratch"], "command": ["true"]})
    with either.sandbox(repo, settle=0) as (handle, _):
        for path in ("/scratch", "/scratch/below"):
            with pytest.raises(Conflict, match="only while service 'main' runs"):
                EXTENSION.put_archive(handle, path, archive({"f": b""}), either.context())


def test_without_a_tar_inside_what_is_in_memory_cannot_be_copied_and_that_is_told(docker: Bed, tmp_path: Path) -> None:
    tools = "FROM localhost/sbx-base:1 AS tools\nFROM scratch\nCOPY --from=tools /bin/busybox /only/busybox\n"
    repo = in_memory(tmp_path / "app", {"build": ".", "image": "localhost/sbx-example-bare:1", "tmpfs": ["/scratch"],
                                        "command": ["/only/busybox", "sleep", "600"]})  # fmt: skip
    (repo / "Dockerfile").write_text(tools)
    with docker.sandbox(repo, settle=0) as (handle, _):
        docker.run(handle, "/only/busybox", "touch", "/scratch/f")
        docker.run(handle, "/only/busybox", "ln", "-s", "../scratch", "/only/link")
        for act in (
            lambda: EXTENSION.put_archive(handle, "/scratch", archive({"g": b""}), docker.context()),
            lambda: EXTENSION.get_archive(handle, "/scratch/f", sink_of(io.BytesIO()), docker.context()),
            lambda: EXTENSION.path_kind(handle, "/scratch/f", docker.context()),
            lambda: EXTENSION.put_archive(handle, "/only/link/made", archive({"g": b""}), docker.context()),
        ):
            with pytest.raises(Unsupported, match="in memory"):
                act()


def test_a_command_in_a_service_that_has_ended_is_a_conflict(podman: Bed, tmp_path: Path) -> None:
    repo = repositories.exits(tmp_path / "app", code=0)
    with podman.sandbox(repo, settle=0) as (handle, _), pytest.raises(Conflict, match="not running"):
        podman.run(handle, "true", service="job")


def test_variables_for_the_container_never_reach_the_engines_client(either: Bed, tmp_path: Path) -> None:
    with either.sandbox(repositories.minimal(tmp_path / "app"), settle=0) as (handle, _):
        hostile = {
            "PATH": "/bin",
            "DOCKER_HOST": "tcp://127.0.0.1:1",
            "LD_PRELOAD": "",
            "CONTAINERS_CONF": "/nope",
            "HOME": "/h",
        }
        code, out, _ = either.run(handle, "env", env={**hostile, "LINES2": "a\nb"})
        assert code == 0
        for name, value in hostile.items():
            assert f"{name}={value}\n".encode() in out
        assert b"LINES2=a\nb\n" in out
        with pytest.raises(Invalid, match="longer than a line"):
            either.run(handle, "true", env={"DOCKER_HOST": "a\nb"})


def test_logs_are_followed_from_several_services_until_the_time_is_over(podman: Bed, tmp_path: Path) -> None:
    repo = tmp_path / "app"
    repo.mkdir()
    words = '["sh", "-c", "trap \'exit 0\' TERM; n=0; while :; do echo tick; sleep 0.2; done"]'
    (repo / "compose.yaml").write_text(
        "services:\n" + "".join(f"  {n}: {{image: 'localhost/sbx-base:1', command: {words}}}\n" for n in ("one", "two"))
    )
    with podman.sandbox(repo, settle=0) as (handle, _):
        out = bytearray()
        streams = Streams(stdout=out.extend, stderr=out.extend)
        with pytest.raises(Exception, match="time"):
            EXTENSION.logs(handle, streams, podman.context(seconds=2), service=None, follow=True, tail=1)
        assert b"one | tick\n" in out
        assert b"two | tick\n" in out


def test_the_host_shows_what_the_processes_of_a_stack_use(bed: Bed, tmp_path: Path) -> None:
    repo = repositories.web_and_db(tmp_path / "app")
    with bed.nothing_left(), bed.sandbox(repo) as (handle, _):
        context = bed.context()
        (first,) = EXTENSION.first_processes([handle], context)
        assert len(first) == 2
        used = sandbox_usage(context.host, {"a": first}, Deadline(60))["a"]
        assert used is not None
        assert used.processes >= 2
        assert used.memory_bytes > 0
