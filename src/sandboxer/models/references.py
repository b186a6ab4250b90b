"""Secret references: what they look like. Pure; their values are read by `sandboxer.secrets`, when they are needed.

A text that is not a reference may be a value that somebody put in its place. So it is never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.models.base import Value
from sandboxer.models.catalog import SecretRef
from sandboxer.names import ENV_NAME

MAX_REFERENCE: Final = 1024
"""The longest reference, in characters."""
_HINT: Final = "write env:VARIABLE, file:/path, openbao:MOUNT/PATH#KEY or cmd:PROGRAM WORD..."
_MOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}")


class EnvReference(Value, frozen=True, kw_only=True):
    """`env:VARIABLE`."""

    variable: str

    def __str__(self) -> str:
        return f"env:{self.variable}"


class FileReference(Value, frozen=True, kw_only=True):
    """`file:/path` or `file:~/path`: the text of the file."""

    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


class OpenBaoReference(Value, frozen=True, kw_only=True):
    """`openbao:MOUNT/PATH#KEY`: one key of the newest version of a secret in a KV engine, version 2.

    The mount is what stands before the first slash; one that has slashes itself is ended by two
    (`openbao:team/kv//ci/e2b#key`)."""

    mount: str
    path: str
    key: str

    def __str__(self) -> str:
        return f"openbao:{self.mount}{'//' if '/' in self.mount else '/'}{self.path}#{self.key}"


class CommandReference(Value, frozen=True, kw_only=True):
    """`cmd:PROGRAM WORD...`: what a program on this machine writes to stdout. Words are split and unquoted as a shell
    would; there is no shell, so nothing is expanded."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        """The program alone: its words are shown to nobody, in case one of them should not be."""
        return f"cmd:{self.argv[0]}" + (" ..." if len(self.argv) > 1 else "")


Reference = EnvReference | FileReference | OpenBaoReference | CommandReference


def parse_reference(text: str, *, what: str) -> Reference:
    """A reference; `what` is what errors call it. Raises Invalid, without quoting the text."""
    scheme, _, rest = text.partition(":")
    if len(text) > MAX_REFERENCE or not rest.isprintable():
        raise Invalid(f"{what} is not a secret reference", hint=_HINT)
    if scheme == "env":
        return _variable(rest, what)
    if scheme == "file":
        return _file(rest, what)
    if scheme == "openbao":
        return _openbao(rest, what)
    if scheme == "cmd":
        return _command(rest, what)
    raise Invalid(f"{what} is not a secret reference", hint=f"{_HINT}; never the value itself")


def parse_local_reference(text: str, *, what: str) -> EnvReference | FileReference:
    """A reference that needs nothing else to be read: `env:` or `file:`. Raises Invalid."""
    found = parse_reference(text, what=what)
    if isinstance(found, EnvReference | FileReference):
        return found
    raise Invalid(f"{what} cannot be read from there", hint="write env:VARIABLE or file:/path")


def check_references(secrets: Mapping[str, SecretRef], source: str, key: str) -> None:
    """The `secrets` of a profile, a manifest or config.yaml. Raises Invalid naming `source` and the key below `key`."""
    for name, ref in secrets.items():
        if not ENV_NAME.fullmatch(name):
            raise Invalid(
                f"{source}: {key} has a name that is not allowed", hint="name secrets with letters, digits and '_'"
            )
        parse_reference(ref.ref, what=f"{source}: {key}.{name}.ref")


def expand(path: str, home: str | None) -> Path:
    """A path; one that begins with `~/` is from `home` on (else from this process's own home)."""
    return Path(home or Path.home(), path[2:]) if path.startswith("~/") else Path(path)


def _variable(rest: str, what: str) -> EnvReference:
    if not ENV_NAME.fullmatch(rest):
        raise Invalid(f"{what} does not name an environment variable", hint="write env:VARIABLE")
    return EnvReference(variable=rest)


def _file(rest: str, what: str) -> FileReference:
    if not rest.startswith(("/", "~/")):
        raise Invalid(f"{what} does not name a file by its whole path", hint="write file:/path or file:~/path")
    return FileReference(path=rest)


def _openbao(rest: str, what: str) -> OpenBaoReference:
    place, hash_, key = rest.partition("#")
    mount, slashes, path = place.partition("//" if "//" in place else "/")
    steps = path.split("/")
    if not (hash_ and key and slashes and _MOUNT.fullmatch(mount)) or any(step in ("", ".", "..") for step in steps):
        raise Invalid(
            f"{what} does not name a key in OpenBao",
            hint="write openbao:MOUNT/PATH#KEY, or openbao:MOUNT//PATH#KEY when the mount has a slash",
        )
    return OpenBaoReference(mount=mount, path=path, key=key)


def _command(rest: str, what: str) -> CommandReference:
    import shlex

    try:
        words = shlex.split(rest)
    except ValueError:
        raise Invalid(f"{what} has a quote that does not end", hint="write cmd:PROGRAM WORD...") from None
    if not words or not words[0]:
        raise Invalid(f"{what} does not name a program", hint="write cmd:PROGRAM WORD...")
    return CommandReference(argv=tuple(words))
