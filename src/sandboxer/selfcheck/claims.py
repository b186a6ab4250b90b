"""Which measurement would contradict which claim: one table. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from sandboxer.models import Isolation, Value
from sandboxer.selfcheck.isolation_report import IsolationReport

Verdict = Literal["holds", "contradicted", "unknown"]
_LOCAL: Final = frozenset(("namespace", "container"))
_OTHER_KERNEL: Final = frozenset(("vm", "microvm", "remote"))
_ANY: Final = _LOCAL | _OTHER_KERNEL
_OWN_NETWORK: Final = frozenset(("bridge", "nat", "private", "user"))
# With one of these over the host's user namespace, the rest of the boundary is a matter of politeness.
_POWERFUL: Final = frozenset(
    ("sys_admin", "sys_module", "sys_rawio", "sys_boot", "dac_read_search", "bpf", "mac_admin")
)


class ClaimCheck(Value, frozen=True, kw_only=True):
    """One claim and how it fared. `measured` is what was found, in words."""

    claim: str
    verdict: Verdict
    measured: str


class _Rule(NamedTuple):
    """A claim that follows from some isolation classes, from the network's name, or from what is said of system calls.

    `broken` True is a contradiction, None could not be measured."""

    claim: str
    applies: Callable[[Isolation], bool]
    broken: Callable[[IsolationReport], bool | None]
    found: Callable[[IsolationReport], object]


def _of(*classes: str) -> Callable[[Isolation], bool]:
    return lambda claimed: claimed.class_ in classes


def _filtered_namespace(claimed: Isolation) -> bool:
    return claimed.class_ == "namespace" and claimed.syscalls == "filtered"


def _any_of(found: list[str] | None) -> bool | None:
    return None if found is None else bool(found)


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _network_open(m: IsolationReport) -> bool | None:
    """Whether anything but the sandbox's own loopback can be reached."""
    beyond = None if m.interfaces is None else bool(set(m.interfaces) - {"lo"})
    answers = (beyond, m.reaches_host, m.reaches_out)
    return True if True in answers else None if None in answers else False


def _network_found(m: IsolationReport) -> list[str]:
    return [*(f"interface {n}" for n in m.interfaces or [] if n != "lo"), *m.host_addresses]


def _shares(namespace: str) -> Callable[[IsolationReport], bool | None]:
    def shared(m: IsolationReport) -> bool | None:
        if m.kernel_shared is False:
            return False
        if m.shared_namespaces is None or m.own_namespaces is None:
            return None
        if namespace in m.shared_namespaces:
            return True
        return False if namespace in m.own_namespaces else None

    return shared


def _powers(m: IsolationReport) -> bool | None:
    if m.capabilities is None or m.capabilities_on_host is None:
        return None
    return m.capabilities_on_host and bool(_POWERFUL & set(m.capabilities))


def _any_capability(m: IsolationReport) -> bool | None:
    if m.capabilities is None or m.capabilities_on_host is None:
        return None
    return m.capabilities_on_host and bool(m.capabilities)


def _calls_open(m: IsolationReport) -> bool | None:
    """A filter that is not there, or that lets through what it should not."""
    if m.system_calls_filtered is False or m.open_calls:
        return True
    return None if m.system_calls_filtered is None or m.open_calls is None else False


def _calls_found(m: IsolationReport) -> list[str]:
    return [*([] if m.system_calls_filtered else ["no filter"]), *(m.open_calls or [])]


def _dangerous_devices(m: IsolationReport) -> list[str] | None:
    """Machines and tunnels that can be made are no way to the host's own; its disks and memory are."""
    harmless = ("/dev/kvm", "/dev/fuse", "/dev/net/tun")
    return None if m.raw_devices is None else [path for path in m.raw_devices if path not in harmless]


_RULES: Final = (
    _Rule("the host's files are hidden", _of(*_ANY), lambda m: m.sees_host_files, lambda m: m.host_files),
    _Rule("writes stay inside", _of(*_ANY), lambda m: m.writes_to_host, lambda m: m.host_places_written),
    _Rule("read-only mounts stay so", _of(*_LOCAL), lambda m: _any_of(m.remounted), lambda m: m.remounted),
    _Rule("the host's processes are hidden", _of(*_ANY), lambda m: m.sees_host_processes, lambda m: m.processes),
    _Rule(
        "the host's services are out of reach",
        _of(*_ANY),
        lambda m: _any_of(m.host_services),
        lambda m: m.host_services,
    ),
    _Rule("host name of its own", _of(*_LOCAL), _shares("uts"), lambda m: m.hostname),
    _Rule("inter-process communication of its own", _of(*_LOCAL), _shares("ipc"), lambda m: m.shared_namespaces),
    _Rule("not root on the host", _of("namespace"), lambda m: m.root_on_host, lambda m: f"user {m.host_uid}"),
    _Rule("no capabilities over the host", _of("namespace"), _any_capability, lambda m: m.capabilities),
    _Rule("no power over the host", _of("container"), _powers, lambda m: m.capabilities),
    _Rule(
        "disks and memory are out of reach", _of(*_LOCAL), lambda m: _any_of(_dangerous_devices(m)), _dangerous_devices
    ),
    _Rule("kernel settings stay", _of(*_LOCAL), lambda m: _any_of(m.kernel_settings), lambda m: m.kernel_settings),
    _Rule(
        "our environment stays out",
        _of("namespace"),
        lambda m: _any_of(m.host_environment),
        lambda m: m.host_environment,
    ),
    _Rule(
        "our environment stays out",
        _of("container", *_OTHER_KERNEL),
        lambda m: m.host_environment_whole,
        lambda m: m.host_environment,
    ),
    _Rule("no open files of the host", _of("namespace"), lambda m: _any_of(m.inherited), lambda m: m.inherited),
    _Rule("a kernel of its own", _of(*_OTHER_KERNEL), lambda m: m.kernel_shared, lambda m: f"kernel {m.kernel}"),
    _Rule("system calls are filtered", lambda c: c.syscalls == "filtered", _calls_open, _calls_found),
    _Rule(
        "the first process is out of reach", _filtered_namespace, lambda m: m.traces_init, lambda _: "it can be traced"
    ),
    _Rule(
        "the kernel's own files are masked",
        _filtered_namespace,
        lambda m: _any_of(m.kernel_files),
        lambda m: m.kernel_files,
    ),
    _Rule("no network", lambda c: c.network == "none", _network_open, _network_found),
    _Rule(
        "network of its own",
        lambda c: c.class_ in _LOCAL and c.network in (*_OWN_NETWORK, "none"),
        _shares("net"),
        lambda m: m.interfaces,
    ),
    _Rule(
        "the host's network",
        lambda c: c.class_ in _LOCAL and c.network == "host",
        lambda m: _not(_shares("net")(m)),
        lambda m: m.interfaces,
    ),
)


def checks(claimed: Isolation, measured: IsolationReport) -> list[ClaimCheck]:
    """Every claim that follows from what was claimed, with its verdict."""
    return [_check(rule, measured) for rule in _RULES if rule.applies(claimed)]


def contradictions(claimed: Isolation, measured: IsolationReport) -> list[ClaimCheck]:
    """The claims that the measurement contradicts. What could not be measured contradicts nothing."""
    return [check for check in checks(claimed, measured) if check.verdict == "contradicted"]


def _check(rule: _Rule, measured: IsolationReport) -> ClaimCheck:
    broken = rule.broken(measured)
    verdict: Verdict = "unknown" if broken is None else "contradicted" if broken else "holds"
    return ClaimCheck(claim=rule.claim, verdict=verdict, measured=_words(rule.found(measured)) if broken else "")


def _words(found: object) -> str:
    if isinstance(found, list):
        return ", ".join(str(item) for item in found) or "seen"
    return str(found)
