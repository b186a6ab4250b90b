"""What runs on a host, as words: for each front end, and with nothing of a user's in a script."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh import argv, scripts
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle, to_handle
from sandboxer.extensions.compose_ssh.options import parse_compose_command
from sandboxer.models import Handle
from tests.testbed.components import need

SANDBOX = ComposeHandleData(
    sandbox_id="k3v9x2m7q4ta",
    name="sbx-k3v9x2m7q4ta",
    directory="/srv/sbx-k3v9x2m7q4ta",
    state="/srv/.sandboxer/sbx-k3v9x2m7q4ta",
    project="/srv/sbx-k3v9x2m7q4ta/deploy",
    compose=["docker", "compose"],
    services={"web": 1},
    main="web",
)
PODMAN = ComposeHandleData(**{**to_handle(SANDBOX).data, "compose": ["/opt/bin/podman-compose"]})


@pytest.mark.parametrize(
    ("setting", "words", "engine", "podman", "plugin"),
    [
        (None, ("docker", "compose"), "docker", False, ["docker", "compose", "version"]),
        ("docker compose", ("docker", "compose"), "docker", False, ["docker", "compose", "version"]),
        (
            "/opt/docker compose",
            ("/opt/docker", "compose"),
            "/opt/docker",
            False,
            ["/opt/docker", "compose", "version"],
        ),
        ("docker-compose", ("docker-compose",), "docker", False, []),
        ("podman-compose", ("podman-compose",), "podman", True, []),
        ("'/with space/podman-compose'", ("/with space/podman-compose",), "podman", True, []),
        ("podman compose", ("podman", "compose"), "podman", True, ["podman", "compose", "version"]),
    ],
)
def test_a_setting_names_a_front_end_and_its_engine(
    setting: str | None, words: tuple[str, ...], engine: str, podman: bool, plugin: list[str]
) -> None:
    front = parse_compose_command(setting)
    assert (front.words, front.engine, front.podman, front.plugin_check) == (words, engine, podman, plugin)


@pytest.mark.parametrize("setting", [" ", "'", "--help", "-x compose"])
def test_a_setting_that_names_no_program_is_invalid(setting: str) -> None:
    with pytest.raises(Invalid):
        parse_compose_command(setting)


def words_of(command: list[str]) -> list[str]:
    """The arguments of a script."""
    assert command[:2] == ["/bin/sh", "-c"]
    own = [value for name, value in vars(scripts).items() if name.isupper()]
    assert command[2].removeprefix(scripts.ABSOLUTE).removeprefix(scripts.COMPOSE) in own
    return command[4:]


def test_up_and_down_run_the_front_end_in_the_project_with_the_file_on_stdin() -> None:
    assert words_of(argv.up(SANDBOX, build=True, keep=["DOCKER_HOST", "X"])) == [
        "/srv/sbx-k3v9x2m7q4ta/deploy", "/srv/.sandboxer/sbx-k3v9x2m7q4ta", "", "/srv/sbx-k3v9x2m7q4ta",
        "DOCKER_HOST X", "docker", "compose", "-p", "sbx-k3v9x2m7q4ta", "-f", "-", "up", "-d", "--build",
    ]  # fmt: skip
    assert words_of(argv.down(PODMAN)) == [
        "/srv/sbx-k3v9x2m7q4ta/deploy", "/srv/.sandboxer/sbx-k3v9x2m7q4ta", "", "/opt/bin/podman-compose",
        "-p", "sbx-k3v9x2m7q4ta", "-f", "-", "down", "-v", "--remove-orphans", "-t", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("compose", [["docker", "compose"], ["docker-compose"], ["podman-compose"]])
def test_a_judged_file_goes_with_its_hash_and_an_empty_env_file_and_runs_in_a_directory_of_ours(
    compose: list[str],
) -> None:
    sandbox = msgspec.structs.replace(SANDBOX, compose=compose, sha256="abc", project=f"{SANDBOX.state}/project")
    own = f"{SANDBOX.state}/project"
    for command, verb in ((argv.up(sandbox, build=False, keep=[]), "up"), (argv.down(sandbox), "down")):
        words = words_of(command)
        assert "abc" in words[:5]
        assert own in words[:2]
        start = words.index(compose[0])
        front = [*compose, "--env-file", f"{own}/.env", "-p", SANDBOX.name, "-f", "-", verb]
        assert words[start : start + len(front)] == front


def test_a_compose_program_runs_in_one_way_only_which_looks_at_the_hash(tmp_path: Path) -> None:
    for name, text in vars(scripts).items():
        if name.isupper() and name != "COMPOSE":
            assert ' <"$state/compose.yaml"' not in text, name
    ran = tmp_path / "ran"
    program = tmp_path / "compose"
    program.write_text(f"#!/bin/sh\ncat >{ran}\n")
    program.chmod(0o755)
    (tmp_path / "state" / "project").mkdir(parents=True)
    judged = hashlib.sha256(b"judged").hexdigest()
    sandbox = msgspec.structs.replace(
        SANDBOX,
        compose=[str(program)],
        sha256=judged,
        directory=str(tmp_path / "repo"),
        state=str(tmp_path / "state"),
        project=str(tmp_path / "state" / "project"),
    )
    for command in (argv.up(sandbox, build=False, keep=[]), argv.down(sandbox)):
        for text in ("judged", "another"):
            (tmp_path / "state" / "compose.yaml").write_text(text)
            ran.unlink(missing_ok=True)
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
            assert ran.exists() is (text == "judged"), done
            assert not ran.exists() or ran.read_text() == text
            assert ("is not the one that was judged" in done.stderr) is (text == "another")


def test_no_script_finds_a_program_in_the_directory_that_it_works_in(tmp_path: Path) -> None:
    for name in ("find", "sha256sum", "readlink"):
        planted = tmp_path / name
        planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        planted.chmod(0o755)
    sandbox = msgspec.structs.replace(SANDBOX, directory=str(tmp_path))
    env = {"PATH": f".:{os.environ['PATH']}:"}
    done = subprocess.run(argv.observe(sandbox), input=b"r find\n=\nt .\n", env=env, capture_output=True, check=True)
    assert done.stdout.startswith(b"find\0f\0")
    assert not (tmp_path / "ran").exists()


def test_looking_asks_the_engine_by_label_and_runs_the_checks_it_is_told() -> None:
    label = "label=com.docker.compose.project=sbx-k3v9x2m7q4ta"
    assert words_of(argv.look(SANDBOX)) == ["docker", label]
    assert words_of(argv.look(PODMAN, [("abc", 2.4), ("def", 0.1)])) == ["podman", label, "abc", "2", "def", "1"]


def test_a_command_inside_gets_its_words_as_they_are_and_its_values_from_elsewhere() -> None:
    passed = argv.split_environment({"PATH": "/bin", "LINES": "a\nb"})
    words = ["-x", "a b", "$HOME", ""]
    command = argv.inside(SANDBOX, "abc", words, cwd="-odd", tty=True, passed=passed)
    assert words_of(command) == [
        "/srv/.sandboxer/sbx-k3v9x2m7q4ta", "1", "docker", "exec", "-i", "-t", "-w", "-odd", "-e", "LINES",
        "--env-file", "/dev/fd/3", "abc", "-x", "a b", "$HOME", "",
    ]  # fmt: skip


def test_copies_and_logs() -> None:
    assert argv.pack(SANDBOX, "abc", "/a b") == ["docker", "cp", "-L", "abc:/a b", "-"]
    assert argv.pack(PODMAN, "abc", "/a b") == ["podman", "cp", "abc:/a b", "-"]
    assert argv.unpack(PODMAN, "abc", "/") == ["podman", "cp", "-", "abc:/"]
    assert argv.logs(SANDBOX, "abc", follow=True, tail=5) == ["docker", "logs", "--follow", "--tail", "5", "abc"]
    assert argv.logs(PODMAN, "abc", follow=False, tail=None) == ["podman", "logs", "abc"]
    assert words_of(argv.follow(PODMAN, [("web", "abc")], tail=None)) == ["podman", "", "web", "abc"]


@pytest.mark.parametrize("name", sorted(name for name, text in vars(scripts).items() if name.isupper()))
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_script_is_read_by_every_shell(name: str, shell: str) -> None:
    words = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}[shell]
    text = getattr(scripts, name)
    try:
        done = subprocess.run([*words, "-n", "-c", text], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"missing: {words[0]}")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_remembered_survives_the_handle() -> None:
    assert from_handle(to_handle(SANDBOX)) == SANDBOX


def test_a_handle_of_before_the_policy_is_still_one_and_runs_as_it_was_made() -> None:
    old = {key: value for key, value in to_handle(SANDBOX).data.items() if key not in ("sha256", "notes")}
    sandbox = from_handle(Handle(version=1, data=old))
    assert sandbox == SANDBOX
    assert "--env-file" not in argv.down(sandbox)


@pytest.mark.parametrize("judged", [True, False], ids=["judged", "trusted"])
def test_git_runs_nothing_that_a_judged_repository_names(judged: bool, tmp_path: Path) -> None:
    """buildx asks git about each build context. The trusted one shows that the attack works."""
    need("git")
    app, state, ran = tmp_path / "repo" / "app", tmp_path / "state", tmp_path / "ran"
    (state / "project").mkdir(parents=True)
    app.mkdir(parents=True)
    hostile = app / "hostile"
    hostile.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hostile.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null"}
    for words in (["init", "-q"], ["config", "core.fsmonitor", str(hostile)]):
        subprocess.run(["git", "-C", str(app), *words], check=True, env=env)
    (state / "compose.yaml").write_text("{}")
    for name in ("marker.json", "up.out", "up.err"):
        (state / name).touch()
    sandbox = ComposeHandleData(
        sandbox_id="k3v9x2m7q4ta",
        name="sbx-k3v9x2m7q4ta",
        directory=str(tmp_path / "repo"),
        state=str(state),
        project=str(state / "project"),
        compose=["git", "-C", str(app), "status"],
        sha256=hashlib.sha256(b"{}").hexdigest() if judged else "",
    )
    words = argv.up(sandbox, build=False, keep=["GIT_DIR"])
    # the front end's place is taken by what buildx runs
    words = [*words[: words.index("git")], "git", "-C", str(app), "status", "--porcelain"]
    subprocess.run(words, check=False, env=env, capture_output=True, timeout=60)
    assert ran.exists() is not judged
