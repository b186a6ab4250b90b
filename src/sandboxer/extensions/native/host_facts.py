"""What a host says of itself (host/claim.sh), and what follows from it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from sandboxer.errors import BackendError, NotConfigured
from sandboxer.extensions.native import guard

TOOLS: Final = ("unshare", "setpriv", "mount", "tar", "flock", "env", "sha256sum")
_VERSION = re.compile(r"(\d+)\.(\d+)")


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `tools` maps a program to its path; `links` and `folders` are what / has of bin, sbin, lib...;
    `cover` is a folder that may be hidden in a namespace of ours; `cgroups` the controllers that we may use;
    `hard` the hard limits of our own processes (absent: unlimited); `bwrap_hash` the SHA-256 of a bubblewrap that the
    sandboxes' own user could write; `masks` files of /proc that tell of the whole machine; `bounds` whether a user
    namespace of ours can be given lower bounds."""

    uid: int
    kernel: str = ""
    machine: str = ""
    bwrap_hash: str = ""
    masks: tuple[str, ...] = ()
    bounds: bool = True
    tools: Mapping[str, str] = {}
    links: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    cover: str = "/mnt"
    pythons: tuple[str, ...] = ()
    vsock: bool = False
    cgroup_namespace: bool = False
    cgroup_version: int = 0
    cgroups: frozenset[str] = frozenset()
    hard: Mapping[str, int] = {}
    sysctls: Mapping[str, str] = {}
    claimed: bool = False
    exists: bool = False

    @property
    def root(self) -> bool:
        """Whether root runs the sandboxes there."""
        return self.uid == 0

    def without_bwrap(self) -> HostFacts:
        """The same host, had it no bubblewrap of its own."""
        tools = {name: path for name, path in self.tools.items() if name != "bwrap"}
        return msgspec.structs.replace(self, tools=tools, bwrap_hash="")

    @property
    def kernel_version(self) -> tuple[int, int]:
        """Major and minor."""
        match = _VERSION.search(self.kernel)
        return (int(match[1]), int(match[2])) if match else (0, 0)


def parse(text: str) -> HostFacts:
    """The facts in what claim.sh printed; raises BackendError when that makes no sense."""
    lists: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        lists.setdefault(key, []).append(value)

    def one(key: str) -> str:
        return lists.get(key, [""])[0]

    if not one("uid").isdigit():
        raise BackendError("the host did not say what it is", hint="is its /proc mounted? run `sandboxer doctor`")
    versions = [version for version in (2, 1) if f"cgroup{version}" in lists]
    return HostFacts(
        uid=int(one("uid")),
        kernel=one("kernel"),
        machine=one("machine"),
        bwrap_hash=one("bwrap_hash"),
        masks=tuple(lists.get("mask", [])),
        bounds="bounds" not in lists,
        tools=dict(_pair(value) for value in lists.get("tool", [])),
        links=tuple(lists.get("link", [])),
        folders=tuple(lists.get("folder", [])),
        cover=one("cover") or "/tmp",  # noqa: S108 - a folder to hide, not to write in
        pythons=tuple(lists.get("python", [])),
        vsock="vsock" in lists,
        cgroup_namespace="cgroup_namespace" in lists,
        cgroup_version=versions[0] if versions else 0,
        cgroups=frozenset(lists[f"cgroup{versions[0]}"]) if versions else frozenset(),
        hard={key[5:]: int(one(key)) for key in lists if key.startswith("hard_") and one(key).isdigit()},
        sysctls=dict(_pair(value) for value in lists.get("sysctl", [])),
        claimed="claimed" in lists,
        exists="exists" in lists,
    )


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(" ")
    return key, value


def require(facts: HostFacts) -> None:
    """Raise NotConfigured when the host is a machine of a kind without a guard, when programs are missing that have to
    come with its system, or when its kernel runs nothing from memory. claim.sh makes no directory then."""
    guard.check(facts.machine)
    if facts.sysctls.get("vm/memfd_noexec") == "2":
        raise NotConfigured(
            "the host does not let programs run from memory files, which ext.native's does (vm.memfd_noexec is 2)",
            hint="as root there: sysctl -w vm.memfd_noexec=1",
        )
    lacking = [tool for tool in TOOLS if tool not in facts.tools]
    if lacking:
        raise NotConfigured(
            f"the host lacks {', '.join(lacking)}",
            hint="install util-linux, coreutils, mount and tar there (apt-get install util-linux mount tar)",
        )
