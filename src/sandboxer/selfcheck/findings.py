"""What the probe's answer means, once it is laid beside the host's marks. Pure, and proof against any answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandboxer.names import PREFIX
from sandboxer.selfcheck.host_marks import HostMarks
from sandboxer.selfcheck.isolation_report import Boundary, IsolationReport, MeasuredLimits

_MAX_ITEMS: Final = 32
_MAX_TEXT: Final = 200
_OTHER = re.compile(rf"/{PREFIX}([a-z][a-z0-9]{{11}})(?:/|$)")
# Every system sets these to what they are everywhere, so that finding them inside proves nothing.
_CONVENTIONAL: Final = frozenset(
    ("HOME", "HOSTNAME", "LANG", "LANGUAGE", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR",
     "TZ", "USER", "_")
)  # fmt: skip
# capabilities(7), by number
CAPABILITIES: Final = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip


def findings(
    answer: Mapping[str, Any],
    facts: HostMarks,
    *,
    owners: Mapping[int, int],
    called: bool | None,
    environment: Mapping[str, int],
) -> IsolationReport:
    """Lay the probe's answer beside the host's marks.

    `owners`: by inode, whom the marks in the workspace belong to on the host. `called`: whether the listener on the
    host's loopback was reached; None without one. `environment`: checksums of our own variables."""
    shared = _same(answer.get("boot_id"), facts.boot_id)
    namespaces = _numbers(answer.get("namespaces"))
    # Every Linux numbers its first namespaces alike: across kernels the comparison says nothing.
    common = [name for name in sorted(facts.namespaces) if name in namespaces] if shared is not False else []
    same = [name for name in common if namespaces[name] == facts.namespaces[name]]
    own = [name for name in common if name not in same] if shared is not False else sorted(namespaces)
    files = _host_files(answer, facts, shared=shared)
    places = _host_places(answer, facts, shared=shared)
    processes = _mapping(answer.get("processes"))
    addresses = _addresses(answer, called=called, same_network="net" in same)
    status = {key: _text(value) or "" for key, value in _mapping(answer.get("status")).items()}
    escalation = _mapping(answer.get("escalation"))
    uid, host_uid = _whole(answer.get("uid")), owners.get(_whole(answer.get("mark")) or -1) if shared else None
    inside = _numbers(answer.get("environment"))
    leaked = sorted(n for n, mark in inside.items() if environment.get(n) == mark or n.startswith("SSH_"))
    files_known = _mapping(answer.get("canary")).get("seen") in ("absent", "denied", "read")
    return IsolationReport(
        boundary=_boundary(answer, facts, shared=shared, own=own),
        kernel=_text(answer.get("kernel")),
        kernel_shared=shared,
        hostname=_text(answer.get("hostname")),
        sees_host_files=None if files is None else bool(files) or (False if files_known else None),
        host_files=(files or [])[:_MAX_ITEMS],
        sees_host_processes=_sees_processes(processes, shared=shared, same=same, known=bool(facts.processes)),
        processes=_whole(processes.get("seen")),
        reaches_host=None if addresses is None else bool(addresses),
        host_addresses=(addresses or [])[:_MAX_ITEMS],
        reaches_out=_flag(answer.get("default_route")),
        interfaces=_texts(answer.get("interfaces")),
        writes_to_host=None if places is None else bool(places),
        host_places_written=(places or [])[:_MAX_ITEMS],
        writable=[path for path, _ in _pairs(answer.get("writable")) or []][:_MAX_ITEMS],
        root_on_host=False if shared is False else None if host_uid is None else host_uid == 0,
        uid=uid,
        host_uid=host_uid,
        capabilities=_capabilities(status.get("CapEff")),
        capabilities_on_host=_over_host(shared=shared, same=same, own=own),
        no_new_privileges={"0": False, "1": True}.get(status.get("NoNewPrivs", "")),
        system_calls_filtered={"0": False, "1": True, "2": True}.get(status.get("Seccomp", "")),
        open_calls=_texts(answer.get("open_calls")),
        traces_init=_flag(answer.get("traces_init")),
        kernel_files=_texts(answer.get("kernel_files")),
        makes_user_namespaces=_flag(escalation.get("user_namespaces")),
        remounted=_texts(escalation.get("remounted")),
        own_namespaces=own if namespaces and facts.namespaces else None,
        shared_namespaces=same if namespaces and facts.namespaces else None,
        host_services=_services(answer, facts, shared=shared),
        host_environment=leaked[:_MAX_ITEMS] if _is_mapping(answer.get("environment")) else None,
        host_environment_whole=_whole_environment(leaked, environment, inside),
        inherited=_inherited(answer.get("descriptors")),
        devices=_texts(answer.get("devices")),
        raw_devices=_texts(answer.get("openable")),
        kernel_settings=_texts(answer.get("kernel_settings")),
        limits=MeasuredLimits(
            **{k: _whole(_mapping(answer.get("limits")).get(k)) for k in MeasuredLimits.__struct_fields__}
        ),
        python=_text(answer.get("python")),
        sandboxer=_text(answer.get("sandboxer")),
        failed={str(k)[:40]: _text(v) or "" for k, v in list(_mapping(answer.get("failed")).items())[:_MAX_ITEMS]},
    )


def _boundary(answer: Mapping[str, Any], facts: HostMarks, *, shared: bool | None, own: Sequence[str]) -> Boundary:
    if shared is None:
        return "unknown"
    if not shared:
        return "vm"
    if not {"mnt", "pid"} <= set(own):
        return "none"
    usr = _mapping(_mapping(answer.get("paths")).get("/usr")).get("id")
    return "namespaces" if usr == facts.identities.get("/usr") else "container"


def _host_files(answer: Mapping[str, Any], facts: HostMarks, *, shared: bool | None) -> list[str] | None:
    """Private places of the host that can be read. Having the planted file's text is proof on any kernel; sameness
    of an inode only where the kernel is the same."""
    found = []
    canary = _mapping(answer.get("canary"))
    if canary.get("seen") == "read" and canary.get("text") == facts.secret:
        found.append(_text(canary.get("at")) or facts.planted)
    if shared is False:
        return found
    looked = _mapping(answer.get("paths"))
    if not looked and not found:
        return None
    for path, seen in looked.items():
        known = facts.identities.get(path)
        if known is None or not _is_mapping(seen) or seen.get("id") != known:
            continue
        if path == "/" or (path in facts.private and seen.get("readable") is True):
            found.append(_text(path) or "")
    own = _OTHER.search(f"{facts.own_directory}/")
    for at, source in _pairs(answer.get("mounts")) or []:
        other = _OTHER.search(source)
        if other and own and other[1] != own[1]:
            found.append(f"{_text(at)} ({_text(source)})")
    return list(dict.fromkeys(found))


def _host_places(answer: Mapping[str, Any], facts: HostMarks, *, shared: bool | None) -> list[str] | None:
    """Directories outside the workspace that could be written and are the host's own."""
    if shared is False:
        return []
    pairs = _pairs(answer.get("writable"))
    if pairs is None or not facts.identities:
        return None
    of_host = set(facts.identities.values())
    return [path for path, mark in pairs if mark in of_host]


def _sees_processes(
    processes: Mapping[str, Any], *, shared: bool | None, same: Sequence[str], known: bool
) -> bool | None:
    if processes.get("of_host"):
        return shared is not False
    if shared is False:
        return False
    # Without a look at /proc the namespace alone would be a claim, not a measurement.
    return False if known and _whole(processes.get("seen")) and "pid" not in same else None


def _addresses(answer: Mapping[str, Any], *, called: bool | None, same_network: bool) -> list[str] | None:
    reached = answer.get("reached")
    if not isinstance(reached, list):
        return None
    found = ["127.0.0.1"] if called else []
    for item in reached:
        if isinstance(item, list) and len(item) == 3 and not str(item[0]).startswith("127."):
            found.append(_text(item[0]) or "")
    if same_network and not found:
        found.append("shared network")
    return list(dict.fromkeys(found))


def _services(answer: Mapping[str, Any], facts: HostMarks, *, shared: bool | None) -> list[str] | None:
    sockets = _texts(answer.get("sockets"))
    if sockets is None or shared is False:
        return sockets and []
    looked = _mapping(answer.get("paths"))
    return [p for p in sockets if (known := facts.identities.get(p)) and _mapping(looked.get(p)).get("id") == known]


def _over_host(*, shared: bool | None, same: Sequence[str], own: Sequence[str]) -> bool | None:
    if shared is False or "user" in own:
        return False
    return True if "user" in same else None


def _whole_environment(leaked: Sequence[str], ours: Mapping[str, int], inside: Mapping[str, int]) -> bool | None:
    """Whether our environment went in as it is. A single equal value may come from an image that we share."""
    return set(ours) <= set(leaked) if ours and inside else None


def comparable(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables whose values tell one process's environment from another's."""
    return {n: v for n, v in environment.items() if v and n not in _CONVENTIONAL and not n.startswith("LC_")}


def _inherited(descriptors: object) -> list[str] | None:
    if not isinstance(descriptors, list):
        return None
    found = []
    for item in descriptors[:_MAX_ITEMS]:
        if isinstance(item, list) and len(item) == 3 and item[1] in ("directory", "file", "device", "socket"):
            found.append(f"{_text(item[2])} ({item[1]})")
    return found


def _capabilities(text: str | None) -> list[str] | None:
    if not text or not re.fullmatch(r"[0-9a-f]{1,16}", text):
        return None
    bits = int(text, 16)
    return [name for number, name in enumerate(CAPABILITIES) if bits >> number & 1]


# -- a stranger's JSON --------------------------------------------------------------------------------------------


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: object) -> dict[str, int]:
    return {k: n for k, v in _mapping(value).items() if (n := _whole(v)) is not None}


def _pairs(value: object) -> list[tuple[str, str]] | None:
    if not isinstance(value, list):
        return None
    return [(str(item[0]), str(item[1])) for item in value if isinstance(item, list) and len(item) == 2]


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    return [text for item in value[:_MAX_ITEMS] if (text := _text(item)) is not None]


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(c for c in value if c.isprintable())[:_MAX_TEXT]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _same(ours: object, theirs: str | None) -> bool | None:
    return ours == theirs if isinstance(ours, str) and ours and theirs else None
