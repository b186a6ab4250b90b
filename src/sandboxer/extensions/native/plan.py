"""From options and facts to words: bwrap's arguments, the generated start file, and what must be said. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from sandboxer.extensions.native import guard, start_file
from sandboxer.extensions.native.handle import BWRAP, PATH, NativeHandleData, SandboxPaths
from sandboxer.extensions.native.host_facts import HostFacts
from sandboxer.extensions.native.options import WORKSPACE, NativeLimits, NativeOptions, size

INSIDE_ID: Final = 1000
"""uid and gid as seen from inside."""
_GUARD: Final = f"/proc/self/fd/{guard.DESCRIPTOR}"
"""The guard's sealed image as bubblewrap finds it inside."""
PYTHON: Final = "/opt/python"
_SHARED_MEMORY: Final = 64 * 1024 * 1024
# What programs need of the host's /etc: the linker's cache, certificates, alternatives (links that /usr/bin points to),
# the time zone, names of services. No file here tells anything of the host's users or network.
_ETC: Final = (
    "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/services", "/etc/protocols", "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/ca-trust", "/etc/pki/tls/certs",
)  # fmt: skip
_ETC_OF_HOST_NETWORK: Final = ("/etc/resolv.conf",)


class StartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one sandbox is started: what is remembered of it, the text of its start file, its guard, and its folders
    (mode, uid and gid of each)."""

    sandbox: NativeHandleData
    start: str
    guard: bytes
    folders: Mapping[str, tuple[int, int, int]]


def plan(
    paths: SandboxPaths,
    options: NativeOptions,
    facts: HostFacts,
    *,
    python_home: str | None,
    synced: bool,
    program: bytes = b"",
    brought: Mapping[str, str] | None = None,
) -> StartPlan:
    """`program`: the filter of system calls, or none. `python_home`: the tree of a Python on the host that is to be
    at /opt/python. `synced`: there is a tree in the workspace already, whose owner is to be mended. `brought`: files
    of our own bubblewrap, as paths in the sandbox's directory, with the SHA-256 of each."""
    image = guard.bundle(facts.machine, program)
    binds = dict(options.ro_binds) | ({PYTHON: python_home} if python_home else {})
    groups = _groups(paths, options.limits, facts)
    sandbox = NativeHandleData(
        work_dir=paths.work_dir,
        id=paths.sandbox_id,
        install=paths.install,
        mode="root" if facts.root else "user",
        owner=paths.owner if facts.root else facts.uid,
        syscalls="filtered" if program else "unfiltered",
        cgroups=sorted({directory for directory, _, _ in groups}),
        limits=_rlimits(options.limits, facts),
        path=f"{PYTHON}/bin:{PATH}" if options.python else PATH,
        network=options.network,
        services=list(options.services),
        settle=options.settle if options.services else 0,
        notes=_notes(options, facts, filtered=bool(program)),
    )
    words = bwrap_words(paths, options, facts, sandbox=sandbox, binds=binds)
    trusted = {guard.FILE: hashlib.sha256(image).hexdigest(), **(brought or {})}
    start = start_file.start_text(
        paths,
        options,
        facts,
        owner=sandbox.owner,
        groups=groups,
        binds=list(binds.values()),
        words=words,
        synced=synced,
        trusted=trusted,
    )
    digest = hashlib.sha256(start.encode("utf-8", "surrogateescape")).hexdigest()
    return StartPlan(
        sandbox=msgspec.structs.replace(sandbox, start=digest),
        start=start,
        guard=image,
        folders=start_file.folders(owner=sandbox.owner, root=facts.root, synced=synced),
    )


def directory_inside(paths: SandboxPaths, facts: HostFacts) -> str:
    """The sandbox's directory as bwrap sees it. Root shows it at `cover`, in a mount namespace of our own: the
    unprivileged uid could not pass the folders above it (such as /root)."""
    return facts.cover if facts.root else paths.directory


def bwrap_words(
    paths: SandboxPaths,
    options: NativeOptions,
    facts: HostFacts,
    *,
    sandbox: NativeHandleData,
    binds: Mapping[str, str],
) -> list[str]:
    """The holder's command line."""
    here = directory_inside(paths, facts)
    words = [facts.tools.get("bwrap") or f"{here}/{BWRAP}"]
    words += [f"--unshare-{name}" for name in _namespaces(options, facts) if name != "mount"]
    words += ["--disable-userns", "--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", paths.name]
    words += ["--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in environment(sandbox).items():
        words += ["--setenv", name, value]
    for folder in ("/etc", "/run", "/var", "/opt"):
        words += ["--dir", folder]
    words += ["--ro-bind", "/usr", "/usr"]
    for name in facts.links:
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    for name in facts.folders:
        words += ["--ro-bind", f"/{name}", f"/{name}"]
    for path in _ETC + (_ETC_OF_HOST_NETWORK if options.network == "host" else ()):
        words += ["--ro-bind-try", path, path]
    for fd, name in start_file.ETC_DESCRIPTORS.items():
        words += ["--perms", "0644", "--file", str(fd), f"/etc/{name}"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for path in facts.masks:
        words += ["--ro-bind", "/dev/null", path]
    words += ["--perms", "1777", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    words += ["--ro-bind", f"{here}/run/inside", "/run/sandboxer"]
    for name in options.services:
        # one file each: a name that the sandbox could replace by a link would be followed by whoever reads the log
        words += ["--bind", f"{here}/logs/{name}.log", f"/var/log/services/{name}.log"]
    if options.services:
        words += ["--size", "1048576", "--tmpfs", "/run/services"]
    words += ["--symlink", "../tmp", "/var/tmp", "--bind", f"{here}/tmp", "/tmp", "--chmod", "1777", "/tmp"]  # noqa: S108
    words += ["--bind", f"{here}/workspace", WORKSPACE]
    for number, (inside, outside) in enumerate(binds.items()):
        words += ["--ro-bind", f"{here}/run/binds/{number}" if facts.root else outside, inside]
    if options.python and PYTHON not in binds and facts.pythons:
        words += ["--symlink", facts.pythons[-1], f"{PYTHON}/bin/python3"]
    words += ["--remount-ro", "/", "--chdir", WORKSPACE, "--json-status-fd", "3"]
    words += ["--as-pid-1", "--die-with-parent", "--"]
    restarts = [word for name, service in options.services.items() for word in (name, service.restart)]
    words += [_GUARD, "init", *sandbox.limits, "--"]
    return [*words, "/bin/sh", "/run/sandboxer/supervise", *restarts]


def environment(sandbox: NativeHandleData) -> dict[str, str]:
    """All variables of a program inside, before the request's own."""
    return {"PATH": sandbox.path, "HOME": WORKSPACE, "USER": "sandbox", "LOGNAME": "sandbox", "LANG": "C.UTF-8"}


def _namespaces(options: NativeOptions, facts: HostFacts) -> list[str]:
    """What is the sandbox's own, in bwrap's words."""
    names = ["user", "mount", "pid", "ipc", "uts"]
    if options.network == "none":
        names.append("net")
    if facts.cgroup_namespace:
        names.append("cgroup")
    return names


def _rlimits(limits: NativeLimits, facts: HostFacts) -> list[str]:
    """In the words of prlimit, which the guard takes. It sets them inside the user namespace: there `nproc` counts this
    sandbox alone (Linux 5.14 and later). What the host allows cannot be raised: the lower one is used."""
    wanted = {
        "nproc": (limits.processes, "processes"),
        "nofile": (limits.open_files, "open_files"),
        "fsize": (limits.file_size, "file_size"),
        "cpu": (limits.cpu_time, "cpu_time"),
    }
    words = ["--core=0:0"]
    for name, (value, key) in wanted.items():
        if value is not None:
            bound = min(size(value), facts.hard.get(key, size(value)))
            words.append(f"--{name}={bound}:{bound}")
    return words


def _groups(paths: SandboxPaths, limits: NativeLimits, facts: HostFacts) -> list[tuple[str, str, str]]:
    """Control groups to make: directory, file, value. A file name that starts with `?` may be missing."""
    tree = "/sys/fs/cgroup"
    found: list[tuple[str, str, str]] = []
    v2 = facts.cgroup_version == 2
    if limits.memory is not None and "memory" in facts.cgroups:
        memory = str(size(limits.memory))
        where = f"{tree}/{paths.name}" if v2 else f"{tree}/memory/{paths.name}"
        both = (("memory.max", memory), ("?memory.swap.max", "0"))
        old = (("memory.limit_in_bytes", memory), ("?memory.memsw.limit_in_bytes", memory))
        found += [(where, file, value) for file, value in (both if v2 else old)]
    if limits.cpu is not None and "cpu" in facts.cgroups:
        quota = max(1000, int(limits.cpu * 100_000))
        if v2:
            found.append((f"{tree}/{paths.name}", "cpu.max", f"{quota} 100000"))
        else:
            where = f"{tree}/cpu/{paths.name}"
            found += [(where, "cpu.cfs_period_us", "100000"), (where, "cpu.cfs_quota_us", str(quota))]
    return found


def _notes(options: NativeOptions, facts: HostFacts, *, filtered: bool) -> list[str]:
    """What is not isolated or not enforced, in words."""
    limits = options.limits
    notes = [
        "kernel shared with the host" if filtered else "kernel shared with the host; system calls are not filtered"
    ]
    if not facts.root:
        notes.append(f"runs with the rights of the host user {facts.uid}, seen from outside")
        share = "at most a quarter of them" if facts.bounds else "without a bound"
        notes.append(f"uses up the host user's inotify instances and watches, {share}")
        if not filtered:
            notes.append("the kernel keys of the host user can be found, and the quota for them is shared")
    if options.network == "host":
        notes.append("shares the host's network: its loopback services and abstract sockets can be reached")
    elif facts.vsock and not filtered:
        notes.append("sockets between virtual machines (AF_VSOCK) belong to no network namespace and can be opened")
    notes += [f"shows {outside} of the host, read-only, as {inside}" for inside, outside in options.ro_binds.items()]
    for what, value in (("memory", limits.memory), ("cpu", limits.cpu)):
        if value is not None and what not in facts.cgroups:
            notes.append(
                f"the {what} limit {value} is not enforced: no {what} control group can be written on this host"
            )
    unlimited = [what for what, value in (("memory", limits.memory), ("cpu", limits.cpu)) if value is None]
    if limits.processes is None:
        unlimited.append("processes")
    elif not facts.root and facts.kernel_version < (5, 14):
        notes.append("the limit of processes counts the host user's other processes too (Linux before 5.14)")
    notes.append(f"not limited: {', '.join([*unlimited, 'disk'])}")
    return notes
