"""A host and an answer from a sandbox that is as it should be; tests change one thing at a time."""

from __future__ import annotations

import copy
from typing import Any

from sandboxer.selfcheck.findings import findings
from sandboxer.selfcheck.host_marks import HostMarks
from sandboxer.selfcheck.isolation_report import IsolationReport

ENVIRONMENT = {"EDITOR": 111, "GPG_KEY": 222}

FACTS = HostMarks(
    telemetry={},
    planted="/srv/sandboxer/sbx-aaaaaaaaaaaa/.sandboxer-canary-1-ab",
    secret="planted text",
    boot_id="boot-of-host",
    namespaces={"ipc": 1, "mnt": 2, "net": 3, "pid": 4, "user": 5, "uts": 6},
    identities={
        "/": "8:2", "/usr": "8:10", "/etc": "8:11", "/root": "8:12", "/home": "8:13", "/tmp": "8:14",
        "/etc/shadow": "8:15", "/srv/sandboxer": "8:16", "/run/docker.sock": "20:7",
    },
    private=frozenset(("/root", "/home", "/etc/shadow", "/srv/sandboxer")),
    sockets=("/run/docker.sock",),
    processes=((1, 5), (77, 4321)),
    connect=(("203.0.113.7", 22),),
    own_directory="/srv/sandboxer/sbx-aaaaaaaaaaaa",
)  # fmt: skip

_ABSENT = {"id": None, "readable": False}
ANSWER: dict[str, Any] = {
    "format": 1,
    "nonce": "n",
    "sandboxer": "0.1.0",
    "python": "3.11.2",
    "hostname": "sbx-aaaaaaaaaaaa",
    "kernel": "6.1.0",
    "boot_id": "boot-of-host",
    "uid": 1000,
    "namespaces": {"ipc": 11, "mnt": 12, "net": 13, "pid": 14, "user": 15, "uts": 16},
    "status": {"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "0"},
    "processes": {"seen": 3, "of_host": []},
    "canary": {"seen": "absent"},
    "paths": {
        "/": {"id": "40:1", "readable": True}, "/usr": {"id": "8:10", "readable": True},
        "/etc": {"id": "40:5", "readable": True}, "/root": _ABSENT, "/home": _ABSENT,
        "/tmp": {"id": "41:1", "readable": True}, "/etc/shadow": _ABSENT,
        "/srv/sandboxer": _ABSENT, "/run/docker.sock": _ABSENT,
    },
    "mounts": [["/workspace", "/srv/sandboxer/sbx-aaaaaaaaaaaa/workspace"]],
    "writable": [["/tmp", "41:1"]],
    "mark": 900,
    "interfaces": ["lo"],
    "default_route": False,
    "reached": [],
    "sockets": [],
    "escalation": {"new_mounts": False, "user_namespaces": False, "remounted": []},
    "environment": {"PATH": 1, "HOME": 2},
    "descriptors": [],
    "devices": [],
    "openable": [],
    "kernel_settings": [],
    "open_calls": ["keyctl"],
    "traces_init": False,
    "kernel_files": [],
    "limits": {"processes": 4096, "open_files": 1024, "address_space_bytes": None, "memory_bytes": None},
    "failed": {},
}  # fmt: skip


def answer(**changes: Any) -> dict[str, Any]:
    """The good answer, with some of its parts replaced."""
    return {**copy.deepcopy(ANSWER), **changes}


def measured(
    facts: HostMarks = FACTS, *, owner: int = 70001, called: bool | None = False, **changes: Any
) -> IsolationReport:
    """What is made of the good answer with some of its parts replaced."""
    return findings(answer(**changes), facts, owners={900: owner}, called=called, environment=ENVIRONMENT)
