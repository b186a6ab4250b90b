# ruff: noqa: E501 - a row is a line
"""The key table: builds, networks, volumes, secrets, configs and the top level."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.compose_ssh.policy import names, topology
from sandboxer.extensions.compose_ssh.policy.checks import (
    GIB,
    anything,
    dropped,
    each,
    flag,
    later,
    one_of,
    refused,
    size,
    switch,
    text,
)
from sandboxer.extensions.compose_ssh.policy.gate import KeyCheck
from sandboxer.extensions.compose_ssh.policy.key_table import Key, Support, Treatment
from sandboxer.extensions.compose_ssh.policy.keys_service import SERVICE, A, C, G, L, M, N, R
from sandboxer.extensions.compose_ssh.policy.services import environment, ulimit

_build_network = one_of("none", "default", "host", "", gives="a network of the host, while it builds")


def _build(
    path: str, decision: Treatment, take: KeyCheck | None, why: str, *, v1: Support = "yes", podman: Support = "yes"
) -> Key:
    return Key(f"services.*.build.{path}", decision, take, why, v1, podman)


BUILD: Final[tuple[Key, ...]] = (
    _build("additional_contexts", C, later, "as context; an image; a service of this file", v1="no"),
    _build("args", C, environment, "as environment"),
    _build("cache_from", C, each(names.image, most=16), "images only: a cache can be a path of the host"),
    _build("cache_to", N, refused("a path of the host, or the host's credentials for a registry"), "writes outside"),
    _build("context", C, anything, "a plain directory of the repository; never an address"),
    _build("dockerfile", C, anything, "a plain file of the repository, which is judged too"),
    _build("dockerfile_inline", C, anything, "judged as a Dockerfile", v1="no"),
    _build("entitlements", N, refused("rights of the builder"), "network.host and security.insecure"),
    _build("extra_hosts", C, names.extra_hosts, "as extra_hosts of a service"),
    _build("isolation", C, one_of("default", "", gives="the isolation that the host chose"), "Windows alone reads it", podman="no"),
    _build("labels", C, names.labels, "as labels of a service"),
    _build("network", G, _build_network, "`host` with build:network", podman="no"),
    _build("no_cache", A, flag, "how it is built", v1="no", podman="no"),
    _build("platforms", A, each(text(r"[a-z0-9]{1,20}(/[a-z0-9_]{1,20}){0,2}", "a platform"), most=8), "which variant is built", v1="no", podman="no"),
    _build("privileged", G, switch("the host: a privileged build is as good as root", "privileged"), "as good as root on the host", v1="no", podman="no"),
    _build("provenance", L, dropped, "a statement for a registry"),
    _build("pull", A, flag, "when a registry is asked", v1="no", podman="no"),
    _build("sbom", L, dropped, "a statement for a registry"),
    _build("secrets", N, refused("a file or a variable, into a build that may keep it"), "the build reads them where no rule is checked"),
    _build("shm_size", M, size(GIB), "at most 1 GiB", podman="no"),
    _build("ssh", N, refused("the keys of the host's ssh agent"), "the agent signs for whoever asks"),
    _build("tags", N, refused("names of images that others on the host use"), "an image gets one name, of this sandbox"),
    _build("target", A, text(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}|", "a stage"), "a stage of its Dockerfile"),
    _build("ulimits.*", M, ulimit, "as ulimits of a service", v1="no"),
)  # fmt: skip

PROJECT: Final[tuple[Key, ...]] = (
    Key("configs.*.content", A, anything, "a text of the file", v1="no", podman="no"),
    Key("configs.*.environment", G, anything, "a variable from outside the repository: env:NAME", v1="no", podman="no"),
    Key("configs.*.external", N, topology.external, "a config of the host"),
    Key("configs.*.file", C, anything, "a plain file of the repository"),
    Key("configs.*.labels", L, dropped, "only swarm reads it"),
    Key("configs.*.name", L, dropped, "the sandbox's name is put before the key"),
    Key("configs.*.template_driver", N, refused("a driver of the host"), "a program of the host"),
    Key("include", N, refused("files that nobody resolved"), "resolved before the gate"),
    Key("models", N, refused("a program of the host that runs models"), "runs outside the containers"),
    Key("name", L, dropped, "a project is named after its sandbox"),
    Key("networks.*.attachable", L, dropped, "only swarm reads it"),
    Key("networks.*.driver", C, topology.driver, "bridge"),
    Key("networks.*.driver_opts", C, topology.network_options, "MTU, masquerading and icc; no interface or address of the host"),
    Key("networks.*.enable_ipv6", A, flag, "a network of its own"),
    Key("networks.*.external", G, topology.external, "a network of the host: network:NAME"),
    Key("networks.*.internal", A, flag, "takes rights away"),
    Key("networks.*.ipam.config[].aux_addresses", C, topology.aux_addresses, "kept free"),
    Key("networks.*.ipam.config[].gateway", C, names.address, "the host's address in the network"),
    Key("networks.*.ipam.config[].ip_range", C, topology.subnet, "as subnet"),
    Key("networks.*.ipam.config[].subnet", C, topology.subnet, "/16 or less of 172.18-172.30 or fd00::/8: the host would send its traffic there", podman="yes"),
    Key("networks.*.ipam.driver", C, one_of("default", "", gives="a program of the host that gives addresses"), "the default"),
    Key("networks.*.ipam.options", N, refused("a program of the host that gives addresses"), "orders to the driver"),
    Key("networks.*.labels", C, names.labels, "as labels of a service"),
    Key("networks.*.name", R, anything, "the sandbox's name is put before the key; kept with network:NAME"),
    Key("secrets.*.driver", N, refused("a store of the host's secrets"), "a program of the host"),
    Key("secrets.*.driver_opts", N, refused("a store of the host's secrets"), "a program of the host"),
    Key("secrets.*.environment", G, anything, "a variable from outside the repository: env:NAME", v1="no", podman="no"),
    Key("secrets.*.external", N, topology.external, "a secret of the host"),
    Key("secrets.*.file", C, anything, "a plain file of the repository"),
    Key("secrets.*.labels", L, dropped, "only swarm reads it"),
    Key("secrets.*.name", L, dropped, "the sandbox's name is put before the key"),
    Key("secrets.*.template_driver", N, refused("a driver of the host"), "a program of the host"),
    Key("version", L, dropped, "no program needs it"),
    Key("volumes.*.driver", C, one_of("local", "", gives="a driver of the host, which mounts what it likes"), "local"),
    Key("volumes.*.driver_opts", C, topology.volume_options, "tmpfs up to 1 GiB; a bind as services' binds"),
    Key("volumes.*.external", G, topology.external, "a volume of the host: volume:NAME"),
    Key("volumes.*.labels", C, names.labels, "as labels of a service"),
    Key("volumes.*.name", R, anything, "the sandbox's name is put before the key; kept with volume:NAME"),
)  # fmt: skip

KEYS: Final[tuple[Key, ...]] = (*SERVICE, *BUILD, *PROJECT)
"""Every key that the gate knows; a key that is not here is refused."""
