"""Tell what a stack has of its host from what the engine shows: never from the compose file, which it may not be.

Pure. `isolation` tells of each container whatever goes beyond what a plain container has.
`_RULES` goes through the whole HostConfig; a key that is unknown here is told as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any, Final

from sandboxer.extensions.compose_ssh.engine import PROJECT_LABEL, SERVICE_LABEL, Item, StackInspection
from sandboxer.models import Isolation, SyscallFilter

_PLAIN_CAPS: Final = frozenset(
    {
        "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)  # fmt: skip
"""What Docker gives every container; podman a part of it."""
_OWN_LOGS: Final = frozenset({"", "json-file", "local", "journald", "k8s-file", "none", "passthrough"})
_LIFTED: Final = frozenset({"memlock", "rtprio", "nice", "msgqueue", "rttime"})
"""Limits that keep one program from taking what all share, and whose plain value is small."""
_PODMAN_PROFILES: Final = ("/usr/share/containers/seccomp.json", "default")
_DOCKER_PROFILES: Final = ("name=seccomp,profile=default", "name=seccomp,profile=builtin")
_SHM: Final = 64 * 1024 * 1024
_ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")
_SOCKETS: Final = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock")
_SOCKET_FOLDERS: Final = frozenset({"/", "/run", "/var/run", "/var", "/run/docker", "/run/podman", "/run/containerd"})


def isolation(shown: StackInspection, *, project: str, directories: Sequence[str]) -> Isolation:
    """How the containers of `project` are separated from their host. `directories` are the sandbox's own."""
    notes = ["kernel shared with the host"]
    ids = {str(item["Id"]) for item in shown.containers}
    modes: set[str] = set()
    for item in sorted(shown.containers, key=_service):
        view = _View(item, shown, project=project, directories=directories, ids=ids)
        modes.add(str(view.host.get("NetworkMode") or ""))
        for rule in _RULES:
            notes += [f"service {_service(item)!r} {text}" for text in rule(view)]
    if any((item.get("HostConfig") or {}).get(key) == "host" for item in shown.containers for key in _CGROUP_KEYS):
        notes.append("the names of the host's cgroups are visible inside")
    network = "host" if "host" in modes else "none" if modes == {"none"} else "bridge"
    return Isolation(class_="container", network=network, syscalls=_syscalls(shown), notes=list(dict.fromkeys(notes)))


def _syscalls(shown: StackInspection) -> SyscallFilter:
    """Whether all of them run under the engine's own filter of system calls: the weakest word of any."""
    engine = _engine_filter(shown.info)
    found: set[SyscallFilter] = set()
    for item in shown.containers:
        host = item.get("HostConfig") or {}
        options = [str(option) for option in host.get("SecurityOpt") or ()]
        chosen = [option.partition("=")[2] for option in options if option.startswith("seccomp=")]
        if host.get("Privileged") or "unconfined" in chosen:
            found.add("unfiltered")
        else:
            found.add("unknown" if set(chosen) - {"builtin", "default"} else engine)
    return "unfiltered" if "unfiltered" in found else "filtered" if found == {"filtered"} else "unknown"


def _engine_filter(info: Item) -> SyscallFilter:
    """What a container without an option of its own runs under, as `info` says it. A profile that the host's operator
    put in the place of the built-in one may be weaker: that is unknown."""
    podman = _deep(info, "host", "security")
    if isinstance(podman, dict):
        if not podman.get("seccompEnabled"):
            return "unfiltered"
        return "filtered" if podman.get("seccompProfilePath") in ("", None, *_PODMAN_PROFILES) else "unknown"
    said = info.get("SecurityOptions")
    if not isinstance(said, list):
        return "unknown"
    seccomp = next((str(option) for option in said if str(option).startswith("name=seccomp")), None)
    if seccomp is None or "profile=unconfined" in seccomp:
        return "unfiltered"
    return "filtered" if seccomp in _DOCKER_PROFILES else "unknown"


def _service(item: Item) -> str:
    labels = (item.get("Config") or {}).get("Labels") or {}
    return str(labels.get(SERVICE_LABEL) or str(item.get("Name", "")).lstrip("/"))


class _View:
    """One container, with what is needed to judge it."""

    def __init__(
        self, item: Item, shown: StackInspection, *, project: str, directories: Sequence[str], ids: set[str]
    ) -> None:
        self.item, self.shown = item, shown
        self.host: Item = item.get("HostConfig") or {}
        self.project, self.directories, self.ids = project, directories, ids
        self.podman = "ConmonPidFile" in item or "OCIRuntime" in item

    def list(self, key: str) -> list[Any]:
        """A list of HostConfig, empty where there is none."""
        found = self.host.get(key)
        return list(found) if isinstance(found, list) else []

    def stranger(self, mode: str) -> str | None:
        """Whose namespace a mode such as `container:ID` or `ns:PATH` joins, unless it is of this stack."""
        kind, _, name = mode.partition(":")
        if kind not in ("container", "ns") or (kind == "container" and name in self.ids):
            return None
        return f"container {name[:80]}" if kind == "container" else name[:200]

    def own(self, path: str) -> bool:
        """Whether a path of the host is the sandbox's own."""
        return any(path == one or path.startswith(one + "/") for one in self.directories)


_CGROUP_KEYS: Final = ("CgroupnsMode", "CgroupMode")
_SPACES: Final = (("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc"), ("UTSMode", "uts"),
                  ("UsernsMode", "user"))  # fmt: skip


def _power(view: _View) -> Iterator[str]:
    if view.host.get("Privileged"):
        yield "is privileged: it can take over the host"
    added = {str(name) for name in view.list("CapAdd")}
    if not view.host.get("Privileged"):
        held = view.item.get("BoundingCaps") or view.item.get("EffectiveCaps")
        added |= {str(name) for name in held or ()} - _PLAIN_CAPS if view.podman else set()
    if added:
        yield f"has added capabilities: {', '.join(sorted({name.removeprefix('CAP_') for name in added}))}"


def _namespaces(view: _View) -> Iterator[str]:
    for key, what in _SPACES:
        mode = str(view.host.get(key) or "")
        if mode == "host":
            yield "uses the host's network" if what == "network" else f"shares the host's {what} namespace"
        elif (whose := view.stranger(mode)) is not None:
            yield f"shares the {what} namespace of {whose}, which is not of this sandbox"
    for key in _CGROUP_KEYS:
        if (whose := view.stranger(str(view.host.get(key) or ""))) is not None:
            yield f"shares the cgroup namespace of {whose}, which is not of this sandbox"


def _networks(view: _View) -> Iterator[str]:
    for name in (view.item.get("NetworkSettings") or {}).get("Networks") or {}:
        if name in ("host", "none"):
            continue
        seen = view.shown.networks.get(name, {})
        driver = str(seen.get("Driver") or seen.get("driver") or "bridge")
        labels = seen.get("Labels") or seen.get("labels") or {}
        if labels.get(PROJECT_LABEL) != view.project:
            yield f"is on the network {name}, which is not only this sandbox's"
        if driver != "bridge":
            yield f"is on the network {name} of driver {driver}: it is seen beyond the host"


def _devices(view: _View) -> Iterator[str]:
    if view.host.get("Privileged"):
        return
    paths = sorted({str(one.get("PathOnHost", one)) if isinstance(one, dict) else str(one)
                    for one in view.list("Devices")})  # fmt: skip
    if paths:
        yield f"has devices of the host: {', '.join(paths)}"
    if rules := view.list("DeviceCgroupRules"):
        yield f"may use devices of the host by rule: {', '.join(map(str, rules))}"
    for request in view.list("DeviceRequests"):
        yield f"has devices of driver {request.get('Driver') or request.get('Capabilities')}"


def _security(view: _View) -> Iterator[str]:
    if view.host.get("Privileged"):
        return
    for option in map(str, view.list("SecurityOpt")):
        if option.startswith("no-new-privileges") or option in ("seccomp=builtin", "seccomp=default"):
            continue
        if option == "seccomp=unconfined":
            yield "runs without a filter of system calls"
        elif option.startswith("seccomp="):
            yield "runs with a filter of system calls of its own"
        else:
            yield f"runs with the security option {option[:200]}"
    if not view.podman and "MaskedPaths" in view.host and not (view.host["MaskedPaths"] and view.host["ReadonlyPaths"]):
        yield "sees the host's /proc and /sys without the engine's masks"


def _mounts(view: _View) -> Iterator[str]:
    for mount in sorted(view.item.get("Mounts") or (), key=lambda one: str(one.get("Destination"))):
        kind, source = str(mount.get("Type")), str(mount.get("Source", ""))
        if kind == "bind":
            yield from _bind(view, source)
        elif kind == "volume":
            yield from _volume(view, str(mount.get("Name", "")))
        elif kind not in ("tmpfs", "image"):
            yield f"has a mount of kind {kind}: {source}"


def _bind(view: _View, source: str) -> Iterator[str]:
    real = view.shown.real.get(source, "")
    if view.own(source) and (view.own(real) or not real):
        return
    where = source if real in ("", source) else f"{source} ({real})"
    if any(path.endswith(_SOCKETS) or path in _SOCKET_FOLDERS for path in (source, real)):
        yield f"holds the engine's socket by {where}: it can take over the host"
    else:
        yield f"mounts {where} of the host"


def _volume(view: _View, name: str) -> Iterator[str]:
    seen = view.shown.volumes.get(name)
    if seen is None:
        yield f"uses the volume {name}, of which the engine shows nothing"
        return
    options = seen.get("Options") or {}
    device, driver = str(options.get("device") or ""), str(seen.get("Driver") or "local")
    if device.endswith(_SOCKETS) or device in _SOCKET_FOLDERS:
        yield f"holds the engine's socket by the volume {name} ({device}): it can take over the host"
    elif device.startswith("/") and not view.own(device):
        yield f"mounts {device} of the host by the volume {name}"
    elif options and not (str(options.get("type")) == "tmpfs" or view.own(device)):
        said = ", ".join(f"{key}={value}" for key, value in sorted(options.items()))
        yield f"uses the volume {name} with options: {said[:300]}"
    if driver != "local":
        yield f"uses the volume {name} of driver {driver}"
    named = any(str(bind).startswith(f"{name}:") for bind in view.list("Binds"))
    anonymous = bool(seen.get("Anonymous")) or (bool(_ANONYMOUS.fullmatch(name)) and not named)
    if (seen.get("Labels") or {}).get(PROJECT_LABEL) != view.project and not anonymous:
        yield f"uses the volume {name}, which is not only this sandbox's"


def _ports(view: _View) -> Iterator[str]:
    bound = {**(view.host.get("PortBindings") or {})}
    for key, seen in ((view.item.get("NetworkSettings") or {}).get("Ports") or {}).items():
        bound[key] = seen or bound.get(key)
    for key, bindings in sorted(bound.items()):
        for address in sorted({str(one.get("HostIp") or "") for one in bindings or ()}):
            if not _loopback(address):
                yield f"publishes port {key} on {address or 'every address'} of the host: others can reach it"


def _loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _resources(view: _View) -> Iterator[str]:
    host = view.host
    if (host.get("OomScoreAdj") or 0) < 0:
        yield f"is ended later than others when memory is short (oom_score_adj {host['OomScoreAdj']})"
    if host.get("OomKillDisable"):
        yield "is never ended when memory is short"
    lifted = sorted(
        f"{one['Name']}={one.get('Hard')}"
        for one in view.list("Ulimits")
        if str(one.get("Name", "")).lower().removeprefix("rlimit_") in _LIFTED
    )
    if lifted:
        yield f"has other limits: {', '.join(lifted)}"
    if (host.get("ShmSize") or 0) > _SHM * 1.1:
        yield f"may take {host['ShmSize'] // 2**20} MiB of the host's memory by /dev/shm"
    if host.get("CpuRealtimeRuntime"):
        yield "may run before all others (real-time scheduling)"


def _rest(view: _View) -> Iterator[str]:
    host = view.host
    if host.get("CgroupParent"):
        yield f"runs in the cgroup {host['CgroupParent']}"
    if sysctls := host.get("Sysctls"):
        yield f"sets kernel parameters: {', '.join(f'{key}={value}' for key, value in sorted(sysctls.items()))}"
    runtime = str(view.item.get("OCIRuntime") or host.get("Runtime") or "")
    usual = view.shown.info.get("DefaultRuntime") or _deep(view.shown.info, "host", "ociRuntime", "name")
    if usual and runtime not in ("", "oci", usual):
        yield f"is run by the runtime {runtime}"
    log = host.get("LogConfig") or {}
    if str(log.get("Type") or "") not in _OWN_LOGS:
        yield f"writes its logs by the driver {log['Type']}"
    if str(log.get("Path") or "") and str(view.item["Id"]) not in log["Path"] and log["Path"] != "/dev/null":
        yield f"writes its logs to {log['Path']} of the host"
    if groups := view.list("GroupAdd"):
        yield f"has more groups: {', '.join(map(str, groups))}"
    if names := view.list("ExtraHosts"):
        yield f"knows more hosts by name: {', '.join(map(str, names))}"


_LOOKED_AT: Final = frozenset(
    {
        # the rules above tell of them, or of what they lead to
        "Binds", "CapAdd", "CgroupMode", "CgroupParent", "CgroupnsMode", "CpuRealtimePeriod", "CpuRealtimeRuntime",
        "DeviceCgroupRules", "DeviceRequests", "Devices", "ExtraHosts", "GroupAdd", "IpcMode", "LogConfig",
        "MaskedPaths", "Mounts", "NetworkMode", "OomKillDisable", "OomScoreAdj", "PidMode", "PortBindings",
        "Privileged", "PublishAllPorts", "ReadonlyPaths", "Runtime", "SecurityOpt", "ShmSize", "Sysctls", "UTSMode",
        "Ulimits", "UsernsMode", "VolumeDriver", "VolumesFrom",
        # they only limit, or say something of the inside
        "AutoRemove", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps",
        "BlkioWeight", "BlkioWeightDevice", "CapDrop", "Cgroup", "CgroupManager", "ConsoleSize", "ContainerIDFile",
        "CpuCount", "CpuPercent", "CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "CpusetMems", "DiskQuota", "Dns",
        "DnsOptions", "DnsSearch", "IOMaximumBandwidth", "IOMaximumIOps", "Init", "Isolation", "KernelMemory",
        "KernelMemoryTCP", "Links", "Memory", "MemoryReservation", "MemorySwap", "MemorySwappiness", "NanoCpus",
        "PidsLimit", "ReadonlyRootfs", "RestartPolicy", "Tmpfs",
    }
)  # fmt: skip
_OWN_ANNOTATIONS: Final = ("io.container.manager", "io.podman.annotations.", "org.opencontainers.", "org.systemd.")


def _unknown(view: _View) -> Iterator[str]:
    said = dict(view.host)
    if said.get("Cgroups") in ("default", "enabled"):
        del said["Cgroups"]
    annotations = said.get("Annotations")
    if isinstance(annotations, dict) and all(str(key).startswith(_OWN_ANNOTATIONS) for key in annotations):
        del said["Annotations"]
    names = sorted(key for key, value in said.items() if value and key not in _LOOKED_AT)
    if names:
        yield f"has settings of its engine that nobody has looked at yet: {', '.join(names)[:500]}"


def _deep(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


_RULES: Final = (_power, _namespaces, _networks, _devices, _security, _mounts, _ports, _resources, _rest,
                 _unknown)  # fmt: skip
