"""Say why a sandbox was not made, started or entered on a host, and what to do about it. Pure."""

from __future__ import annotations

import re
from typing import Final

from sandboxer.errors import BackendError, Conflict, NotConfigured, SandboxerError
from sandboxer.extensions.native.handle import SandboxPaths
from sandboxer.extensions.native.host_facts import HostFacts

STOPPED: Final = "it is stopped"
"""What enter.sh says of a sandbox that was stopped: nothing but `start` starts it again."""
CHANGED: Final = "is not what it was when the sandbox was made"
"""What enter.sh, start.sh and the guard say of a file that a restart would run."""
JUST_ENDED: Final = "its first process has just ended"
"""What enter.sh and the guard say of a sandbox that ends while it is entered: the next attempt starts it again."""
_FORBIDDEN = re.compile(
    r"No permissions to create a? ?new namespace|Creating new namespace failed|Operation not permitted"
    r"|unshare failed: (Permission|Operation|No space)|setting up uid map: Permission|write failed /proc/self/uid_map"
)
_NOT_EXECUTABLE = re.compile(r"/run/(guard|bwrap/\S+): Permission denied")
_NO_SUCH_USER = re.compile(r"(setres[ug]id failed|changing ownership of .*): Invalid argument")
"""A user namespace that maps few numbers, as in rootless podman."""
_SYSCTL_HINTS: Final = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap an AppArmor profile with `userns`",
    ),
)
INSTALL_BWRAP: Final = "install bubblewrap 0.8 or newer there (apt-get install bubblewrap; dnf, apk, pacman likewise)"


class OldBubblewrap(NotConfigured):
    """The host's bubblewrap does not know an option of ours; ours may do."""


def why_not_started(complaint: str, facts: HostFacts) -> SandboxerError:
    """The error for a namespace that could not be made, from what bwrap, unshare or setpriv said."""
    said = complaint.strip()[-1000:]
    if "Unknown option" in said:
        return OldBubblewrap(f"the host's bubblewrap is older than 0.8: {said}", hint=INSTALL_BWRAP)
    if _NO_SUCH_USER.search(said):
        return NotConfigured(
            f"root on the host may not act as the user numbers that sandboxes get: {said}",
            hint="is it a container without root's rights outside? run sandboxer there as an ordinary user",
        )
    if _NOT_EXECUTABLE.search(said):
        return NotConfigured(
            f"nothing can be executed in the work directory: {said}",
            hint="it lies on a file system mounted with `noexec` (findmnt -T DIR): set another `work_dir` of the host "
            "in config.yaml, or as root there: mount -o remount,exec MOUNT",
        )
    if not _FORBIDDEN.search(said):
        return BackendError(f"the sandbox did not start: {said}", hint="run `sandboxer doctor`")
    for name, value, remedy in _SYSCTL_HINTS:
        if facts.sysctls.get(name) == value:
            return NotConfigured(f"the host does not allow user namespaces: {said}", hint=f"as root there: {remedy}")
    return NotConfigured(
        f"the host does not allow new namespaces: {said}",
        hint="inside a container it must be allowed from outside (docker run --privileged); or use another host",
    )


def not_started_again(paths: SandboxPaths, reason: str) -> SandboxerError:
    """The error for a sandbox that `start` did not start."""
    if CHANGED in reason:
        return not_entered(paths, reason)
    return BackendError(
        f"the sandbox {paths.name} did not start: {reason}",
        hint="run `sandboxer doctor`; what is in the workspace is still there",
        sandbox_id=paths.sandbox_id,
    )


def foreign(paths: SandboxPaths) -> Conflict:
    """The error for a directory that is not ours."""
    return Conflict(
        f"{paths.directory} belongs to another installation of sandboxer",
        hint=f"look at {paths.marker}; remove it with the installation that made it",
    )


def not_made(paths: SandboxPaths, why: str) -> BackendError:
    return BackendError(
        f"the directory {paths.directory} could not be made: {why}",
        hint="check `work_dir` of the host in config.yaml: its rights, and free space (df -h)",
    )


def taken(paths: SandboxPaths) -> Conflict:
    return Conflict(f"{paths.directory} is there already", hint="run `sandboxer reconcile` to see what it belongs to")


def not_entered(paths: SandboxPaths, reason: str) -> SandboxerError:
    """The error for a sandbox that could not be entered."""
    if reason == STOPPED:
        return Conflict(
            f"the sandbox {paths.name} is stopped",
            hint=f"run `sandboxer start {paths.sandbox_id}`",
            sandbox_id=paths.sandbox_id,
            details={"presence": "stopped"},
        )
    if CHANGED in reason:
        return Conflict(
            f"the sandbox {paths.name} is not started again: {reason}",
            hint=f"run `sandboxer recreate {paths.sandbox_id}`; what is in the workspace is still there",
            sandbox_id=paths.sandbox_id,
        )
    hint = "run `sandboxer doctor`; what is in the workspace is still there"
    if reason.endswith("is gone"):
        hint = "run `sandboxer reconcile --apply`, or destroy it"
    if JUST_ENDED in reason:
        hint = "run the command again: the sandbox is started again for it"
    return BackendError(
        f"the sandbox {paths.name} could not be entered: {reason}",
        hint=hint,
        retryable=JUST_ENDED in reason,
        sandbox_id=paths.sandbox_id,
    )
