"""Where the real programs are on this machine, and what to do when one is not."""

import os
import shutil
import sysconfig
import unittest
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER_PROFILE = REPOSITORY.parent / "shared/specs/seccomp/moby-default.json"
"""A file that is for reading beside the checkout, and not part of it."""
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def cache_folder() -> Path:
    """Where `scripts/testbed/install` puts what is no Debian package."""
    return Path(os.environ.get("SANDBOXER_TESTBED") or REPOSITORY / ".testbed")


def which(program: str) -> str | None:
    """A program on the search path or in the system's folders (an ordinary user's path often lacks sbin)."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS]))


def _compose_v2() -> str | None:
    folders = [f"/usr/{a}{b}/docker/cli-plugins" for a in ("local/", "") for b in ("libexec", "lib")]
    return _first([cache_folder() / "compose-v2/docker-compose", *(Path(f, "docker-compose") for f in folders)])


def _compose_v1() -> str | None:
    """Version 1 is a Python script; where version 2 is called `docker-compose` too, it is a binary."""
    found = _first([Path("/usr/bin/docker-compose"), Path("/usr/local/bin/docker-compose")])
    if found is None:
        return None
    with open(found, "rb") as program:
        first_line = program.readline(200)
    return found if first_line.startswith(b"#!") and b"python" in first_line else None


def _podman_compose() -> str | None:
    return _first([cache_folder() / "podman-compose/bin/podman-compose"])


def _bwrap() -> str | None:
    return which("bwrap") or _first([Path(sysconfig.get_path("scripts"), "bwrap")])


def _busybox() -> str | None:
    return _first([Path("/bin/busybox"), Path("/usr/bin/busybox")])


def _docker_profile() -> str | None:
    return str(DOCKER_PROFILE) if DOCKER_PROFILE.is_file() else None


def _headers() -> str | None:
    found = Path("/usr/include/asm-generic/unistd.h")
    return str(found) if found.is_file() else None


def _first(candidates: Iterable[Path]) -> str | None:
    return next((str(path) for path in candidates if os.access(path, os.X_OK)), None)


_LOOKUPS: dict[str, Callable[[], str | None]] = {
    "docker compose": _compose_v2,
    "docker-compose": _compose_v1,
    "podman-compose": _podman_compose,
    "bwrap": _bwrap,
    "busybox": _busybox,
    "Docker's seccomp profile": _docker_profile,
    "linux-libc-dev": _headers,
}
_PARTS = {
    # what has to be there as well, for the named thing to be of use
    "sshd": ("ssh", "ssh-keygen", "setpriv"),
    "podman": ("runc", "busybox", "root"),
    "dockerd": ("docker", "iptables", "setpriv", "ip", "busybox", "root"),
    "docker compose": ("dockerd",),
    "docker-compose": ("dockerd",),
    "podman-compose": ("podman",),
}


@cache
def have(name: str) -> str | None:
    """The path of a program ("sshd", "podman", "docker compose", "docker-compose", "podman-compose", ...) or None.

    "docker compose" is the plugin's binary, "docker-compose" is version 1. "root" is no program: engines need it.
    """
    if name == "root":
        return "/" if os.geteuid() == 0 else None
    lookup = _LOOKUPS.get(name)
    return lookup() if lookup else which(name)


def missing(names: Iterable[str]) -> list[str]:
    """Those of the components that are not here, with what they need themselves; empty when all can be used."""
    wanted = list(dict.fromkeys(names))
    for name in wanted:  # grows while it is walked
        wanted.extend(part for part in _PARTS.get(name, ()) if part not in wanted)
    return [name for name in wanted if have(name) is None]


def need(*names: str) -> None:
    """Skip the calling test, by the component's name, where one is missing; with CI=true fail it instead."""
    lacking = missing(names)
    if not lacking:
        return
    message = f"missing: {', '.join(lacking)} (scripts/testbed/install)"
    if os.environ.get("CI") == "true":
        raise AssertionError(message)
    raise unittest.SkipTest(message)
