"""The keys of the compose specification with the kind of each, and the long forms of what has a short one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import shapes
from sandboxer.extensions.compose_ssh.loader.mounts import volume
from sandboxer.extensions.compose_ssh.loader.published import ports
from sandboxer.extensions.compose_ssh.loader.shapes import (
    Shape,
    Spot,
    argv,
    duration,
    environment,
    flag,
    keyed,
    labels,
    listed,
    mapping,
    mode,
    number,
    one_or_more,
    options,
    pairs,
    record,
    scalar,
    scalars_listed,
    size,
    text,
    text_or_texts,
    texts,
    whole,
)
from sandboxer.extensions.compose_ssh.loader.tree import Map, Seq

_CONDITIONS: Final = ("service_started", "service_healthy", "service_completed_successfully")
_REMOTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|git@|github\.com/|service:")


def _context(value: Any, spot: Spot) -> str:
    """A build context: a directory, or the address of something elsewhere."""
    found = text(value, spot)
    return found if _REMOTE.match(found) else spot.absolute(found)


def _path(value: Any, spot: Spot) -> str:
    return spot.absolute(text(value, spot))


def _condition(value: Any, spot: Spot) -> str:
    if value not in _CONDITIONS:
        raise spot.bad(f"must be one of {', '.join(_CONDITIONS)}")
    return str(value)


_DEPENDENCY: Final = record({"condition": _condition, "required": flag, "restart": flag})


def _depends_on(value: Any, spot: Spot) -> Map:
    result = Map()
    if isinstance(value, Map):
        for key, entry in value.items():
            here = spot.key(value, key)
            body = shapes.within(_DEPENDENCY, entry, here)
            if isinstance(body, Map):
                if body.get("condition") is None:
                    raise here.bad("has no condition", hint="write `condition: service_started`")
                body.setdefault("required", True)
            elif body is None:
                raise here.bad("has no condition", hint="write `condition: service_started`")
            result.put(key, body, here.origin)
        return result
    names: Seq = texts(value, spot)
    for index, name in enumerate(names):
        body = Map()
        body.update(condition=_CONDITIONS[0], required=True)
        result.put(name, body, names.at[index])
    return result


_SERVICE_NETWORK: Final = record(
    {
        "aliases": texts,
        "link_local_ips": texts,
        "ipv4_address": text,
        "ipv6_address": text,
        "mac_address": text,
        "driver_opts": options,
        "priority": number,
        "gw_priority": number,
        "interface_name": text,
    }
)


def _networks(value: Any, spot: Spot) -> Map:
    if isinstance(value, Map):
        return keyed(_SERVICE_NETWORK)(value, spot)  # type: ignore[no-any-return]
    result = Map()
    names: Seq = texts(value, spot)
    for index, name in enumerate(names):
        result.put(name, None, names.at[index])
    return result


def _mounted(directory: str) -> Shape:
    """A secret or config of a service; its short form is mounted below `directory`."""
    long = record({"source": text, "target": text, "uid": text, "gid": text, "mode": mode})

    def shape(value: Any, spot: Spot) -> Map:
        if isinstance(value, str):
            body = Map().put("source", value, spot.origin)
            return body.put("target", f"{directory}{value}", spot.origin) if directory else body
        result: Map = long(value, spot)
        if not isinstance(result.get("source"), str):
            raise spot.bad("has no source")
        if directory and result.get("target") is None:
            result.put("target", f"{directory}{result['source']}", spot.origin)
        return result

    return shape


def _ulimits(value: Any, spot: Spot) -> Map:
    return keyed(_ulimit)(value, spot)  # type: ignore[no-any-return]


def _ulimit(value: Any, spot: Spot) -> Any:
    if not isinstance(value, Map):
        return whole(value, spot)
    return record({"soft": whole, "hard": whole})(value, spot)


def _device(value: Any, spot: Spot) -> Map:
    if not isinstance(value, str):
        return record({"source": text, "target": text, "permissions": text})(value, spot)  # type: ignore[no-any-return]
    parts = value.split(":")
    if len(parts) > 3 or not parts[0]:
        raise spot.bad("is no device: write SOURCE:TARGET:PERMISSIONS")
    body = Map()
    body.update(source=parts[0], target=parts[1] if len(parts) > 1 else parts[0])
    body["permissions"] = parts[2] if len(parts) > 2 else "rwm"
    return body


def _extra_hosts(value: Any, spot: Spot) -> Seq:
    """Hosts as NAME=ADDRESS, one each."""
    result = Seq()
    if isinstance(value, Map):
        for key, entry in value.items():
            here = spot.key(value, key)
            for address in one_or_more(text)(entry, here):
                result.add(f"{key}={_address(address)}", here.origin)
        return result
    for index, entry in enumerate(texts(value, spot)):
        here = spot.item(value, index)
        name, found, address = entry.partition("=" if "=" in entry else ":")
        if not found or not name or not address:
            raise here.bad("is no host: write NAME=ADDRESS")
        result.add(f"{name}={_address(address)}", here.origin)
    return result


def _address(address: str) -> str:
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def _env_files(value: Any, spot: Spot) -> Seq:
    return one_or_more(_env_file)(value, spot)  # type: ignore[no-any-return]


def _env_file(value: Any, spot: Spot) -> Map:
    if isinstance(value, str):
        body = Map()
        body.update(path=spot.absolute(value), required=True)
        return body
    long: Map = record({"path": _path, "required": flag, "format": text})(value, spot)
    if not isinstance(long.get("path"), str):
        raise spot.bad("has no path")
    long.setdefault("required", True)
    return long


def _extends(value: Any, spot: Spot) -> Map:
    if isinstance(value, str):
        return Map().put("service", value, spot.origin)
    body: Map = record({"service": text, "file": text})(value, spot)
    if not isinstance(body.get("service"), str):
        raise spot.bad("has no service")
    return body


def _count(value: Any, spot: Spot) -> int:
    return -1 if value == "all" else whole(value, spot)


_DEVICE_REQUEST: Final = record(
    {"capabilities": texts, "count": _count, "device_ids": texts, "driver": text, "options": labels}
)


def _gpus(value: Any, spot: Spot) -> Seq:
    if isinstance(value, str):
        if value != "all":
            raise spot.bad("must be `all` or a list")
        body = Map()
        body["count"] = -1
        return Seq().add(body, spot.origin)
    return listed(_DEVICE_REQUEST)(value, spot)  # type: ignore[no-any-return]


def _additional_contexts(value: Any, spot: Spot) -> Map:
    return pairs(bare="", item=_context)(value, spot)  # type: ignore[no-any-return]


def _ssh(value: Any, spot: Spot) -> Seq:
    """The agents of a build: NAME, or NAME=PATH."""
    agents: Map = pairs(bare=None)(Seq().add(value, spot.origin) if isinstance(value, str) else value, spot)
    result = Seq()
    for name, path in agents.items():
        result.add(name if path is None else f"{name}={path}", agents.at.get(name))
    return result


_BUILD: Final = record(
    {
        "context": _context,
        "dockerfile": text,
        "dockerfile_inline": text,
        "args": environment,
        "ssh": _ssh,
        "labels": labels,
        "cache_from": texts,
        "cache_to": texts,
        "no_cache": flag,
        "additional_contexts": _additional_contexts,
        "network": text,
        "target": text,
        "shm_size": size,
        "extra_hosts": _extra_hosts,
        "isolation": text,
        "privileged": flag,
        "secrets": listed(_mounted("")),
        "tags": texts,
        "ulimits": _ulimits,
        "platforms": texts,
        "pull": flag,
        "entitlements": texts,
    }
)


def _build(value: Any, spot: Spot) -> Map:
    if isinstance(value, str):
        return Map().put("context", _context(value, spot), spot.origin)
    return _BUILD(value, spot)  # type: ignore[no-any-return]


_HEALTH: Final = record(
    {
        "test": shapes.health_test,
        "interval": duration,
        "timeout": duration,
        "start_period": duration,
        "start_interval": duration,
        "retries": whole,
        "disable": flag,
    }
)
_UPDATE: Final = record(
    {
        "parallelism": whole,
        "delay": duration,
        "failure_action": text,
        "monitor": duration,
        "max_failure_ratio": number,
        "order": text,
    }
)
_DEPLOY: Final = record(
    {
        "mode": text,
        "endpoint_mode": text,
        "replicas": whole,
        "labels": labels,
        "rollback_config": _UPDATE,
        "update_config": _UPDATE,
        "resources": record(
            {
                "limits": record({"cpus": number, "memory": size, "pids": whole}),
                "reservations": record({"cpus": number, "memory": size, "devices": listed(_DEVICE_REQUEST)}),
            }
        ),
        "restart_policy": record({"condition": text, "delay": duration, "max_attempts": whole, "window": duration}),
        "placement": record({"constraints": texts, "max_replicas_per_node": whole}),
    }
)
_RATES: Final = listed(record({"path": text, "rate": size}))
_BLKIO: Final = record(
    {
        "weight": whole,
        "weight_device": listed(record({"path": text, "weight": whole})),
        "device_read_bps": _RATES,
        "device_read_iops": _RATES,
        "device_write_bps": _RATES,
        "device_write_iops": _RATES,
    }
)
_HOOK: Final = record(
    {"command": argv, "user": text, "privileged": flag, "working_dir": text, "environment": environment}
)


def _develop(value: Any, spot: Spot) -> Map:
    watch = record({"path": _path, "action": text, "target": text, "ignore": texts, "include": texts})
    return record({"watch": listed(watch)})(value, spot)  # type: ignore[no-any-return]


def _pull_policy(value: Any, spot: Spot) -> str:
    return "missing" if value == "if_not_present" else text(value, spot)


SERVICE: Final[Mapping[str, Shape]] = {
    "annotations": labels,
    "attach": flag,
    "blkio_config": _BLKIO,
    "build": _build,
    "cap_add": texts,
    "cap_drop": texts,
    "cgroup": text,
    "cgroup_parent": text,
    "command": argv,
    "configs": listed(_mounted("")),
    "container_name": text,
    "cpu_count": whole,
    "cpu_percent": number,
    "cpu_period": whole,
    "cpu_quota": whole,
    "cpu_rt_period": whole,
    "cpu_rt_runtime": whole,
    "cpu_shares": whole,
    "cpus": number,
    "cpuset": text,
    "credential_spec": record({"config": text, "file": text, "registry": text}),
    "depends_on": _depends_on,
    "deploy": _DEPLOY,
    "develop": _develop,
    "device_cgroup_rules": texts,
    "devices": listed(_device),
    "dns": text_or_texts,
    "dns_opt": texts,
    "dns_search": text_or_texts,
    "domainname": text,
    "entrypoint": argv,
    "env_file": _env_files,
    "environment": environment,
    "expose": scalars_listed,
    "extends": _extends,
    "external_links": texts,
    "extra_hosts": _extra_hosts,
    "gpus": _gpus,
    "group_add": scalars_listed,
    "healthcheck": _HEALTH,
    "hostname": text,
    "image": text,
    "init": flag,
    "ipc": text,
    "isolation": text,
    "label_file": one_or_more(_path),
    "labels": labels,
    "links": texts,
    "logging": record({"driver": text, "options": options}),
    "mac_address": text,
    "mem_limit": size,
    "mem_reservation": size,
    "mem_swappiness": size,
    "memswap_limit": size,
    "network_mode": text,
    "networks": _networks,
    "oom_kill_disable": flag,
    "oom_score_adj": whole,
    "pid": text,
    "pids_limit": whole,
    "platform": text,
    "ports": ports,
    "post_start": listed(_HOOK),
    "pre_stop": listed(_HOOK),
    "privileged": flag,
    "profiles": texts,
    "provider": mapping,
    "pull_policy": _pull_policy,
    "pull_refresh_after": text,
    "read_only": flag,
    "restart": text,
    "runtime": text,
    "scale": whole,
    "secrets": listed(_mounted("/run/secrets/")),
    "security_opt": texts,
    "shm_size": size,
    "stdin_open": flag,
    "stop_grace_period": duration,
    "stop_signal": text,
    "storage_opt": options,
    "sysctls": labels,
    "tmpfs": text_or_texts,
    "tty": flag,
    "ulimits": _ulimits,
    "use_api_socket": flag,
    "user": text,
    "userns_mode": text,
    "uts": text,
    "volumes": listed(volume),
    "volumes_from": texts,
    "working_dir": text,
}


def _external(value: Any, spot: Spot) -> Any:
    if isinstance(value, Map):
        return record({"name": text})(value, spot)
    return flag(value, spot)


_POOL: Final = record({"subnet": text, "ip_range": text, "gateway": text, "aux_addresses": labels})
_NETWORK: Final = record(
    {
        "name": text,
        "driver": text,
        "driver_opts": options,
        "ipam": record({"driver": text, "config": listed(_POOL), "options": options}),
        "external": _external,
        "internal": flag,
        "enable_ipv4": flag,
        "enable_ipv6": flag,
        "attachable": flag,
        "labels": labels,
    }
)
_VOLUME_KEYS: Final = record(
    {"name": text, "driver": text, "driver_opts": options, "external": _external, "labels": labels}
)


def _volume(value: Any, spot: Spot) -> Map:
    """A volume; one that is a bind in disguise has an absolute path, as every bind has."""
    body: Map = _VOLUME_KEYS(value, spot)
    options = body.get("driver_opts")
    if isinstance(options, Map) and body.get("driver") == "local" and options.get("o") == "bind":
        device = options.get("device")
        if isinstance(device, str) and device:
            options["device"] = spot.absolute(device)
    return body


_SECRET: Final = record(
    {
        "name": text,
        "environment": text,
        "file": _path,
        "content": text,
        "external": _external,
        "labels": labels,
        "driver": text,
        "driver_opts": options,
        "template_driver": text,
    }
)

_INCLUDE: Final = record({"path": text_or_texts, "env_file": text_or_texts, "project_directory": text})


def _include(value: Any, spot: Spot) -> Map:
    if isinstance(value, str):
        return Map().put("path", Seq().add(value, spot.origin), spot.origin)
    body: Map = _INCLUDE(value, spot)
    if not body.get("path"):
        raise spot.bad("has no path")
    return body


DOCUMENT: Final = record(
    {
        "version": scalar,
        "name": text,
        "include": listed(_include),
        "services": keyed(record(SERVICE)),
        "networks": keyed(_NETWORK),
        "volumes": keyed(_volume),
        "secrets": keyed(_SECRET),
        "configs": keyed(_SECRET),
        "models": mapping,
    }
)
"""A whole compose file to its long forms. Paths become absolute, below the directory of the spot."""
