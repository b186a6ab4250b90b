"""Find, check and transform the compose file of a trusted repository, without resolving it. Reads local files only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from sandboxer.errors import Denied, Invalid, NotFound, Unsupported
from sandboxer.extensions.compose_ssh.document import Document, Plain, dump, is_null, load
from sandboxer.extensions.compose_ssh.loader import DirectoryReader
from sandboxer.extensions.compose_ssh.options import Publish
from sandboxer.extensions.compose_ssh.transform import remap
from sandboxer.names import SERVICE

_COUNT: Final = re.compile(r"\d{1,4}")


class ComposeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed compose file. `path` is relative to the repository, with `/`."""

    path: str
    document: Document

    @property
    def services(self) -> dict[str, Document]:
        """Its services by name, in the order of the file."""
        return dict(self.document["services"])

    @property
    def required(self) -> dict[str, int]:
        """The services that must come up, and the least number of containers of each. A service that is behind a
        `profiles` key, or wanted zero times, may stay away."""
        counts = {name: _replicas(service) for name, service in self.services.items() if not service.get("profiles")}
        return {name: count for name, count in counts.items() if count}

    @property
    def builds(self) -> bool:
        """Whether any image is built from the repository."""
        return any(not is_null(service.get("build")) for service in self.services.values())


def read(repo: Path, wanted: str) -> ComposeFile:
    """The compose file of `repo`. Raises Invalid."""
    with DirectoryReader(repo) as reader:
        name = _inside(wanted)
        try:
            data = reader.read(name)
        except (Denied, NotFound) as error:
            raise Invalid(error.message, hint=error.hint) from error
    document = load(data, name=name)
    check(document, name=name)
    return ComposeFile(path=name, document=document)


def _inside(wanted: str) -> str:
    pure = PurePosixPath(wanted)
    if pure.is_absolute() or ".." in pure.parts or "\0" in wanted or not pure.parts:
        raise Invalid(f"compose_file {wanted[:200]!r} is not a path inside the repository", hint="give a relative path")
    return str(pure)


def check(document: Mapping[str, Any], *, name: str) -> None:
    """Raise Invalid unless the parts that are rewritten have the shape of a compose file."""
    services = document.get("services")
    if not isinstance(services, dict) or not services:
        raise Invalid(f"{name} has no `services`", hint="a compose file names its services under a `services:` key")
    for service, body in services.items():
        if not SERVICE.fullmatch(service):
            raise Invalid(
                f"{name}: the service name {service[:80]!r} is not allowed",
                hint="use letters, digits, '.', '_' and '-', starting with a letter or digit",
            )
        if not isinstance(body, dict):
            raise Invalid(f"{name}: service {service!r} is not a mapping", hint="give it an `image:` or a `build:`")
    for section in ("networks", "volumes"):
        entries = document.get(section)
        if is_null(entries):
            continue
        if not isinstance(entries, dict) or not all(is_null(e) or isinstance(e, dict) for e in entries.values()):
            raise Invalid(
                f"{name}: `{section}` is not a mapping of mappings", hint=f"write it like {section}: {{data: {{}}}}"
            )


def rewrite(file: ComposeFile, *, publish: Publish, labels: Mapping[str, str], podman: bool) -> bytes:
    """The file as it is brought up: labelled, and with nothing in it that two sandboxes would fight over.

    Fixed names of networks and volumes always go (the project's prefix takes their place): a sandbox that shared a
    volume with something else would delete it on teardown. Fixed container names go with `remapped` and `none`, and
    always for podman-compose, whose `down` would remove a stranger's container of that name; the old name stays as
    a network alias. External networks and volumes are left alone.
    """
    if publish != "declared":
        _refuse_other_files(file)
    labels = {key: value.replace("$", "$$") for key, value in labels.items()}  # else it would be interpolated
    # an empty section is none: not every front end takes it for that
    empty = {key for key in ("networks", "volumes") if is_null(file.document.get(key))}
    document = {key: value for key, value in file.document.items() if key != "name" and key not in empty}
    if document.get("version") in ("2", "2.0"):
        document["version"] = "2.1"  # the first of format 2 that has labels on networks and volumes
    rename = publish != "declared" or podman
    services = {
        name: _service(name, body, publish=publish, labels=labels, rename=rename)
        for name, body in file.services.items()
    }
    document["services"] = services
    networks = _scoped(file.document.get("networks"), labels)
    if any(is_null(body.get("networks")) and is_null(body.get("network_mode")) for body in services.values()):
        networks.setdefault("default", {"labels": dict(labels)})
    if networks:
        document["networks"] = networks
    volumes = _scoped(file.document.get("volumes"), labels)
    if volumes:
        document["volumes"] = volumes
    if podman:
        extra = document.get("x-podman")
        # a pod per project groups containers and nothing else; without it two podman calls are saved each way
        document["x-podman"] = {**(extra if isinstance(extra, dict) else {}), "in_pod": False}
    return dump(document)


def _service(name: str, body: Document, *, publish: Publish, labels: Mapping[str, str], rename: bool) -> Document:
    service = {**body, "labels": _labelled(body.get("labels"), labels, f"service {name!r}")}
    if publish == "none" or (publish == "remapped" and is_null(body.get("ports"))):
        service.pop("ports", None)
    elif publish == "remapped":
        service["ports"] = remap(body["ports"], service=name)
    if rename and not is_null(body.get("container_name")):
        alias = service.pop("container_name")
        if is_null(body.get("network_mode")):
            service["networks"] = _aliased(body.get("networks"), alias, name)
    return service


def _aliased(networks: Any, alias: Any, service: str) -> Document:
    if is_null(networks):
        networks = {"default": None}
    elif isinstance(networks, list) and all(isinstance(item, str) for item in networks):
        networks = {str(network): None for network in networks}
    if not isinstance(networks, dict):
        raise Invalid(f"service {service!r}: `networks` is neither a list nor a mapping", hint="mend the compose file")
    aliased: Document = {}
    for network, settings in networks.items():
        known = {} if is_null(settings) else settings
        if not isinstance(known, dict):
            raise Invalid(f"service {service!r}: network {network!r} is not a mapping", hint="mend the compose file")
        aliases = known.get("aliases")
        aliased[network] = {**known, "aliases": [*(aliases if isinstance(aliases, list) else []), alias]}
    return aliased


def _labelled(present: Any, labels: Mapping[str, str], where: str) -> Any:
    if is_null(present):
        return dict(labels)
    if isinstance(present, list):
        return [*present, *(f"{key}={value}" for key, value in labels.items())]
    if isinstance(present, dict):
        return {**present, **labels}
    raise Invalid(f"{where}: `labels` is neither a list nor a mapping", hint="write labels as KEY: VALUE")


def _scoped(entries: Any, labels: Mapping[str, str]) -> Document:
    if is_null(entries):
        return {}
    scoped: Document = {}
    for key, body in entries.items():
        settings: Document = {} if is_null(body) else body
        external = settings.get("external")
        if isinstance(external, dict) or (isinstance(external, str) and external.lower() in ("true", "yes", "on")):
            scoped[key] = settings
            continue
        kept = {name: value for name, value in settings.items() if name != "name"}
        scoped[key] = {**kept, "labels": _labelled(kept.get("labels"), labels, f"{key!r}")}
    return scoped


def _refuse_other_files(file: ComposeFile) -> None:
    what = "`include`" if not is_null(file.document.get("include")) else ""
    for name, body in file.services.items():
        extends = body.get("extends")
        if isinstance(extends, dict) and not is_null(extends.get("file")):
            what = f"`extends` of another file in service {name!r}"
    if what:
        raise Unsupported(
            f"{file.path} uses {what}: the ports of other files cannot be remapped",
            hint="make one file of them with `docker compose config`, or use a profile with publish: declared",
        )


def _replicas(service: Mapping[str, Any]) -> int:
    """How many containers are surely wanted. One front end ignores `deploy`, so that only counts as at least one."""
    scale = service.get("scale")
    if isinstance(scale, Plain) and _COUNT.fullmatch(scale):
        return int(scale)
    deploy = service.get("deploy")
    replicas = deploy.get("replicas") if isinstance(deploy, dict) else None
    return 0 if isinstance(replicas, Plain) and _COUNT.fullmatch(replicas) and int(replicas) == 0 else 1
