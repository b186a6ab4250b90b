"""List the keys of a service, with the kind of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.build_syntax import build
from sandboxer.extensions.compose_ssh.loader.nodes import Map
from sandboxer.extensions.compose_ssh.loader.port_syntax import ports
from sandboxer.extensions.compose_ssh.loader.schema import (
    Shape,
    ValueContext,
    argv,
    duration,
    environment,
    flag,
    health_test,
    labels,
    listed,
    mapping,
    number,
    one_or_more,
    options,
    record,
    scalars_listed,
    size,
    text,
    text_or_texts,
    texts,
    whole,
)
from sandboxer.extensions.compose_ssh.loader.service_syntax import (
    DEVICE_REQUEST,
    depends_on,
    device,
    env_files,
    extends,
    extra_hosts,
    gpus,
    mounted,
    networks,
    path,
    ulimits,
)
from sandboxer.extensions.compose_ssh.loader.volume_syntax import volume

_HEALTH: Final = record(
    {
        "test": health_test,
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
                "reservations": record({"cpus": number, "memory": size, "devices": listed(DEVICE_REQUEST)}),
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


def _develop(value: Any, spot: ValueContext) -> Map:
    watch = record({"path": path, "action": text, "target": text, "ignore": texts, "include": texts})
    return record({"watch": listed(watch)})(value, spot)  # type: ignore[no-any-return]


def _pull_policy(value: Any, spot: ValueContext) -> str:
    return "missing" if value == "if_not_present" else text(value, spot)


SERVICE: Final[Mapping[str, Shape]] = {
    "annotations": labels,
    "attach": flag,
    "blkio_config": _BLKIO,
    "build": build,
    "cap_add": texts,
    "cap_drop": texts,
    "cgroup": text,
    "cgroup_parent": text,
    "command": argv,
    "configs": listed(mounted("")),
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
    "depends_on": depends_on,
    "deploy": _DEPLOY,
    "develop": _develop,
    "device_cgroup_rules": texts,
    "devices": listed(device),
    "dns": text_or_texts,
    "dns_opt": texts,
    "dns_search": text_or_texts,
    "domainname": text,
    "entrypoint": argv,
    "env_file": env_files,
    "environment": environment,
    "expose": scalars_listed,
    "extends": extends,
    "external_links": texts,
    "extra_hosts": extra_hosts,
    "gpus": gpus,
    "group_add": scalars_listed,
    "healthcheck": _HEALTH,
    "hostname": text,
    "image": text,
    "init": flag,
    "ipc": text,
    "isolation": text,
    "label_file": one_or_more(path),
    "labels": labels,
    "links": texts,
    "logging": record({"driver": text, "options": options}),
    "mac_address": text,
    "mem_limit": size,
    "mem_reservation": size,
    "mem_swappiness": size,
    "memswap_limit": size,
    "network_mode": text,
    "networks": networks,
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
    "secrets": listed(mounted("/run/secrets/")),
    "security_opt": texts,
    "shm_size": size,
    "stdin_open": flag,
    "stop_grace_period": duration,
    "stop_signal": text,
    "storage_opt": options,
    "sysctls": labels,
    "tmpfs": text_or_texts,
    "tty": flag,
    "ulimits": ulimits,
    "use_api_socket": flag,
    "user": text,
    "userns_mode": text,
    "uts": text,
    "volumes": listed(volume),
    "volumes_from": texts,
    "working_dir": text,
}
