"""Evaluate the policy over a whole project: keys and values first, then what they mean together."""

from __future__ import annotations

import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.policy import builds, dialect, paths, topology
from sandboxer.extensions.compose_ssh.policy.checks import NAME, plain
from sandboxer.extensions.compose_ssh.policy.gate import Gate, PolicyInput
from sandboxer.extensions.compose_ssh.policy.services import TMPFS_MAX
from sandboxer.extensions.compose_ssh.policy.verdict import Verdict
from sandboxer.extensions.compose_ssh.policy.walk import walk

MAX_CONTAINERS: Final = 500
"""Of one file, replicas counted."""
_NAME: Final = re.compile(NAME)


def evaluate(given: PolicyInput) -> Verdict:
    """Judge a project: what is sent of it, or all that the policy refuses."""
    gate = Gate(given)
    document = walk(gate)
    _names(gate, document)
    _together(gate, document)
    opened = [*paths.binds(gate, document), *paths.files(gate, document), *builds.contexts(gate, document)]
    paths.separate(gate, opened)
    topology.publish(gate, document)
    violations = tuple(sorted(gate.violations.values(), key=lambda one: (one.file, one.line, one.path)))
    if violations:
        return Verdict(document={}, violations=violations, unsupported=tuple(gate.unsupported.values()))
    builds.name_images(gate, document)
    for path in dialect.lacking(document, gate.program):
        gate.lacks(path)
    sent = dialect.write(document, gate.program)
    if gate.unsupported:
        return Verdict(document={}, unsupported=tuple(gate.unsupported.values()))
    return Verdict(
        document=sent,
        notes=tuple(gate.notes),
        port_notes=tuple(gate.port_notes),
        copies=tuple(sorted(gate.copies)),
    )


def _names(gate: Gate, document: dict[str, Any]) -> None:
    for section in ("services", "networks", "volumes", "secrets", "configs"):
        for name, body in document.get(section, {}).items():
            if not _NAME.fullmatch(name):
                gate.refuse((section, name), "words to the engine: a name is letters, digits, '.', '_' and '-'")
            if section in ("networks", "volumes") and body and not body.get("external"):
                body.pop("name", None)
            if section in ("secrets", "configs"):
                _source(gate, section, name, body or {})


def _source(gate: Gate, section: str, name: str, body: dict[str, Any]) -> None:
    given = gate.project.document[section][name] or {}
    kinds = [key for key in ("file", "environment", "content") if key in given]
    external = "external" in given
    if len(kinds) != 1 and not external:
        gate.refuse((section, name), f"a {section.removesuffix('s')} of the host: it has no single source in the file")
    variable = plain(body.get("environment"))
    if variable is not None:
        path = (section, name, "environment")
        gate.granted(path, f"the variable {variable[:80]} from outside the repository", f"env:{variable[:200]}")


def _together(gate: Gate, document: dict[str, Any]) -> None:
    """What one value alone does not tell."""
    containers = 0
    for name, service in document.get("services", {}).items():
        path = ("services", name)
        if not plain(service.get("image")) and not isinstance(service.get("build"), dict):
            raw = gate.services.get(name)
            if isinstance(raw, dict) and not ({"image", "build", "provider"} & set(raw)):
                gate.refuse(path, "an image that nobody can name: there is neither `image` nor `build`")
        replicas = (service.get("deploy") or {}).get("replicas", service.get("scale", 1))
        containers += int(float(plain(replicas) or "1"))
        for network in service.get("networks") or {}:
            if network != "default" and network not in document.get("networks", {}):
                gate.refuse((*path, "networks", network), "a network of the host: the file declares none of this name")
        for needed in service.get("depends_on") or {}:
            if needed not in gate.services:
                gate.refuse((*path, "depends_on", needed), "a container that is not of this file")
        for section in ("secrets", "configs"):
            for index, one in enumerate(service.get(section) or []):
                if one.get("source") not in document.get(section, {}):
                    where = (*path, section, index)
                    gate.refuse(
                        where, f"a {section.removesuffix('s')} of the host: the file declares none of this name"
                    )
        for mount in service.get("volumes") or []:
            if mount.get("type") == "tmpfs":
                mount["tmpfs"] = {"size": TMPFS_MAX, **(mount.get("tmpfs") or {})}
    if containers > MAX_CONTAINERS:
        gate.refuse(("services",), f"the memory of the host: at most {MAX_CONTAINERS} containers")
