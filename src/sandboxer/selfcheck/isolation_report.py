"""The measured half of the isolation report."""

from __future__ import annotations

from typing import Literal

from sandboxer.models import Value

Boundary = Literal["none", "namespaces", "container", "vm", "unknown"]


class MeasuredLimits(Value, frozen=True, kw_only=True):
    """Limits in force inside; None is no limit, or none that can be seen from there."""

    processes: int | None = None
    open_files: int | None = None
    address_space_bytes: int | None = None
    memory_bytes: int | None = None


class IsolationReport(Value, frozen=True, kw_only=True):
    """What the isolation really lets through (docs/host-telemetry.md). None is "could not be measured".

    `boundary`: `vm` is another kernel than the host's; `container` the host's kernel below a file system of its own;
    `namespaces` the host's kernel and system files behind namespaces; `none` neither.
    """

    boundary: Boundary = "unknown"
    kernel: str | None = None
    kernel_shared: bool | None = None
    hostname: str | None = None
    sees_host_files: bool | None = None
    host_files: list[str] = []
    """Private places of the host that could be read, as seen from inside."""
    sees_host_processes: bool | None = None
    processes: int | None = None
    reaches_host: bool | None = None
    host_addresses: list[str] = []
    """Addresses of the host that answered."""
    reaches_out: bool | None = None
    """Whether there is a route to the wide world; nobody there is called."""
    interfaces: list[str] | None = None
    writes_to_host: bool | None = None
    host_places_written: list[str] = []
    writable: list[str] = []
    """Directories outside the workspace in which files can be made, private ones included."""
    root_on_host: bool | None = None
    uid: int | None = None
    host_uid: int | None = None
    """Who the sandbox's user is on the host: the owner there of a file made inside."""
    capabilities: list[str] | None = None
    capabilities_on_host: bool | None = None
    """Whether they hold over the host: they do unless the user namespace is another one."""
    no_new_privileges: bool | None = None
    system_calls_filtered: bool | None = None
    """Whether there is a filter; what it lets through is told by `open_calls`."""
    open_calls: list[str] | None = None
    """System calls that a filter such as Docker's closes, and that were made."""
    traces_init: bool | None = None
    """Whether process 1 inside could be traced."""
    kernel_files: list[str] | None = None
    """Files of /proc that tell of the whole machine, and gave something."""
    makes_user_namespaces: bool | None = None
    remounted: list[str] | None = None
    """Read-only mounts that could be made writable after all."""
    own_namespaces: list[str] | None = None
    shared_namespaces: list[str] | None = None
    host_services: list[str] | None = None
    """Sockets of the host's services that answered."""
    host_environment: list[str] | None = None
    """Names of variables that hold what they hold for sandboxer itself."""
    host_environment_whole: bool | None = None
    inherited: list[str] | None = None
    """Open files, directories, devices and sockets that a program is started with."""
    devices: list[str] | None = None
    raw_devices: list[str] | None = None
    """Disks, memory and other devices that could be opened."""
    kernel_settings: list[str] | None = None
    """Settings of the whole kernel that could be opened for writing."""
    limits: MeasuredLimits = MeasuredLimits()
    python: str | None = None
    sandboxer: str | None = None
    failed: dict[str, str] = {}
    """Measures that could not be taken, and why."""
