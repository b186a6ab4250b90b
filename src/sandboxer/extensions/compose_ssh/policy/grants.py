"""Read what the operator grants a repository, by words in a profile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from sandboxer.errors import Invalid

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@/=:+-]{0,254}")
_FIXED: Final = {
    "network:host": "services may use the network of the host itself",
    "pid:host": "services may see and signal the processes of the host",
    "ipc:host": "services may use the shared memory of the host",
    "privileged": "services may run privileged: they are as good as root on the host",
    "port:public": "ports are published at the addresses that the file names, not on the loopback alone",
    "build:network": "builds may use the network of the host",
    "build:cache": "builds may read and write the caches that all builds of the engine share",
}
_NAMED: Final = {
    "bind": "{name} of the host is open to services, for reading and writing",
    "volume": "the host's volume {name} is open to services",
    "network": "services may join the host's network {name}",
    "cap": "services may have the capability {name}",
    "device": "services may use the host's device {name}",
    "sysctl": "services may set the kernel parameter {name}",
    "env": "services may read the variable {name}, taken from outside the repository",
    "runtime": "services may run with the runtime {name}",
    "logging": "services may log with the driver {name}",
    "frontend": "Dockerfiles may be read by the image {name}, which tells the builder what to do",
}
FORMS: Final = (
    "bind:PATH[:ro]", "volume:NAME", "network:NAME", "cap:NAME", "device:PATH", "sysctl:NAME", "env:NAME",
    "runtime:NAME", "logging:DRIVER", "frontend:IMAGE", *_FIXED,
)  # fmt: skip


class Grants(msgspec.Struct, frozen=True):
    """The parsed `grants` of a profile."""

    words: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Grants:
        """Read the words of a profile. Raises Invalid, naming the first that is none."""
        return cls(frozenset(_word(word) for word in words))

    def has(self, word: str) -> bool:
        """Whether exactly this was granted."""
        return word in self.words

    def bind(self, path: str, *, writable: bool) -> bool:
        """Whether the host's `path` may be mounted."""
        return f"bind:{path}" in self.words or (not writable and f"bind:{path}:ro" in self.words)

    @property
    def variables(self) -> frozenset[str]:
        """The names of variables that may come from outside the repository."""
        return frozenset(word.removeprefix("env:") for word in self.words if word.startswith("env:"))

    def notes(self) -> tuple[str, ...]:
        """What each grant gives, for `isolation.notes`."""
        return tuple(f"granted {word}: {_gives(word)}" for word in sorted(self.words))


def capability(name: str) -> str:
    """A capability as grants name it: upper case, without CAP_."""
    return name.upper().removeprefix("CAP_")


def _word(word: str) -> str:
    if word in _FIXED:
        return word
    kind, _, name = word.partition(":")
    if kind == "cap":
        name = capability(name)
    if kind == "bind":
        path = name.removesuffix(":ro")
        # the engine reads `a:b` as two paths, and `..` could lead anywhere
        plain = path.startswith("/") and ":" not in path and path.isprintable()
        if plain and (path == "/" or all(part not in ("", ".", "..") for part in path[1:].split("/"))):
            return f"bind:{name}"
    elif kind == "device":
        if name.startswith("/") and name.isprintable() and ":" not in name and ".." not in name:
            return f"device:{name}"
    elif kind in _NAMED and _NAME.fullmatch(name):
        return f"{kind}:{name}"
    raise Invalid(f"the grant {word[:120]!r} is not known", hint=f"a profile may grant: {', '.join(FORMS)}")


def _gives(word: str) -> str:
    if word in _FIXED:
        return _FIXED[word]
    kind, _, name = word.partition(":")
    if kind == "bind" and name.endswith(":ro"):
        return f"{name.removesuffix(':ro')} of the host is open to services, for reading"
    return _NAMED[kind].format(name=name)
