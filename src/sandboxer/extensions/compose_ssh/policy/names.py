"""Check the names that a file claims: images, labels, hosts, containers."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.checks import HOSTNAME, plain, wrong
from sandboxer.extensions.compose_ssh.policy.gate import LEFT_OUT, Gate
from sandboxer.names import ID, PREFIX

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-f:]+\])(?::\d{1,5})?"
_IMAGE: Final = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?P<digest>@sha256:[0-9a-f]{{64}})?"
)
_TRANSPORTS: Final = frozenset(
    {"dir", "docker-archive", "docker-daemon", "oci", "oci-archive", "containers-storage", "ostree", "sif", "tarball"}
)
_HEX: Final = re.compile(r"[0-9a-f]+")
_CLAIMED: Final = (
    "com.docker.", "io.docker.", "org.dockerproject.", "io.podman.", "io.containers.", "io.buildah.",
    "sandboxer.", "sandboxer-",
)  # fmt: skip
_KEPT: Final = ("org.opencontainers.image.", "org.label-schema.")
_DESCRIBING: Final = frozenset({"maintainer", "author", "authors", "version", "description", "license", "vendor"})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SANDBOX: Final = re.compile(rf"(?<![^/]){PREFIX}{ID.pattern}(?![a-z0-9])")
_HOSTNAME: Final = re.compile(HOSTNAME)


def image_fault(name: str) -> str | None:
    """What is wrong with an image's name; None when a registry or a host's store may be asked for it."""
    if len(name) > 512 or (match := _IMAGE.fullmatch(name)) is None:
        return "what it names: it is not the name of an image in a registry"
    bare = name.split("@")[0]
    repository = bare[: -len(match["tag"])] if match["tag"] else bare
    if ":" in bare and repository in _TRANSPORTS:
        return "files of the host: podman reads the name as a place on its disk"
    if repository == "sha256" or (not match["tag"] and not match["digest"] and _HEX.fullmatch(repository)):
        return "another sandbox's image: a bare number is read as the id of any image of the host"
    if _SANDBOX.search(repository) or repository.startswith(PREFIX):
        return "another sandbox's image, with what its snapshot or build holds"
    return None


def image(gate: Gate, path: Path, value: Any) -> Any:
    """The name of an image."""
    name = plain(value)
    if name is None:
        return wrong(gate, path, "the name of an image")
    fault = image_fault(name)
    return value if fault is None else gate.refuse(path, fault)


def labels(gate: Gate, path: Path, value: Any) -> Any:
    """Labels: those that describe an image stay, those that claim to be an engine's or ours are refused, the others
    are left out, as programs on the host act on them."""
    if not isinstance(value, dict):
        return wrong(gate, path, "a mapping of labels")
    kept: dict[str, Any] = {}
    for key, item in value.items():
        if claims(key):
            gate.refuse((*path, key), "whose it is: the engine or sandboxer reads this label")
        elif key.startswith(_KEPT) and plain(item) is not None:
            kept[key] = item
        else:
            gate.note("labels are left out: programs on the host (proxies, updaters, schedulers) act on them")
    return kept or LEFT_OUT


def claims(label: str) -> bool:
    """Whether a label is an engine's or ours."""
    return label.lower().startswith(_CLAIMED) or label.upper().startswith("PODMAN_")


def describes(label: str) -> bool:
    """Whether a label only tells something of an image, and no program acts on it."""
    return label.startswith(_KEPT) or label.lower() in _DESCRIBING


def container_name(gate: Gate, path: Path, value: Any) -> Any:
    """A fixed name of a container."""
    name = plain(value)
    if name is None or not _NAME.fullmatch(name):
        return wrong(gate, path, "a name of letters, digits, '.', '_' and '-'")
    if _SANDBOX.match(name.lower()):
        return gate.refuse(path, "whose it is: the names of sandboxes begin with sbx-")
    return value


def extra_hosts(gate: Gate, path: Path, value: Any) -> Any:
    """Names in /etc/hosts of a container: a list of NAME=ADDRESS, or a mapping."""
    pairs: list[tuple[Path, str, Any]] = []
    if isinstance(value, dict):
        for name, addresses in value.items():
            for address in addresses if isinstance(addresses, list) else [addresses]:
                pairs.append(((*path, name), name, address))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found = plain(item) or ""
            name, _, address = found.partition("=") if "=" in found else found.partition(":")
            pairs.append(((*path, index), name, address))
    else:
        return wrong(gate, path, "a list of NAME=ADDRESS")
    kept = []
    for where, name, address in pairs:
        target = (plain(address) or "").strip("[]")
        if not _HOSTNAME.fullmatch(name):
            wrong(gate, where, "the name of a host")
        elif target == "host-gateway":
            gate.note(f"{name} is the host itself: services reach what listens there on its bridge address")
            kept.append(f"{name}={target}")
        elif address_of(target) is None:
            wrong(gate, where, "an address")
        else:
            kept.append(f"{name}={target}")
    return kept


def address_of(text: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address; None for what is none."""
    try:
        found = ipaddress.ip_address(text) if isinstance(text, str) else None
    except ValueError:
        return None
    # a scope names an interface of the host
    return None if found is None or (found.version == 6 and found.scope_id) else found


def address(gate: Gate, path: Path, value: Any) -> Any:
    """An IP address."""
    return value if address_of(value) is not None else wrong(gate, path, "an address")
