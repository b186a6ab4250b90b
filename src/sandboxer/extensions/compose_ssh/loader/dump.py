"""Write a resolved document as a file that docker compose v2, docker-compose v1 and podman-compose read alike."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import invalid
from sandboxer.extensions.compose_ssh.loader.scalars import text_of

_NUMBER: Final = re.compile(r"-?[0-9]+")
_PAIR: Final = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|\x7f")
"""What JSON and YAML write in different ways: a character beyond U+FFFF is a pair in JSON, and no character in YAML;
JSON leaves DEL as it is."""
_SIZES: Final = ("mem_limit", "mem_reservation", "memswap_limit", "mem_swappiness", "shm_size")


def dump(document: Mapping[str, Any]) -> bytes:
    """The document as JSON, which is YAML to every reader; a `$` in it is doubled, keys are in order.

    Where the three disagree about a long form, the form is written that means the same to all. Raises Invalid for a
    name that they cannot be told alike: one with a `$`, which podman-compose would take for a variable.
    """
    # v1 refuses `name`; the project's name is an argument of every call
    written = {key: value for key, value in document.items() if key != "name"}
    services = written.get("services")
    if isinstance(services, Mapping):
        written["services"] = {name: _service(body) for name, body in services.items()}
    text = json.dumps(_escaped(written, ()), indent=1, sort_keys=True, ensure_ascii=True)
    return (_PAIR.sub(_whole, text) + "\n").encode("ascii")


def _whole(match: re.Match[str]) -> str:
    if match[1] is None:
        return "\\u007f" if match[0] == "\x7f" else match[0]
    return f"\\U{0x10000 + ((int(match[1], 16) - 0xD800) << 10) + int(match[2], 16) - 0xDC00:08x}"


def _service(service: Any) -> Any:
    if not isinstance(service, Mapping):
        return service
    written = {key: value for key, value in service.items() if value is not None}
    for key in _SIZES:
        if key in written:
            written[key] = _integer(written[key])  # v2 refuses "-1", and takes -1
    for key, form in _FORMS.items():
        if isinstance(written.get(key), list):
            written[key] = [form(item) for item in written[key]]
    if isinstance(written.get("depends_on"), Mapping):
        implied = _implied(service)
        written["depends_on"] = {
            name: _dependency(body)
            for name, body in written["depends_on"].items()
            if not (name in implied and body == _IMPLIED)
        }
        if not written["depends_on"]:
            del written["depends_on"]
    if written.get("pull_policy") == "missing":
        del written["pull_policy"]  # the default of all three, under a different name in each
    build = written.get("build")
    if isinstance(build, Mapping):
        written["build"] = build = dict(build)
        if "shm_size" in build:
            build["shm_size"] = _integer(build["shm_size"])
        if isinstance(build.get("extra_hosts"), list):
            build["extra_hosts"] = [_host(item) for item in build["extra_hosts"]]
    return written


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _port(port: Any) -> Any:
    """The short form: v1 has no ranges in the long one."""
    if not isinstance(port, Mapping) or port.get("mode", "ingress") != "ingress" or {"name", "app_protocol"} & {*port}:
        return port
    address = port.get("host_ip") or ""
    address = f"[{address}]" if ":" in address else address
    published = port.get("published")
    outside = f"{address}:{published or ''}:" if address else f"{published}:" if published else ""
    return f"{outside}{port['target']}/{port.get('protocol', 'tcp')}"


_IMPLIED: Final = {"condition": "service_started", "required": True, "restart": True}


def _implied(service: Mapping[str, Any]) -> set[str]:
    """What the service depends on without saying so: every program sees it, and only v2 could be told more."""
    modes = [str(service.get(key, "")) for key in ("network_mode", "ipc", "pid", "uts", "cgroup")]
    shared = {mode.removeprefix("service:") for mode in modes if mode.startswith("service:")}
    return shared | {str(link).partition(":")[0] for link in service.get("links") or ()}


def _volume(mount: Any) -> Any:
    """The short form where it says as much: podman-compose has no other for an anonymous volume, v1 none that makes a
    missing directory."""
    if not isinstance(mount, Mapping) or set(mount) - {"type", "source", "target", "read_only", "bind"}:
        return mount
    source, target, bind = mount.get("source"), mount.get("target"), mount.get("bind")
    if not isinstance(target, str) or any(":" in str(path) for path in (source, target)) or not target.startswith("/"):
        return mount
    if mount.get("type") == "volume" and not bind and not mount.get("read_only"):
        return f"{source}:{target}" if source and len(source) > 1 else mount if source else target
    if mount.get("type") != "bind" or not isinstance(bind, Mapping) or bind.get("create_host_path") is not True:
        return mount
    if set(bind) - {"create_host_path", "propagation", "selinux"} or not str(source).startswith("/"):
        return mount
    modes = ["ro"] if mount.get("read_only") else []
    modes += [str(bind[key]) for key in ("selinux", "propagation") if bind.get(key)]
    return ":".join([str(source), target, *([",".join(modes)] if modes else [])])


def _device(device: Any) -> Any:
    if not isinstance(device, Mapping) or set(device) - {"source", "target", "permissions"}:
        return device
    parts = [str(device.get(key) or "") for key in ("source", "target", "permissions")]
    return ":".join(parts) if all(parts) and not any(":" in part for part in parts) else device


def _host(host: Any) -> Any:
    return host.replace("=", ":", 1) if isinstance(host, str) else host


def _dependency(body: Any) -> Any:
    """Without what is the default: v1 knows the condition only."""
    if not isinstance(body, Mapping):
        return body
    return {key: value for key, value in body.items() if not (key == "required" and value)}


_FORMS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "ports": _port,
    "volumes": _volume,
    "extra_hosts": _host,
    "devices": _device,
}


_LISTED: Final = frozenset({"environment", "labels", "annotations", "sysctls", "args"})
"""Mappings that may be lists of NAME=VALUE, in which a `$` of the name can be doubled: no program but podman-compose
looks for variables in keys, so that doubling it in a key would be another name to the others."""


def _escaped(value: Any, path: tuple[str | int, ...]) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        odd = next((key for key in value if "$" in key), None)
        if odd is not None:
            if path[-1:] and path[-1] in _LISTED and not any("=" in key for key in value):
                return [f"{key}={text_of(item)}".replace("$", "$$") for key, item in sorted(value.items())]
            raise invalid("has a `$` in its name", (*path, odd), None, hint="name it without `$`")
        return {key: _escaped(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item, (*path, index)) for index, item in enumerate(value)]
    return value
