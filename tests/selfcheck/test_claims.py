"""The table: which measurement contradicts which claim, and that everything else does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandboxer.models import Isolation, IsolationClass, SyscallFilter
from sandboxer.selfcheck.claims import checks, contradictions
from sandboxer.selfcheck.isolation_report import IsolationReport

from .samples import ANSWER, FACTS, measured

PATHS: dict[str, Any] = ANSWER["paths"]
LOCAL_CLASSES: tuple[IsolationClass, ...] = ("namespace", "container")
OTHER_KERNELS: tuple[IsolationClass, ...] = ("vm", "microvm", "remote")


def claim(class_: IsolationClass, network: str = "none") -> Isolation:
    return Isolation(class_=class_, network=network)


def wrong(claimed: Isolation, **changes: Any) -> list[str]:
    return [check.claim for check in contradictions(claimed, measured(**changes))]


def looked(**changes: dict[str, Any]) -> dict[str, Any]:
    return {**PATHS, **{f"/{path}": seen for path, seen in changes.items()}}


@pytest.mark.parametrize("class_", LOCAL_CLASSES)
def test_a_good_sandbox_keeps_every_claim(class_: IsolationClass) -> None:
    verdicts = {check.claim: check.verdict for check in checks(claim(class_), measured())}
    assert set(verdicts.values()) == {"holds"}
    assert len(verdicts) > 10


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("the host's files are hidden", {"canary": {"seen": "read", "at": "/mnt/x", "text": FACTS.secret}}),
    ("the host's files are hidden", {"paths": looked(root={"id": "8:12", "readable": True})}),
    ("the host's files are hidden", {"paths": {**PATHS, "/etc/shadow": {"id": "8:15", "readable": True}}}),
    ("the host's files are hidden", {"paths": {**PATHS, "/": {"id": "8:2", "readable": True}}}),
    ("the host's files are hidden", {"mounts": [["/mnt/x", "/srv/sandboxer/sbx-bbbbbbbbbbbb/workspace"]]}),
    ("writes stay inside", {"writable": [["/etc", "8:11"]]}),
    ("writes stay inside", {"writable": [["/mnt/renamed", "8:11"]]}),
    ("read-only mounts stay so", {"escalation": {"user_namespaces": True, "remounted": ["/usr"]}}),
    ("the host's processes are hidden", {"processes": {"seen": 90, "of_host": [[77, 4321]]}}),
    (
        "the host's services are out of reach",
        {"sockets": ["/run/docker.sock"], "paths": {**PATHS, "/run/docker.sock": {"id": "20:7", "readable": False}}},
    ),
    ("host name of its own", {"namespaces": {**ANSWER["namespaces"], "uts": 6}}),
    ("inter-process communication of its own", {"namespaces": {**ANSWER["namespaces"], "ipc": 1}}),
    ("disks and memory are out of reach", {"openable": ["/dev/sda"]}),
    ("kernel settings stay", {"kernel_settings": ["/proc/sysrq-trigger"]}),
    ("our environment stays out", {"environment": {"EDITOR": 111, "GPG_KEY": 222}}),
    ("no network", {"interfaces": ["lo", "eth0"]}),
    ("no network", {"default_route": True}),
    ("no network", {"reached": [["203.0.113.7", 22, "refused"]]}),
    ("no network", {"called": True}),
    ("network of its own", {"namespaces": {**ANSWER["namespaces"], "net": 3}}),
]


@pytest.mark.parametrize(("expected", "changes"), FAULTS)
@pytest.mark.parametrize("class_", LOCAL_CLASSES)
def test_a_fault_contradicts_its_claim(class_: IsolationClass, expected: str, changes: dict[str, Any]) -> None:
    assert expected in wrong(claim(class_), **changes)


ONLY_NAMESPACE: list[tuple[str, dict[str, Any]]] = [
    ("not root on the host", {"owner": 0}),
    ("our environment stays out", {"environment": {"EDITOR": 111}}),
    ("our environment stays out", {"environment": {"SSH_CONNECTION": 5}}),
    ("no open files of the host", {"descriptors": [[7, "directory", "/srv"]]}),
]


@pytest.mark.parametrize(("expected", "changes"), ONLY_NAMESPACE)
def test_what_a_container_may_have_a_namespace_sandbox_may_not(expected: str, changes: dict[str, Any]) -> None:
    assert wrong(claim("namespace"), **changes) == [expected]
    assert wrong(claim("container", "bridge"), **changes) == []


def test_capabilities_matter_only_over_the_host() -> None:
    status = {**ANSWER["status"], "CapEff": "00000000a80425fb"}  # what engines give by default
    shared = {**ANSWER["namespaces"], "user": 5}
    assert wrong(claim("namespace"), status=status) == []
    assert wrong(claim("namespace"), status=status, namespaces=shared) == ["no capabilities over the host"]
    assert wrong(claim("container"), status=status, namespaces=shared) == []
    whole = {**ANSWER["status"], "CapEff": "000001ffffffffff"}
    assert wrong(claim("container"), status=whole, namespaces=shared) == ["no power over the host"]


@pytest.mark.parametrize("class_", OTHER_KERNELS)
def test_another_kernel_is_claimed_and_measured_by_the_boot(class_: IsolationClass) -> None:
    assert wrong(claim(class_, "nat")) == ["a kernel of its own"]
    other: dict[str, Any] = {"boot_id": "boot-of-guest", "namespaces": dict(FACTS.namespaces)}
    assert wrong(claim(class_, "nat"), **other) == []
    assert measured(**other).boundary == "vm"
    # the guest's own first processes, places and numbers look like the host's, and mean nothing
    alike = {
        "paths": {**PATHS, "/": {"id": "8:2", "readable": True}},
        "processes": {"seen": 9, "of_host": [[1, 5]]},
        "writable": [["/etc", "8:11"]],
    }
    assert wrong(claim(class_, "nat"), **other, **alike) == []
    assert wrong(claim(class_), **other, canary={"seen": "read", "text": FACTS.secret, "at": "/mnt"}) == [
        "the host's files are hidden"
    ]


@pytest.mark.parametrize("network", ["bridge", "nat", "private", "user"])
def test_a_network_of_its_own_may_lead_out(network: str) -> None:
    out = {"interfaces": ["lo", "eth0"], "default_route": True, "reached": [["203.0.113.7", 22, "refused"]]}
    assert wrong(claim("container", network), **out) == []
    shared = {**ANSWER["namespaces"], "net": 3}
    assert wrong(claim("container", network), **out, namespaces=shared) == ["network of its own"]


def test_the_hosts_network_when_claimed_has_to_be_there() -> None:
    shared = {**ANSWER["namespaces"], "net": 3}
    assert wrong(claim("namespace", "host"), namespaces=shared) == []
    assert wrong(claim("namespace", "host")) == ["the host's network"]


@pytest.mark.parametrize("class_", [*LOCAL_CLASSES, "none"])
def test_a_filter_of_system_calls_is_held_against_its_claim_in_every_class(class_: IsolationClass) -> None:
    said = Isolation(class_=class_, network="host", syscalls="filtered")
    filtered = {**ANSWER["status"], "Seccomp": "2"}
    ours = "system calls are filtered"

    def verdict(claimed: Isolation, **changes: Any) -> str | None:
        return {check.claim: check.verdict for check in checks(claimed, measured(**changes))}.get(ours)

    assert verdict(said, status=filtered, open_calls=[]) == "holds"
    assert verdict(said, status=filtered, open_calls=["keyctl"]) == "contradicted"
    assert verdict(said, status={**filtered, "Seccomp": "0"}, open_calls=[]) == "contradicted"
    assert verdict(said, status=filtered, open_calls=None) == "unknown"
    assert verdict(said, status={}, open_calls=[]) == "unknown"
    silents: tuple[SyscallFilter, ...] = ("unfiltered", "unknown")
    for silent in silents:
        assert verdict(Isolation(class_=class_, network="host", syscalls=silent), open_calls=["keyctl"]) is None


FILTERED: list[tuple[str, dict[str, Any]]] = [
    ("the first process is out of reach", {"traces_init": True}),
    ("the kernel's own files are masked", {"kernel_files": ["/proc/keys"]}),
]


@pytest.mark.parametrize(("expected", "changes"), FILTERED)
def test_a_filtered_namespace_hides_its_first_process_and_the_kernels_files(
    expected: str, changes: dict[str, Any]
) -> None:
    status = {**ANSWER["status"], "Seccomp": "2"}
    good: dict[str, Any] = {"status": status, "open_calls": []}
    said = Isolation(class_="namespace", network="none", syscalls="filtered")
    assert [check.claim for check in contradictions(said, measured(**good, **changes))] == [expected]
    assert contradictions(said, measured(**good)) == []
    container = Isolation(class_="container", network="bridge", syscalls="filtered")
    assert contradictions(container, measured(**good, **changes)) == []


@pytest.mark.parametrize("class_", ["none", "process"])
def test_who_claims_nothing_is_not_contradicted(class_: IsolationClass) -> None:
    assert wrong(claim(class_, "host"), paths={**PATHS, "/": {"id": "8:2", "readable": True}}, owner=0) == []


@pytest.mark.parametrize("class_", [*LOCAL_CLASSES, *OTHER_KERNELS])
def test_what_could_not_be_measured_is_named_and_is_no_contradiction(class_: IsolationClass) -> None:
    verdicts = {check.claim: check.verdict for check in checks(claim(class_), IsolationReport())}
    assert set(verdicts.values()) == {"unknown"}


def test_the_measured_half_survives_json() -> None:
    before = measured()
    assert msgspec.json.decode(msgspec.json.encode(before), type=IsolationReport) == before
