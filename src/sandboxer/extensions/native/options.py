"""What a profile may ask of ext.native."""

from __future__ import annotations

import posixpath
import re
from typing import Final, Literal

import msgspec

from sandboxer.models import Written
from sandboxer.names import ENV_NAME, SERVICE

WORKSPACE: Final = "/workspace"
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)(?:i?b)?", re.IGNORECASE)
_TAKEN: Final = ("/usr", "/bin", "/sbin", "/lib", "/etc", "/proc", "/dev", "/run", "/tmp", "/var", "/sys", WORKSPACE)  # noqa: S108


class NativeService(Written, frozen=True, kw_only=True):
    """A program that runs as long as the sandbox does. `restart` says what follows when it ends by itself (after 1 s,
    then 2 s, up to 30 s); while it settles, an end with another code than 0 fails the create whatever is said here."""

    command: list[str]
    env: dict[str, str] = {}
    cwd: str = WORKSPACE
    restart: Literal["always", "on-failure", "never"] = "on-failure"

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError("`command` needs a program, as a list of words")
        if self.command[0].startswith("-"):
            raise ValueError(f"`command`: the program's name {self.command[0][:80]!r} starts with -")
        _no_nul(*self.command, *self.env.values(), self.cwd)
        if bad := [name for name in self.env if not ENV_NAME.fullmatch(name)]:
            raise ValueError(f"{bad[0][:80]!r} is not the name of an environment variable")
        if not self.cwd.startswith("/"):
            raise ValueError("`cwd` must be an absolute path inside the sandbox")


class NativeLimits(Written, frozen=True, kw_only=True):
    """Upper bounds; None is what the host gives. Sizes are bytes or like `512m`, `2g`.

    memory: of all processes together. cpu: processors, 1.5 is one and a half. processes: of the sandbox together.
    open_files, file_size (bytes of one file), cpu_time (seconds of one process): each process.
    """

    memory: int | str | None = None
    cpu: float | None = None
    processes: int | None = 4096
    open_files: int | None = None
    file_size: int | str | None = None
    cpu_time: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and (size(value) if isinstance(value, str) else value) <= 0:
                raise ValueError(f"`{name}` must be more than 0")


class NativeOptions(Written, frozen=True, kw_only=True):
    """Options of ext.native.

    network: `none` has only a loopback of its own; `host` shares the host's network. settle: seconds that services
    must run before the sandbox is ready. python: make a Python of 3.11 or newer available as `python3`.
    ro_binds: inside path -> host path, read-only. git: sync the `.git` of the input `repo` too. gitignore: leave out
    what its .gitignore files name.
    """

    network: Literal["none", "host"] = "none"
    services: dict[str, NativeService] = {}
    limits: NativeLimits = NativeLimits()
    settle: float = 2.0
    python: bool = False
    ro_binds: dict[str, str] = {}
    git: bool = False
    gitignore: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.settle <= 3600:
            raise ValueError("`settle` must be between 0 and 3600 seconds")
        if bad := [name for name in self.services if not SERVICE.fullmatch(name)]:
            raise ValueError(f"{bad[0][:80]!r} is not the name of a service")
        for inside, outside in self.ro_binds.items():
            _check_bind(inside, outside)


def size(text: int | str) -> int:
    """Bytes in `512m`, `2g`, `65536` (powers of 1024). Raises ValueError."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size; write it like 512m or 2g")
    return int(match[1]) * int(1024 ** " kmgt".index(match[2].lower() or " "))


def _check_bind(inside: str, outside: str) -> None:
    _no_nul(inside, outside)
    for path in (inside, outside):
        if not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
            raise ValueError(f"`ro_binds`: {path[:200]!r} is not a plain absolute path")
    if any(inside == taken or inside.startswith(f"{taken}/") for taken in _TAKEN):
        raise ValueError(f"`ro_binds`: {inside[:200]!r} lies in a part that the sandbox has of its own")


def _no_nul(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise ValueError("a text holds a NUL character")


def decode(options: object) -> NativeOptions:
    """The options of a spec, whether the core has decoded them or not. Raises msgspec.ValidationError."""
    return options if isinstance(options, NativeOptions) else msgspec.convert(options, NativeOptions)
