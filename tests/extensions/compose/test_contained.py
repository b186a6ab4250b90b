"""Stacks that were judged: attacked after they came up, and the honest ones that people have. Real programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import BackendError, Conflict, Denied
from sandboxer.extensions.base import Context
from sandboxer.extensions.compose_ssh import argv, client
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle
from sandboxer.extensions.compose_ssh.integrity import RecordingTree
from sandboxer.extensions.compose_ssh.options import ComposeOptions
from sandboxer.extensions.compose_ssh.policy import LocalTree
from sandboxer.extensions.compose_ssh.scripts import OBSERVE
from sandboxer.hosts.base import Progress, SyncReport
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle
from sandboxer.names import new_id
from sandboxer.timing import Deadline
from tests.extensions.compose.policy.corpora import Case, cases
from tests.extensions.compose.sandboxes import EXTENSION, INSTALL, Bed, spec
from tests.sizes import scaled
from tests.testbed import repositories
from tests.testbed.hosts import KINDS, Kind
from tests.testbed.image import BASE
from tests.testbed.waiting import eventually

CANARY = "canary-of-the-host"
IDLE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done"]


def written(folder: Path, document: dict[str, Any], **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "compose.yaml").write_text(json.dumps(document))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A repository whose service `writer` may write what `reader` is given, and a directory of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("app.txt", "token.txt"):
        (outside / name).write_text(CANARY)
    services = {
        "writer": {"image": BASE, "command": IDLE, "volumes": [".:/app"]},
        "reader": {
            "image": BASE,
            "command": IDLE,
            "volumes": ["./conf/app.txt:/app.txt:ro", "./conf:/conf:ro"],
            "secrets": ["token"],
        },
    }
    document = {"version": "3.9", "services": services, "secrets": {"token": {"file": "./conf/token.txt"}}}
    return written(tmp_path / "app", document, **{"conf/app.txt": "ours", "conf/token.txt": "ours"}), outside


def seen_by_reader(bed: Bed, handle: Handle) -> bytes:
    """All that `reader` finds where its mounts are."""

    def running() -> bool:
        return any(c.running and c.service == "reader" for c in client.containers(kept(handle), bed.context()))

    eventually(running, within=60, what="reader to run again")
    script = "cat /app.txt /conf/* /run/secrets/* 2>&1; true"
    return bed.run(handle, "sh", "-c", script, service="reader")[1]


def kept(handle: Handle) -> ComposeHandleData:
    return from_handle(handle)


def restarts(bed: Bed, handle: Handle) -> list[bytes]:
    """What `reader` sees after links were planted, after a restart, and after a stop and a start."""
    (name,) = [name for name in bed.names("containers", handle) if "reader" in name]
    engine = bed.engine
    seen = [seen_by_reader(bed, handle)]
    for words in (["restart", "-t", "0", name], ["stop", "-t", "0", name], ["start", name]):
        engine.run(engine.program, *words, check=False)
        if words[0] != "stop":
            try:
                seen.append(seen_by_reader(bed, handle))
            except AssertionError:
                seen.append(b"it did not start")
    return seen


def plant(bed: Bed, handle: Handle, outside: Path) -> None:
    script = f"rm -rf /app/conf && ln -s {outside} /app/conf"
    assert bed.run(handle, "sh", "-c", script, service="writer")[0] == 0


def test_links_that_a_container_plants_lead_no_other_one_out(bed: Bed, tmp_path: Path) -> None:
    repo, outside = planted(tmp_path)
    with bed.nothing_left(), bed.sandbox(repo, settle=0) as (handle, _):
        assert seen_by_reader(bed, handle).count(b"ours") == 4
        plant(bed, handle, outside)
        for seen in restarts(bed, handle):
            assert CANARY.encode() not in seen
            assert seen.count(b"ours") == 4


def test_the_same_links_lead_out_where_the_file_is_taken_at_its_word(podman: Bed, tmp_path: Path) -> None:
    """The attack is one: it prints the host's file when nothing was judged."""
    repo, outside = planted(tmp_path)
    with podman.sandbox(repo, settle=0, policy="trusted") as (handle, ready):
        assert "the compose file was not judged (policy: trusted)" in ready.isolation.notes
        plant(podman, handle, outside)
        assert any(CANARY.encode() in seen for seen in restarts(podman, handle))


def test_a_bind_beneath_another_that_can_be_written_is_refused_with_the_pair(podman: Bed, tmp_path: Path) -> None:
    services = {
        "a": {"image": BASE, "volumes": [".:/app"]},
        "b": {"image": BASE, "volumes": ["./data:/data"]},
    }
    with pytest.raises(Denied) as caught:
        podman.provision(written(tmp_path / "app", {"services": services}))
    (violation,) = (caught.value.details or {})["violations"]
    assert violation["path"] == "services.b.volumes[0]"
    assert "a" in violation["gives_away"]


def test_the_marker_is_never_written_through_a_link_of_the_sandbox(podman: Bed, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    script = f"rm -f /app/.sandboxer.json; ln -s {victim} /app/.sandboxer.json; {IDLE[2]}"
    services = {"main": {"image": BASE, "command": ["sh", "-c", script], "volumes": [".:/app"]}}
    with podman.sandbox(written(tmp_path / "app", {"services": services}), settle=0) as (handle, _):
        for target in (victim, folder):
            podman.run(handle, "sh", "-c", f"rm -f /app/.sandboxer.json; ln -s {target} /app/.sandboxer.json")
            EXTENSION.renew(handle, 2000000123.0, podman.context())
            marker = Path(str(handle.data["directory"])) / ".sandboxer.json"
            assert not marker.is_symlink()
            assert "2000000123" in marker.read_text()
    assert victim.read_text() == "precious"
    assert list(folder.iterdir()) == []


def test_a_compose_file_that_was_changed_on_the_host_is_not_used_and_the_sandbox_goes(
    podman: Bed, tmp_path: Path
) -> None:
    with podman.nothing_left(), podman.sandbox(repositories.minimal(tmp_path / "app"), settle=0) as (handle, _):
        file = Path(str(handle.data["state"])) / "compose.yaml"
        assert len(handle.data["sha256"]) == 64
        file.write_text("services: {main: {image: x, privileged: true}}\n")
        done = podman.host.run(argv.down(kept(handle)), Deadline(60))
        assert (done.code, b"is not the one that was judged" in done.stderr) == (125, True)


class Racing(LocalHost):
    """This machine, on which the repository changes at the moment when it is sent."""

    def change(self, source: Path) -> None:
        """What changes."""

    def sync(
        self,
        source: Path,
        target: str,
        deadline: Deadline,
        *,
        exclude: Any = (),
        gitignore: bool = False,
        progress: Progress | None = None,
    ) -> SyncReport:
        self.change(source)
        return super().sync(source, target, deadline, exclude=exclude, gitignore=gitignore, progress=progress)


class SwapsDockerfile(Racing):
    def change(self, source: Path) -> None:
        (source / "Dockerfile").write_text(f"FROM {BASE}\nRUN --security=insecure true\n")


class SwapsBind(Racing):
    def change(self, source: Path) -> None:
        (source / "db" / "store.sh").unlink()
        (source / "db").rmdir()
        (source / "db").symlink_to("/etc")


@pytest.mark.parametrize("kind", [SwapsDockerfile, SwapsBind])
def test_a_repository_that_changes_while_it_is_sent_is_refused_before_anything_runs(
    here: Bed, tmp_path: Path, kind: type[Racing]
) -> None:
    repo = repositories.web_and_db(tmp_path / "app")
    context = Context(host=kind("local", here.settings), install=INSTALL, deadline=Deadline(60))
    wanted = spec(repo, sandbox_id=new_id(), options=ComposeOptions())
    with here.nothing_left():
        with pytest.raises(Conflict, match="changed while it was sent"):
            EXTENSION.provision(wanted, context)
        found = EXTENSION.find(wanted.sandbox_id, context)
        assert found is not None
        EXTENSION.teardown(found, context)


@pytest.mark.parametrize(
    ("script", "same"),
    [
        ("true", True),
        ("rm -r ctx/sub", True),
        ("echo more >> ctx/Dockerfile", False),
        ("ln -sf /etc/passwd ctx/inner", False),
        ("ln -s /etc ctx/new", False),
        ("mkdir ctx/fresh; ln -s /etc ctx/fresh/link", False),
        ("rm -r ctx/sub; ln -s /etc ctx/sub", False),
        ("mv ctx real; ln -s real ctx", False),
        ("echo new > ctx/other", True),
    ],
)
def test_what_was_sent_is_compared_with_what_was_judged(tmp_path: Path, script: str, same: bool) -> None:
    import shutil
    import subprocess

    source, sent = tmp_path / "source", tmp_path / "sent"
    (source / "ctx" / "sub").mkdir(parents=True)
    (source / "ctx" / "Dockerfile").write_text("FROM x\n")
    (source / "ctx" / "sub" / "file").write_text("x")
    (source / "ctx" / "inner").symlink_to("sub/file")
    tree = RecordingTree(LocalTree(source))
    tree.kind("ctx")
    tree.read("ctx/Dockerfile")
    for folder in ("ctx", "ctx/sub"):
        for name, kind in tree.entries(folder).items():
            if kind == "link":
                tree.target(f"{folder}/{name}")
    shutil.copytree(source, sent, symlinks=True)
    subprocess.run(["sh", "-c", script], cwd=sent, check=True)
    words = ["sh", "-c", OBSERVE, "sandboxer", str(sent)]
    answer = subprocess.run(words, input=tree.questions(), capture_output=True, check=True).stdout
    if same:
        tree.compare(answer)
        for end in range(len(answer)):
            with pytest.raises(BackendError):
                tree.compare(answer[:end])
        return
    with pytest.raises(Conflict):
        tree.compare(answer)


def test_files_of_several_kinds_make_one_and_the_programs_own_env_file_has_no_say(bed: Bed, tmp_path: Path) -> None:
    """COMPOSE_FILE, include, extends and a profile of `.env`; what else is in there steers no program."""
    (tmp_path / "app" / "part").mkdir(parents=True)
    files = {
        ".env": "COMPOSE_FILE=base.yaml:more.yaml\nCOMPOSE_PROFILES=debug\nCOMPOSE_PROJECT_NAME=taken\n"
        "DOCKER_HOST=tcp://127.0.0.1:1\nCONTAINERS_CONF=/nope\nCONTAINER_HOST=tcp://127.0.0.1:1\nWORD=from-env\n",
        "base.yaml": "include: [part/compose.yaml]\nservices:\n"
        "  main: {extends: {file: common.yaml, service: base}, environment: {PRICE: '$$5', WORD: '${WORD}'}}\n"
        f"  tool: {{image: '{BASE}', command: [sleep, '600'], profiles: [debug]}}\n"
        f"  never: {{image: '{BASE}', profiles: [other]}}\n",
        "common.yaml": f"services: {{base: {{image: '{BASE}', command: [sleep, '600'], environment: {{A: base}}}}}}\n",
        "more.yaml": "services: {main: {environment: {A: more}}}\n",
        "part/compose.yaml": f"services: {{part: {{image: '{BASE}', command: [sleep, '600']}}}}\n",
    }
    for name, text in files.items():
        (tmp_path / "app" / name).write_text(text)
    with bed.nothing_left(), bed.sandbox(tmp_path / "app", settle=0) as (handle, _):
        assert set(handle.data["services"]) == {"main", "tool", "part"}
        assert bed.run(handle, "sh", "-c", "echo $A $WORD $PRICE", service="main")[1] == b"more from-env $5\n"
        assert bed.run(handle, "true", service="part")[0] == bed.run(handle, "true", service="tool")[0] == 0
        assert not [name for name in bed.engine.resources()["containers"] if "taken" in name]


HONEST = (
    "a front, a back and two networks", "a source tree beside a configuration", "start scripts of a database",
    "secrets with an owner", "volumes in the long form", "a Dockerfile of another name", "an override file",
    "an include",
)  # fmt: skip


def runnable(case: Case, folder: Path) -> Path:
    """The case with the one image that is here, and without what would be downloaded or run in another one."""
    repo = case.lay_out(folder)
    for name in case.files:
        text = (repo / name).read_text()
        if "ockerfile" in name:
            text = re.sub(r"(?m)^FROM (?!build\b)\S+", f"FROM {BASE}", text)
            text = re.sub(r"(?m)^RUN .*$|^(CMD|ENTRYPOINT) .*$", "", text)
        elif name.endswith((".yaml", ".yml")):
            text = re.sub(r"image: [^,}\n]+", f"image: {BASE}", text)
            text = re.sub(r"(?m)^\s+(command|user): .*$", "", text)
        (repo / name).write_text(text)
    return repo


EACH = [  # on one program in turn; on all of them in the long run
    (name, KINDS[(number + turn) % len(KINDS)])
    for number, name in enumerate(HONEST)
    for turn in range(scaled(1, soak=len(KINDS)))
]


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_honest_stacks_come_up(beds: Callable[[Kind], Bed], tmp_path: Path, name: str, kind: Kind) -> None:
    (case,) = [case for case in cases("honest.txt") if case.name == name]
    bed = beds(kind)
    with bed.nothing_left(), bed.sandbox(runnable(case, tmp_path / "app"), settle=0, publish="remapped") as (_, ready):
        assert ready.isolation.syscalls == "filtered"
        assert not [note for note in ready.isolation.notes if "of the host" in note and "mounts" in note]


@pytest.mark.parametrize("kind", KINDS if scaled(0, soak=1) else KINDS[-1:])
def test_a_repository_that_is_built_mounted_whole_and_given_a_settings_file_works(
    beds: Callable[[Kind], Bed], tmp_path: Path, kind: Kind
) -> None:
    """The commonest shape of all: `.:/app`, an anonymous volume inside, `build: .`, env_file, and one file more."""
    app = {
        "build": ".",
        "command": IDLE,
        "env_file": ".env",
        "volumes": [".:/app", "/app/node_modules", "./settings.ini:/etc/settings.ini"],
    }
    files = {
        "Dockerfile": f"FROM {BASE}\nWORKDIR /app\nCOPY . .\n",
        ".env": "WORD='\U0001f600 $$5'\n",
        "settings.ini": "sent\n",
        "src/main": "main\n",
    }
    repo = written(tmp_path / "app", {"services": {"app": app}}, **files)
    bed = beds(kind)
    with bed.nothing_left(), bed.sandbox(repo, settle=0) as (handle, ready):
        script = "echo $WORD; cat src/main /etc/settings.ini; echo new >src/main; echo mine >/etc/settings.ini; "
        script += "touch node_modules/x; cat /etc/settings.ini settings.ini"
        said = bed.run(handle, "sh", "-c", script, service="app")[1].decode()
        assert said == "\U0001f600 $$5\nmain\nsent\nmine\nsent\n"
        directory = Path(kept(handle).directory)
        assert (directory / "src" / "main").read_text() == "new\n"
        assert not (directory / "node_modules" / "x").exists()
        assert any("settings.ini as it was sent" in note for note in ready.isolation.notes)


def test_a_build_gets_what_its_instructions_mount_of_the_context_and_memory(podman: Bed, tmp_path: Path) -> None:
    dockerfile = (
        f"FROM {BASE}\nRUN --mount=type=bind,source=src,target=/given --mount=type=tmpfs,target=/memory "
        "cp /given/text /memory/text && cp /memory/text /kept && ! touch /given/new\n"
    )
    document = {"version": "3.9", "services": {"main": {"build": ".", "command": IDLE}}}
    repo = written(tmp_path / "app", document, Dockerfile=dockerfile, **{"src/text": "mounted"})
    with podman.sandbox(repo, settle=0) as (handle, _):
        assert podman.run(handle, "cat", "/kept")[1] == b"mounted"
