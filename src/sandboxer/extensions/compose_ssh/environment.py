"""How a command's environment reaches a container without being seen, and without touching the engine's client. Pure.

Values travel to the host unseen (the host's business) and there into a file without a name that the client reads as its
`--env-file`: so a `PATH` or `LD_PRELOAD` meant for the container never works on the host. Such a file is made of lines;
what does not fit on one goes by `-e NAME`, out of the client's own environment, where the client itself has no use for
the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from sandboxer.errors import Invalid
from sandboxer.names import check_env_name

MAX_LINE: Final = 60_000
"""Bytes in a line of an env file: the engines' readers give up at 64 KiB."""
_CLIENTS_OWN: Final = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|TERM|TZ|TMPDIR|ENV|IFS|OPTIND|HOSTALIASES|LOCALDOMAIN|RES_OPTIONS"
    r"|NOTIFY_SOCKET|REGISTRY_AUTH_FILE|GCONV_PATH|LOCPATH|NLSPATH"
    r"|(?:LD|LC|LANG|GO|DOCKER|BUILDKIT|BUILDAH|CONTAINER|PODMAN|STORAGE|XDG|SSH|SSL|DBUS|LISTEN|MALLOC|GLIBC|OTEL|BASH"
    r"|SHELL|PS\d|NETAVARK|SANDBOXER|sbx)_?.*|.*_proxy)",
    re.IGNORECASE,
)


class PassedEnvironment(msgspec.Struct, frozen=True):
    """`lines` for the env file, and names and values for `-e NAME`."""

    lines: tuple[str, ...]
    by_name: Mapping[str, str]


def split(env: Mapping[str, str]) -> PassedEnvironment:
    """Which way each variable takes; raises Invalid for what can take neither."""
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
