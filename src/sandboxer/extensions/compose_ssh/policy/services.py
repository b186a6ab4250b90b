"""Check what a service asks of the kernel and of the engine."""

from __future__ import annotations

import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.checks import GIB, INSIDE, bytes_of, plain, wrong
from sandboxer.extensions.compose_ssh.policy.gate import LEFT_OUT, Gate, KeyCheck
from sandboxer.extensions.compose_ssh.policy.grants import capability
from sandboxer.extensions.compose_ssh.policy.verdict import ComposeProgram

HARMLESS_CAPABILITIES: Final = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
     "SYS_CHROOT"}
)  # fmt: skip
"""Those that docker and podman both give to every container: naming them only undoes a `cap_drop: [ALL]`."""
ULIMITS: Final = {
    "core": -1, "cpu": -1, "data": -1, "fsize": -1, "locks": -1, "memlock": -1, "msgqueue": 8 << 20, "nofile": 1 << 20,
    "nproc": 1 << 16, "rss": -1, "sigpending": 1 << 18, "stack": -1,
}  # fmt: skip
"""The highest value of each limit; -1 where the memory limit of the container bounds it anyway."""
TMPFS_MAX: Final = GIB
_TMPFS_WORDS: Final = frozenset({"rw", "ro", "exec", "noexec", "suid", "nosuid", "nodev", "noatime", "relatime"})
_TMPFS_NUMBERS: Final = frozenset({"mode", "uid", "gid", "nr_inodes"})
_DEFAULT_LOGS: Final = frozenset({"json-file", "local", "none", "k8s-file"})
_LOG_OPTIONS: Final = frozenset(
    {"max-size", "max-file", "max-buffer-size", "mode", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}
)
_VARIABLE: Final = re.compile(r"[^=$\x00-\x1f\x7f]{1,512}")
_INSIDE: Final = re.compile(INSIDE)


def namespace(kind: str, own: tuple[str, ...], gives: str, grant: str | None) -> KeyCheck:
    """A namespace: a container's own, a service's of this file, or the host's where granted."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        found = plain(value)
        if found is None:
            return wrong(gate, path, "the name of a namespace")
        if found in own:
            return value or LEFT_OUT
        if kind != "cgroup" and found.startswith("service:") and found.removeprefix("service:") in gate.services:
            if kind == "pid" and gate.program is ComposeProgram.PODMAN:
                gate.lacks(path)  # it hands the word on to podman, which knows no services
            return value
        if found == "host":
            return value if grant and gate.granted(path, gives, grant) else gate.refuse(path, gives, grant)
        if found.startswith(("container:", "service:")):
            return gate.refuse(path, f"the {kind} namespace of a container that is not of this file")
        if kind == "network" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", found):
            gives_away = f"the network {found} of the host, which other containers share"
            return value if gate.granted(path, gives_away, f"network:{found}") else LEFT_OUT
        return gate.refuse(path, f"a {kind} namespace that was not looked at")

    return take


def capabilities(gate: Gate, path: Path, value: Any) -> Any:
    """Capabilities beyond those that every container has."""
    name = plain(value)
    if name is None or not re.fullmatch(r"[A-Za-z_]{1,40}", name):
        return wrong(gate, path, "the name of a capability")
    wanted = capability(name)
    if wanted in HARMLESS_CAPABILITIES:
        return value
    return value if gate.granted(path, f"the capability {wanted} over the host's kernel", f"cap:{wanted}") else LEFT_OUT


def security(gate: Gate, path: Path, value: Any) -> Any:
    """Options of the engine's confinement."""
    text = (plain(value) or "").replace(":", "=", 1)
    if text in ("no-new-privileges", "no-new-privileges=true"):
        return value
    if text in ("seccomp=unconfined", "apparmor=unconfined", "label=disable", "systempaths=unconfined"):
        gives = "system calls, files of the kernel or labels that confine a container"
        return value if gate.granted(path, gives, "privileged") else LEFT_OUT
    return gate.refuse(path, "the confinement of the container, by a profile or label of the host")


def device(gate: Gate, path: Path, value: Any) -> Any:
    """A device of the host."""
    source = value.get("source") if isinstance(value, dict) else (plain(value) or "").split(":")[0]
    known = not isinstance(value, dict) or set(value) <= {"source", "target", "permissions"}
    if not isinstance(source, str) or not source or not known or ".." in source:
        return wrong(gate, path, "a device")
    if isinstance(value, dict):
        target, permissions = value.get("target", source), value.get("permissions", "rwm")
        if not (isinstance(target, str) and _INSIDE.fullmatch(target)) or not re.fullmatch(
            "[rwm]{1,3}", str(permissions)
        ):
            return wrong(gate, path, "a device")
    elif not re.fullmatch(r"[A-Za-z0-9/_.-]+(:[A-Za-z0-9/_.-]+){0,2}|[^:/]+/[^:]+=[^:]+", plain(value) or ""):
        return wrong(gate, path, "a device")
    if not source.startswith("/"):
        return gate.refuse(path, "devices of the host, by a name that its engine resolves")
    grant = f"device:{source}"
    return value if gate.granted(path, f"the host's device {source}", grant) else LEFT_OUT


def sysctls(gate: Gate, path: Path, value: Any) -> Any:
    """Parameters of the kernel."""
    if not isinstance(value, dict):
        return wrong(gate, path, "a mapping")
    for name, item in value.items():
        where = (*path, name)
        if not re.fullmatch(r"[a-z0-9_]+([./][A-Za-z0-9_-]+)+", name) or plain(item) is None:
            wrong(gate, where, "a kernel parameter")
        else:
            gate.granted(where, f"the kernel parameter {name}", f"sysctl:{name}")
    return value


def ulimit(gate: Gate, path: Path, value: Any) -> Any:
    """One limit: a number, or soft and hard."""
    name = str(path[-1])
    if name not in ULIMITS:
        return gate.refuse(path, "the priority of the host's other work, or a limit that was not looked at")
    numbers = list(value.values()) if isinstance(value, dict) and set(value) <= {"soft", "hard"} else [value]
    high = ULIMITS[name]
    for item in numbers:
        found = plain(item)
        if found is None or not re.fullmatch(r"-1|\d{1,19}", found):
            return wrong(gate, path, "a number, or soft and hard")
        if high >= 0 and not 0 <= int(found) <= high:
            return gate.refuse(path, f"what all containers of the host share: at most {high}")
    return value


def groups(gate: Gate, path: Path, value: Any) -> Any:
    """A further group inside the container."""
    found = plain(value)
    if found is not None and found.lower() == "keep-groups":
        return gate.refuse(path, "the groups of the host's user, whom podman runs as")
    if found is None or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", found):
        return wrong(gate, path, "a group")
    return value


def tmpfs(gate: Gate, path: Path, value: Any) -> Any:
    """A file system in memory: PATH[:OPTIONS]; one without a size gets the largest that is allowed."""
    target, _, options = (plain(value) or "").partition(":")
    if not _INSIDE.fullmatch(target):
        return wrong(gate, path, "a path inside")
    kept, sized = [], False
    for option in options.split(",") if options else ():
        name, _, amount = option.partition("=")
        if name == "size":
            found = bytes_of(amount)
            if found is None or not 0 < found <= TMPFS_MAX:
                return gate.refuse(path, f"the memory of the host: a size up to {TMPFS_MAX >> 20} MiB")
            sized = True
        elif name == "nr_inodes" and not re.fullmatch(r"[1-9]\d{0,6}", amount):
            return gate.refuse(path, "the memory of the host: 1 to 9999999 files")  # 0 is without end
        elif not (option in _TMPFS_WORDS or (name in _TMPFS_NUMBERS and re.fullmatch(r"\d{1,10}", amount))):
            return gate.refuse(path, "an option of a mount that was not looked at")
        kept.append(option)
    return f"{target}:{','.join([*kept, *([] if sized else [f'size={TMPFS_MAX >> 20}m'])])}"


def logging(gate: Gate, path: Path, value: Any) -> Any:
    """Where a container's output goes."""
    if not isinstance(value, dict) or not set(value) <= {"driver", "options"}:
        return wrong(gate, path, "a driver with options")
    driver, options = plain(value.get("driver") or "") or "", value.get("options") or {}
    if not isinstance(options, dict):
        return wrong(gate, (*path, "options"), "a mapping")
    granted = False
    if driver and driver not in _DEFAULT_LOGS:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}", driver):
            return wrong(gate, (*path, "driver"), "a driver")
        granted = gate.granted((*path, "driver"), f"what the host's driver {driver} writes to", f"logging:{driver}")
    for name, item in options.items():
        where = (*path, "options", name)
        if name == "path" or (not granted and name not in _LOG_OPTIONS):
            gives = "a file or a service of the host, which the engine opens for it"
            gate.refuse(where, gives, f"logging:{driver}" if name != "path" and driver not in _DEFAULT_LOGS else None)
        elif item is not None and plain(item) is None:
            wrong(gate, where, "a text")
    return value


def environment(gate: Gate, path: Path, value: Any) -> Any:
    """Variables. A bare name would be looked up outside: it is left unset unless that is granted."""
    if not isinstance(value, dict):
        return wrong(gate, path, "a mapping")
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if not _VARIABLE.fullmatch(name):
            wrong(gate, (*path, name), "the name of a variable")
        elif item is None:
            if gate.grants.has(f"env:{name}"):
                kept[name] = None
            else:
                gate.note(
                    f"the variable {name[:80]} has no value in the repository and stays unset (grant: env:{name[:80]})"
                )
        elif plain(item) is None:
            wrong(gate, (*path, name), "a text")
        else:
            kept[name] = item
    return kept


def own_service(gate: Gate, path: Path, value: Any) -> Any:
    """A service of this file, with `:ALIAS` or a mode behind it."""
    found = plain(value) or ""
    name, _, rest = found.partition(":")
    if name not in gate.services:
        return gate.refuse(path, "a container that is not of this file")
    return value if re.fullmatch(r"[A-Za-z0-9_.-]{0,128}", rest) else wrong(gate, path, "SERVICE[:NAME]")


def restart(gate: Gate, path: Path, value: Any) -> Any:
    """When the engine starts it again."""
    found = plain(value)
    if found in ("false", "no"):
        return "no"  # YAML takes the word for a boolean
    fine = found is not None and re.fullmatch(r"always|unless-stopped|on-failure(:\d{1,4})?", found)
    return value if fine else wrong(gate, path, "no, always, unless-stopped or on-failure")


def runtime(gate: Gate, path: Path, value: Any) -> Any:
    """What starts the container."""
    name = plain(value)
    if name == "":
        return LEFT_OUT
    if name is None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        return gate.refuse(path, "a program of the host, in place of the runtime that confines")
    gives = f"the host's runtime {name} in place of its default"
    return value if gate.granted(path, gives, f"runtime:{name}") else LEFT_OUT
