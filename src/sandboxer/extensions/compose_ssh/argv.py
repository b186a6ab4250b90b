"""Make the words that run on a host. Pure: settings and names in, lists of words out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

import msgspec

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh import scripts
from sandboxer.extensions.compose_ssh.engine import PROJECT_LABEL
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData
from sandboxer.extensions.compose_ssh.options import ComposeCommand
from sandboxer.names import check_env_name

STOP_SECONDS: Final = 1
"""How long `down` lets a program end by itself, in seconds. PID 1 `sh` ignores TERM and would take the default's 10."""


MAX_LINE: Final = 60_000
"""Bytes in a line of an env file: the engines' readers give up at 64 KiB."""
_CLIENTS_OWN: Final = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|TERM|TZ|TMPDIR|ENV|IFS|OPTIND|HOSTALIASES|LOCALDOMAIN|RES_OPTIONS"
    r"|NOTIFY_SOCKET|REGISTRY_AUTH_FILE|GCONV_PATH|LOCPATH|NLSPATH"
    r"|(?:LD|LC|LANG|GO|DOCKER|BUILDKIT|BUILDAH|CONTAINER|PODMAN|STORAGE|XDG|SSH|SSL|DBUS|LISTEN|MALLOC|GLIBC|OTEL|BASH"
    r"|SHELL|PS\d|NETAVARK|SANDBOXER|sbx)_?.*|.*_proxy)",
    re.IGNORECASE,
)


def check_text(words: Iterable[str], *, what: str) -> None:
    """Raise Invalid for bytes that are not UTF-8: engines put words into JSON, where others take their place."""
    for word in words:
        if not word.isascii() and any("\ud800" <= char <= "\udfff" for char in word):
            raise Invalid(
                f"{what} holds bytes that are not UTF-8, which container engines cannot pass on",
                hint="rename it, or pass the bytes on stdin",
            )


def script(text: str, *arguments: str) -> list[str]:
    """A script of `scripts.py` for the host, with its arguments."""
    return ["/bin/sh", "-c", scripts.ABSOLUTE + text, "sandboxer", *arguments]


def check(front: ComposeCommand) -> list[str]:
    """Are the programs there, and does the engine answer?"""
    return script(scripts.CHECK, front.words[0], front.engine, *front.plugin_check)


def prepare(sandbox: ComposeHandleData) -> list[str]:
    """Unless its programs are missing: make the directories and write what is remembered."""
    return script(scripts.PREPARE, sandbox.compose[0], engine_of(sandbox), sandbox.directory, sandbox.state)


def _compose(sandbox: ComposeHandleData, text: str, arguments: Sequence[str], *words: str) -> list[str]:
    """A compose command of the sandbox's project. The file comes on stdin and the directory is where it runs: the
    only way in which all front ends agree on the file and on what its relative paths mean. A judged file has neither
    variables nor relative paths: it runs in a directory of ours, with an empty env file."""
    empty = ["--env-file", f"{sandbox.project}/.env"] if sandbox.sha256 else []
    words = (*sandbox.compose, *empty, "-p", sandbox.name, "-f", "-", *words)
    return script(scripts.COMPOSE + text, sandbox.project, sandbox.state, sandbox.sha256, *arguments, *words)


def up(sandbox: ComposeHandleData, *, build: bool, keep: Sequence[str]) -> list[str]:
    """Bring it up. `build`: also when an image of that name is there already, as it may be of another state of the
    repository. `keep`: names of variables of the host's settings."""
    words = ("up", "-d", *(["--build"] if build else []))
    return _compose(sandbox, scripts.UP, (sandbox.directory, " ".join(keep)), *words)


def observe(sandbox: ComposeHandleData) -> list[str]:
    """Answer what the gate asked of the repository, from what was sent."""
    return script(scripts.OBSERVE, sandbox.directory)


def pin(sandbox: ComposeHandleData) -> list[str]:
    """Copy what the engine opens later to where no container writes."""
    return script(scripts.PIN, sandbox.directory, sandbox.pristine)


def down(sandbox: ComposeHandleData) -> list[str]:
    """Take containers, networks and volumes away, as far as the front end knows of them."""
    return _compose(sandbox, scripts.DOWN, (), "down", "-v", "--remove-orphans", "-t", str(STOP_SECONDS))


def stop(sandbox: ComposeHandleData, *, seconds: int) -> list[str]:
    """Stop the containers, which have so long to end, and keep them."""
    return _compose(sandbox, scripts.STOP, (), "stop", "-t", str(seconds))


def start(sandbox: ComposeHandleData) -> list[str]:
    """Start the containers that there are."""
    return _compose(sandbox, scripts.START, (), "start")


def look(sandbox: ComposeHandleData, checks: Sequence[tuple[str, float]] = ()) -> list[str]:
    """Show the project's containers, after running the health checks of those in `checks` (container, seconds)."""
    pairs = [word for container, seconds in checks for word in (container, f"{max(1, round(seconds))}")]
    return script(scripts.LOOK, engine_of(sandbox), f"label={PROJECT_LABEL}={sandbox.name}", *pairs)


def last_exit(sandbox: ComposeHandleData, container: str) -> list[str]:
    """Show the exit code with which a container last ended."""
    return script(scripts.LAST_EXIT, engine_of(sandbox), "--filter", f"container={container}")


def describe(sandbox: ComposeHandleData) -> list[str]:
    """Show all that the project's containers have of their host."""
    return script(scripts.DESCRIBE, engine_of(sandbox), f"label={PROJECT_LABEL}={sandbox.name}")


def sweep(sandbox: ComposeHandleData) -> list[str]:
    """Remove by label and name whatever is left, then look again."""
    return script(scripts.SWEEP, engine_of(sandbox), sandbox.name, sandbox.directory, sandbox.state)


def present(sandbox: ComposeHandleData) -> list[str]:
    """List what exists of a sandbox."""
    return script(scripts.PRESENT, engine_of(sandbox), sandbox.name, sandbox.directory, sandbox.state)


def network_again(sandbox: ComposeHandleData) -> list[str]:
    """Make one more network of the project, to hear why that fails. Teardown takes it away should it not fail."""
    label = f"{PROJECT_LABEL}={sandbox.name}"
    return [engine_of(sandbox), "network", "create", "--label", label, f"{sandbox.name}_again"]


def renew(sandbox: ComposeHandleData) -> list[str]:
    """Write a new marker."""
    return script(scripts.RENEW, sandbox.directory, sandbox.state)


def inventory(install: str, work_dir: str, engines: Sequence[str]) -> list[str]:
    """Everything that carries the installation's label."""
    return script(scripts.INVENTORY, install, work_dir, *engines)


def logs(sandbox: ComposeHandleData, container: str, *, follow: bool, tail: int | None) -> list[str]:
    """One container's logs."""
    flags = [*(["--follow"] if follow else []), *([] if tail is None else ["--tail", str(tail)])]
    return [engine_of(sandbox), "logs", *flags, container]


def follow(sandbox: ComposeHandleData, containers: Sequence[tuple[str, str]], *, tail: int | None) -> list[str]:
    """The logs of several containers, each given as (name to show, container), as they come."""
    pairs = [word for pair in containers for word in pair]
    return script(scripts.FOLLOW, engine_of(sandbox), "" if tail is None else str(tail), *pairs)


class PassedEnvironment(msgspec.Struct, frozen=True):
    """`lines` for the env file, and names and values for `-e NAME`."""

    lines: tuple[str, ...]
    by_name: Mapping[str, str]


def split_environment(env: Mapping[str, str]) -> PassedEnvironment:
    """Split a command's environment by the way that each variable takes; raises Invalid for what can take neither.

    Values travel to the host unseen (the host's business) and there into a file without a name that the engine's client
    reads as its `--env-file`: so a `PATH` or `LD_PRELOAD` meant for the container never works on the host. Such a file
    is made of lines; what does not fit on one goes by `-e NAME`, out of the client's own environment, where the client
    itself has no use for the name."""
    lines: list[str] = []
    by_name: dict[str, str] = {}
    for name, value in env.items():
        check_env_name(name)
        if "\0" in value:
            raise Invalid(f"the value of {name} holds a NUL character", hint="pass it on stdin or by `sandboxer cp`")
        fits = "\n" not in value and "\r" not in value
        if fits and len(value.encode("utf-8", "surrogateescape")) <= MAX_LINE:
            lines.append(f"{name}={value}")
        elif _CLIENTS_OWN.fullmatch(name):
            raise Invalid(
                f"the value of {name} is longer than a line, which container engines cannot take for this name",
                hint="pass it on stdin or by `sandboxer cp`",
            )
        else:
            by_name[name] = value
    return PassedEnvironment(tuple(lines), by_name)


def inside(
    sandbox: ComposeHandleData,
    container: str,
    argv: Sequence[str],
    *,
    cwd: str | None,
    tty: bool,
    passed: PassedEnvironment,
) -> list[str]:
    """Run `argv` in a container, with the environment `passed` (its lines from descriptor 3)."""
    flags = ["-i", *(["-t"] if tty else []), *(["-w", cwd] if cwd else [])]
    flags += [word for name in passed.by_name for word in ("-e", name)]
    words = [engine_of(sandbox), "exec", *flags, "--env-file", "/dev/fd/3", container, *argv]
    return script(scripts.EXEC, sandbox.state, str(len(passed.lines)), *words)


def script_inside(sandbox: ComposeHandleData, container: str, text: str, *arguments: str) -> list[str]:
    """A script of ours in a container, as its root: files that are copied belong to root otherwise too."""
    return [engine_of(sandbox), "exec", "-i", "-u", "0", container, "sh", "-c", text, "sandboxer", *arguments]


def peek(sandbox: ComposeHandleData, container: str, path: str, *, follow: bool = True) -> list[str]:
    """The beginning of the archive of `path`: enough to see what it is."""
    return script(scripts.PEEK, *_pack(sandbox, container, path, follow=follow))


def pack(sandbox: ComposeHandleData, container: str, path: str) -> list[str]:
    """The archive of `path`, links at its end followed."""
    return _pack(sandbox, container, path)


def unpack(sandbox: ComposeHandleData, container: str, directory: str) -> list[str]:
    """Unpack an archive from stdin into a directory that exists."""
    return [engine_of(sandbox), "cp", "-", f"{container}:{directory}"]


def _pack(sandbox: ComposeHandleData, container: str, path: str, *, follow: bool = True) -> list[str]:
    engine = engine_of(sandbox)
    flags = ["-L"] if follow and PurePosixPath(engine).name != "podman" else []  # podman always does, without a flag
    return [engine, "cp", *flags, f"{container}:{path}", "-"]


def engine_of(sandbox: ComposeHandleData) -> str:
    """The engine's program of a sandbox."""
    return ComposeCommand(tuple(sandbox.compose)).engine
