"""Write the judged document for each compose program, where they differ in more than the loader's forms."""

from __future__ import annotations

import math
from typing import Any

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.checks import bytes_of, flag_of, plain
from sandboxer.extensions.compose_ssh.policy.verdict import ComposeProgram


def lacking(document: dict[str, Any], program: ComposeProgram) -> list[Path]:
    """Where the document says what the program has no word for, in any form."""
    if program is not ComposeProgram.V1:
        return []
    return [
        ("services", name, "depends_on", needed, "required")
        for name, service in document.get("services", {}).items()
        for needed, body in (service.get("depends_on") or {}).items()
        if body and flag_of(body.get("required", True)) is False
    ]


def write(document: dict[str, Any], program: ComposeProgram) -> dict[str, Any]:
    """The document for a compose program."""
    for service in document.get("services", {}).values():
        _everywhere(service)
        if program is ComposeProgram.V1:
            _first(service)
        if program is ComposeProgram.PODMAN:
            _podman(service)
    if program is ComposeProgram.V1:
        for volume in document.get("volumes", {}).values():
            _texts(volume, "driver_opts")
    return {key: value for key, value in document.items() if value not in ({}, [])}


def _texts(holder: Any, key: str) -> None:
    if isinstance(holder, dict) and isinstance(holder.get(key), dict):
        holder[key] = {name: plain(value) for name, value in holder[key].items()}


def _everywhere(service: dict[str, Any]) -> None:
    for mount in service.get("volumes") or []:
        for key in ("bind", "volume", "tmpfs"):
            if key in mount and not (mount[key] and key == mount.get("type")):
                # docker compose puts `selinux` of a volume under `bind`; an empty one says nothing
                del mount[key]
        if "tmpfs" in mount and "size" in mount["tmpfs"]:
            mount["tmpfs"]["size"] = bytes_of(mount["tmpfs"]["size"])


def _first(service: dict[str, Any]) -> None:
    """docker-compose v1 does not read `deploy`: what limits is moved to where it does."""
    deploy = service.pop("deploy", None) or {}
    resources = deploy.get("resources") or {}
    limits, reserved = resources.get("limits") or {}, resources.get("reservations") or {}
    moved = {
        "scale": deploy.get("replicas"),
        "cpus": limits.get("cpus"),
        "mem_limit": limits.get("memory"),
        "pids_limit": limits.get("pids"),
        "mem_reservation": reserved.get("memory"),
    }
    for key, value in moved.items():
        if value is not None:
            service.setdefault(key, value)
    for key in ("cpus", "oom_score_adj", "pids_limit", "scale", "cpu_shares", "mem_swappiness"):
        if key in service:
            number = float(plain(service[key]) or "0")
            service[key] = number if key == "cpus" or not number.is_integer() else math.floor(number)


def _podman(service: dict[str, Any]) -> None:
    build = service.get("build")
    if isinstance(build, dict) and isinstance(build.get("additional_contexts"), dict):
        build["additional_contexts"] = [f"{key}={value}" for key, value in build["additional_contexts"].items()]
