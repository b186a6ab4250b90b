"""What a stack has of its host, told from what the engine shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import BackendError
from sandboxer.extensions.compose_ssh.describe import isolation
from sandboxer.extensions.compose_ssh.engine import StackInspection, parse_inspection
from tests.extensions.compose.sandboxes import Bed
from tests.testbed import repositories
from tests.testbed.image import BASE

ID = "f" * 64
PLAIN = ["kernel shared with the host"]
PROJECT = "sbx-k3v9x2m7q4ta"
OWN = {"com.docker.compose.project": PROJECT}
ANY = "0.0.0.0"  # noqa: S104 - what an engine shows, nothing is bound


def container(host: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One item of `inspect`."""
    labels = {**OWN, "com.docker.compose.service": "web"}
    return {"Id": ID, "Name": "/x-web-1", "Config": {"Labels": labels}, "HostConfig": host or {}, **more}


def notes(item: dict[str, Any], **shown: Any) -> list[str]:
    got = isolation(StackInspection(containers=[item], **shown), project=PROJECT, directories=["/srv/sbx"])
    assert got.notes[:1] == PLAIN
    return got.notes[1:]


def test_settings_that_say_nothing_are_not_told() -> None:
    host: dict[str, Any] = {"Brand": None, "New": [], "Empty": "", "Cgroups": "default", "Memory": 1}
    host |= {"Tmpfs": {"/a": ""}, "Annotations": {"io.container.manager": "libpod"}}
    assert notes(container(host)) == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Brand": {"new": 1}, "Newer": "x"}, "nobody has looked at yet: Brand, Newer"),
        ({"StorageOpt": {"size": "1G"}}, "nobody has looked at yet: StorageOpt"),
        ({"CgroupConf": {"memory.high": "1"}}, "nobody has looked at yet: CgroupConf"),
        ({"Cgroups": "disabled"}, "nobody has looked at yet: Cgroups"),
        ({"Annotations": {"run.oci.keep_original_groups": "1"}}, "nobody has looked at yet: Annotations"),
        ({"Privileged": True}, "is privileged"),
        ({"CapAdd": ["CAP_SYS_ADMIN", "NET_ADMIN"]}, "added capabilities: NET_ADMIN, SYS_ADMIN"),
        ({"NetworkMode": "host"}, "uses the host's network"),
        ({"NetworkMode": "container:" + "e" * 64}, "network namespace of container eeee"),
        ({"NetworkMode": "ns:/proc/1/ns/net"}, "network namespace of /proc/1/ns/net"),
        ({"PidMode": "host"}, "host's pid namespace"),
        ({"PidMode": "container:other"}, "pid namespace of container other"),
        ({"IpcMode": "host"}, "host's ipc namespace"),
        ({"IpcMode": "container:other"}, "ipc namespace of container other"),
        ({"UTSMode": "host"}, "host's uts namespace"),
        ({"UsernsMode": "host"}, "host's user namespace"),
        ({"CgroupnsMode": "host"}, "cgroups are visible"),
        ({"CgroupMode": "container:other"}, "cgroup namespace of container other"),
        ({"Devices": [{"PathOnHost": "/dev/kmsg"}]}, "devices of the host: /dev/kmsg"),
        ({"DeviceCgroupRules": ["c 1:3 rwm"]}, "by rule: c 1:3 rwm"),
        ({"DeviceRequests": [{"Driver": "nvidia", "Count": -1}]}, "devices of driver nvidia"),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "without a filter of system calls"),
        ({"SecurityOpt": ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']}, "filter of system calls of its own"),
        ({"SecurityOpt": ["apparmor=unconfined"]}, "apparmor=unconfined"),
        ({"SecurityOpt": ["label=disable"]}, "label=disable"),
        ({"MaskedPaths": [], "ReadonlyPaths": []}, "without the engine's masks"),
        ({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}}, "port 80/tcp on every address"),
        ({"PortBindings": {"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "80"}]}}, "on 192.0.2.1"),
        ({"Runtime": "kata"}, "runtime kata"),
        ({"CgroupParent": "/system.slice"}, "cgroup /system.slice"),
        ({"Sysctls": {"kernel.msgmax": "9"}}, "kernel parameters: kernel.msgmax=9"),
        ({"Ulimits": [{"Name": "memlock", "Hard": -1}]}, "other limits: memlock=-1"),
        ({"OomScoreAdj": -1000}, "oom_score_adj -1000"),
        ({"OomKillDisable": True}, "never ended when memory"),
        ({"ShmSize": 2**30}, "1024 MiB"),
        ({"ExtraHosts": ["db:10.0.0.1"]}, "db:10.0.0.1"),
        ({"GroupAdd": ["disk"]}, "more groups: disk"),
        ({"LogConfig": {"Type": "syslog"}}, "driver syslog"),
        ({"LogConfig": {"Type": "k8s-file", "Path": "/etc/cron.d/x"}}, "logs to /etc/cron.d/x"),
    ],
)  # fmt: skip
def test_each_grant_of_the_engine_is_told(host: dict[str, Any], words: str) -> None:
    (note,) = notes(container(host), info={"DefaultRuntime": "runc"})
    assert words in note


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"Type": "bind", "Source": "/etc"}, "mounts /etc of the host"),
        ({"Type": "bind", "Source": "/srv/sbx-other"}, "mounts /srv/sbx-other"),
        ({"Type": "bind", "Source": "/srv/sbx/link"}, "mounts /srv/sbx/link (/etc/shadow) of the host"),
        ({"Type": "bind", "Source": "/x/docker.sock"}, "engine's socket"),
        ({"Type": "bind", "Source": "/var/run"}, "engine's socket"),
        ({"Type": "bind", "Source": "/"}, "engine's socket"),
        ({"Type": "bind", "Source": "/dev"}, "mounts /dev"),
        ({"Type": "bind", "Source": "/proc"}, "mounts /proc"),
        ({"Type": "npipe", "Source": "p"}, "kind npipe"),
        ({"Type": "volume", "Name": "evil"}, "mounts /etc of the host by the volume evil"),
        ({"Type": "volume", "Name": "sock"}, "engine's socket by the volume sock"),
        ({"Type": "volume", "Name": "nfs"}, "options: device=:/x, o=addr=192.0.2.1, type=nfs"),
        ({"Type": "volume", "Name": "far"}, "driver sshfs"),
        ({"Type": "volume", "Name": "kept"}, "not only this sandbox's"),
        ({"Type": "volume", "Name": "gone"}, "shows nothing"),
    ],
)  # fmt: skip
def test_each_mount_that_leads_to_the_host_is_told(mount: dict[str, Any], words: str) -> None:
    volumes = {
        "evil": {"Labels": OWN, "Options": {"type": "none", "o": "bind", "device": "/etc"}},
        "sock": {"Labels": OWN, "Options": {"type": "none", "o": "bind", "device": "/run/podman/podman.sock"}},
        "nfs": {"Labels": OWN, "Options": {"type": "nfs", "o": "addr=192.0.2.1", "device": ":/x"}},
        "far": {"Labels": OWN, "Driver": "sshfs"},
        "kept": {"Labels": {}},
    }
    (note,) = notes(container(Mounts=[mount]), volumes=volumes, real={"/srv/sbx/link": "/etc/shadow"})
    assert words in note


def test_what_podman_gives_of_itself_and_strange_networks_are_told() -> None:
    podman = container(BoundingCaps=["CAP_CHOWN", "CAP_SYS_PTRACE"], OCIRuntime="runc")
    assert notes(podman) == ["service 'web' has added capabilities: SYS_PTRACE"]
    on = container(NetworkSettings={"Networks": {"lan": {}, "own": {}}})
    told = notes(on, networks={"lan": {"Driver": "macvlan"}, "own": {"driver": "bridge", "labels": OWN}})
    assert ["lan" in note for note in told] == [True, True]


def test_an_ordinary_container_has_nothing_to_tell() -> None:
    host = {
        "NetworkMode": f"{PROJECT}_default", "IpcMode": "private", "ShmSize": 67108864, "Runtime": "runc",
        "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"], "LogConfig": {"Type": "json-file"},
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}, "OomScoreAdj": 0,
        "Ulimits": [{"Name": "RLIMIT_NOFILE", "Hard": 1024}], "SecurityOpt": ["no-new-privileges:true"],
    }  # fmt: skip
    mounts = [
        {"Type": "bind", "Source": "/srv/sbx/conf"},
        {"Type": "volume", "Name": "data"},
        {"Type": "volume", "Name": ID},
    ]
    networks = {"Networks": {f"{PROJECT}_default": {}}, "Ports": {"80/tcp": [{"HostIp": "::1", "HostPort": "1"}]}}
    told = notes(
        container(host, Mounts=mounts, NetworkSettings=networks),
        volumes={"data": {"Labels": OWN, "Driver": "local"}, ID: {"Labels": None}},
        networks={f"{PROJECT}_default": {"Driver": "bridge", "Labels": OWN}},
        info={"DefaultRuntime": "runc"},
        real={"/srv/sbx/conf": "/srv/sbx/conf"},
    )
    assert told == []


@pytest.mark.parametrize(("mode", "network"), [("host", "host"), ("none", "none"), ("x_default", "bridge")])
def test_the_network_is_told_in_a_word(mode: str, network: str) -> None:
    got = isolation(StackInspection(containers=[container({"NetworkMode": mode})]), project=PROJECT, directories=[])
    assert got.network == network


DOCKER_INFO = {"SecurityOptions": ["name=seccomp,profile=builtin"]}
PODMAN_INFO = {
    "host": {"security": {"seccompEnabled": True, "seccompProfilePath": "/usr/share/containers/seccomp.json"}}
}
OWN_PROFILE = {"host": {"security": {"seccompEnabled": True, "seccompProfilePath": "/etc/mine.json"}}}


@pytest.mark.parametrize(
    ("info", "host", "word"),
    [
        (DOCKER_INFO, {}, "filtered"),
        (DOCKER_INFO, {"SecurityOpt": ["no-new-privileges", "seccomp=builtin"]}, "filtered"),
        (DOCKER_INFO, {"SecurityOpt": ["seccomp=unconfined"]}, "unfiltered"),
        (DOCKER_INFO, {"SecurityOpt": ["seccomp={}"]}, "unknown"),
        (DOCKER_INFO, {"Privileged": True}, "unfiltered"),
        ({"SecurityOptions": ["name=apparmor"]}, {}, "unfiltered"),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, {}, "unfiltered"),
        ({"SecurityOptions": ["name=seccomp,profile=/etc/docker/mine.json"]}, {}, "unknown"),
        ({"SecurityOptions": None}, {}, "unknown"),
        (PODMAN_INFO, {}, "filtered"),
        (OWN_PROFILE, {}, "unknown"),
        ({"host": {"security": {"seccompEnabled": False}}}, {}, "unfiltered"),
        ({}, {}, "unknown"),
    ],
)  # fmt: skip
def test_whether_system_calls_are_filtered_is_what_the_engine_says(
    info: dict[str, Any], host: dict[str, Any], word: str
) -> None:
    plain = {**container(), "Id": "e" * 64}
    got = isolation(StackInspection(containers=[container(host), plain], info=info), project=PROJECT, directories=[])
    assert got.syscalls == word
    assert isolation(StackInspection(containers=[], info=info), project=PROJECT, directories=[]).syscalls == "unknown"


@pytest.mark.parametrize("missing", ["containers", "volumes", "networks", "info", "paths", "end"])
def test_an_answer_that_is_cut_off_tells_nothing_rather_than_less(missing: str) -> None:
    parts = {"containers": "[]", "volumes": "[]", "networks": "[]", "info": "{}", "paths": "", "end": ""}
    whole = "".join(f"== {name}\n{text}\n" for name, text in parts.items())
    assert parse_inspection(whole) == StackInspection(containers=[])
    with pytest.raises(BackendError) as caught:
        parse_inspection("".join(f"== {name}\n{text}\n" for name, text in parts.items() if name != missing))
    assert caught.value.outcome == "unknown"


def test_a_real_engine_shows_what_a_file_was_granted(either: Bed, tmp_path: Path) -> None:
    repo = repositories.minimal(tmp_path / "app")
    (repo / "link").symlink_to("/etc")
    service = {
        "image": BASE,
        "command": ["sleep", "600"],
        "cap_add": ["SYS_PTRACE"],
        "security_opt": ["seccomp=unconfined"],
        "pid": "host",
        "volumes": ["./link:/outside:ro", "evil:/evil:ro", "/run:/run/host:ro"],
        "ports": [f"{ANY}:18477:80"],
        "extra_hosts": ["db:10.0.0.1"],
    }
    volumes = {"evil": {"driver_opts": {"type": "none", "o": "bind", "device": "/etc"}}}
    document = {"version": "2.4", "services": {"web": service, "plain": {"image": BASE, "command": ["sleep", "600"]}}}
    (repo / "compose.yaml").write_text(json.dumps({**document, "volumes": volumes}))
    with either.sandbox(repo, settle=0, publish="declared", policy="trusted") as (handle, ready):
        assert ready.isolation.syscalls == "unfiltered"
        told = "\n".join(note for note in ready.isolation.notes if note.startswith("service 'web'"))
        for word in (
            "SYS_PTRACE", "pid namespace", "/etc of the host by the volume", "/run", "without a filter", "10.0.0.1",
            "port 80/tcp on", f"{either.work_dir}/{handle.data['name']}/link (/etc)",
        ):  # fmt: skip
            assert word in told, word
        assert not [note for note in ready.isolation.notes if note.startswith("service 'plain'")]
