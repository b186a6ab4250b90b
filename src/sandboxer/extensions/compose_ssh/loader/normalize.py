"""Complete a merged model: what is off left out, implied parts written out, references checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader.consistency import check_cycles, check_nulls, check_pairs
from sandboxer.extensions.compose_ssh.loader.nodes import Map, Seq, invalid
from sandboxer.extensions.compose_ssh.loader.project import Origin
from sandboxer.extensions.compose_ssh.loader.project_files import ProjectFiles
from sandboxer.extensions.compose_ssh.loader.schema import ValueContext
from sandboxer.extensions.compose_ssh.loader.schema_service import SERVICE

_RESOURCES: Final = ("networks", "volumes", "secrets", "configs")
_NAMESPACES: Final = ("network_mode", "ipc", "pid", "uts", "cgroup")


def normalize(
    model: Map, *, files: ProjectFiles, name: str, variables: Mapping[str, str], profiles: Sequence[str]
) -> Map:
    """The document of the project `name`."""
    services = model.get("services")
    if not isinstance(services, Map) or not services:
        raise Invalid("the project has no `services`", hint="a compose file names its services under `services:`")
    document = Map().put("name", name, model.at.get("name"))
    wanted = Map()
    document.put("services", wanted, model.at.get("services"))
    for key, service in services.items():
        at = services.at.get(key)
        if not isinstance(service, Map):
            raise invalid("is not a mapping: give it an `image:` or a `build:`", ("services", key), at)
        if _enabled(service, profiles):
            wanted.put(key, service, at)
    for key in list(wanted):
        _service(wanted[key], key, wanted.at.get(key), files=files, variables=variables)
        _dependencies(
            wanted[key], ValueContext(("services", key), wanted.at.get(key), "", files.account), wanted, services
        )
    check_cycles(wanted)
    for section in _RESOURCES:
        _resources(document, section, model, name)
    for key, value in model.items():
        if key not in ("name", "services", *_RESOURCES):
            document.put(key, value, model.at.get(key))
    return document


def _enabled(service: Map, profiles: Sequence[str]) -> bool:
    needed = service.get("profiles")
    # the key goes: whoever reads the result has not been told which profiles are on
    service.drop("profiles")
    return not needed or "*" in profiles or any(profile in profiles for profile in needed)


def _service(service: Map, name: str, at: Origin | None, *, files: ProjectFiles, variables: Mapping[str, str]) -> None:
    spot = ValueContext(("services", name), at, files.directory, files.account)
    if not service.get("image") and service.get("build") is None and "provider" not in service:
        raise spot.bad("has neither an image nor a build context")
    build = service.get("build")
    if isinstance(build, Map):
        if "dockerfile" not in build and "dockerfile_inline" not in build:
            build["dockerfile"] = "Dockerfile"
        _drop_bare(build, "args")
    check_pairs(service, spot)
    if not service.get("network_mode") and not service.get("networks"):
        service["networks"] = Map().put("default", None, spot.origin)
    check_nulls(service, spot)
    for key in [key for key, value in service.items() if value == "" and key in SERVICE]:
        service.drop(key)  # an empty text says nothing, and not every program takes it for that
    _file_variables(service, spot, files, variables)
    _implied(service)


def _drop_bare(owner: Map, key: str) -> None:
    entries = owner.get(key)
    if isinstance(entries, Map):
        for name in [name for name, value in entries.items() if value is None]:
            entries.drop(name)
        if not entries:
            owner.drop(key)


def _file_variables(service: Map, spot: ValueContext, files: ProjectFiles, variables: Mapping[str, str]) -> None:
    """The variables and labels of files, below those that the service names itself."""
    found = Map()
    env_files = service.drop("env_file") or Seq()
    for index, entry in enumerate(env_files):
        at = env_files.at[index]
        path = files.located(entry["path"], "", path_of=(*spot.path, "env_file"), origin=at)
        if entry.get("format") not in (None, "raw"):
            raise invalid(f"has the format {str(entry['format'])[:80]!r}", (*spot.path, "env_file", index), at)
        if not entry.get("required", True) and not files.exists(path):
            continue
        values = _raw(files, path, at) if entry.get("format") else files.variables(path, variables, origin=at)
        for name, value in values.items():
            found.put(name, value, at)
    _below(service, "environment", found)
    _drop_bare(service, "environment")
    labels = Map()
    label_files = service.drop("label_file") or Seq()
    for index, path in enumerate(label_files):
        at = label_files.at[index]
        path = files.located(path, "", path_of=(*spot.path, "label_file"), origin=at)
        for name, value in files.variables(path, variables, origin=at).items():
            labels.put(name, value, at)
    _below(service, "labels", labels)


def _raw(files: ProjectFiles, path: str, at: Origin | None) -> dict[str, str]:
    """Lines of NAME=value, taken as they are."""
    text = files.data(path, origin=at).decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    files.account.values(path, nodes=len(pairs), text=len(text))
    return {name: value for name, found, value in pairs if found}


def _below(service: Map, key: str, found: Map) -> None:
    if not found:
        return
    own = service.get(key)
    for name, value in own.items() if isinstance(own, Map) else ():
        found.put(name, value, own.at.get(name) if own is not None else None)
    service.put(key, found, service.at.get(key))


def _implied(service: Map) -> None:
    """The dependencies that follow from links, shared namespaces and shared volumes."""
    implied: dict[str, bool | None] = {}
    for link in service.get("links") or ():
        implied.setdefault(link.partition(":")[0], True)
    for key in _NAMESPACES:
        mode = service.get(key)
        if isinstance(mode, str) and mode.startswith("service:"):
            implied.setdefault(mode.removeprefix("service:"), True)
    for entry in service.get("volumes_from") or ():
        if not entry.startswith("container:"):
            implied.setdefault(entry.partition(":")[0], None)
    if not implied:
        return
    depends = service.get("depends_on")
    if not isinstance(depends, Map):
        depends = Map()
        service["depends_on"] = depends
    for name, restart in implied.items():
        if name not in depends:
            body = Map()
            body.update(condition="service_started", required=True)
            if restart:
                body["restart"] = True
            depends[name] = body


def _dependencies(service: Map, spot: ValueContext, services: Map, all_services: Map) -> None:
    depends = service.get("depends_on")
    if not isinstance(depends, Map):
        return
    for name in list(depends):
        if name in services:
            continue
        if depends[name].get("required", True) or name not in all_services:
            raise spot.bad(f"depends on the service {name[:80]!r}, which is not there or not in a profile that is on")
        depends.drop(name)  # no program takes a dependency on what is not in the file
    if not depends:
        service.drop("depends_on")


def _used(document: Map, section: str) -> Iterator[tuple[str, str, Origin | None]]:
    """The names in `section` that services refer to, with the service and the place."""
    for service, body in document["services"].items():
        at = document["services"].at.get(service)
        if section == "networks":
            for name in body.get("networks") or ():
                yield name, service, body["networks"].at.get(name, at)
        elif section == "volumes":
            for mount in body.get("volumes") or ():
                if mount["type"] == "volume" and mount.get("source"):
                    yield mount["source"], service, mount.at.get("source", at)
        else:
            build = body.get("build")
            built = build.get("secrets") if section == "secrets" and isinstance(build, Map) else None
            for mount in [*(body.get(section) or ()), *(built or ())]:
                yield mount.get("source"), service, mount.at.get("source", at)


def _resources(document: Map, section: str, model: Map, project: str) -> None:
    """The networks, volumes, secrets or configs that a service uses, each with its name."""
    known = model.get(section)
    known = known if isinstance(known, Map) else Map()
    result = Map()
    for name, service, at in _used(document, section):
        if name in result:
            continue
        if name not in known and not (section == "networks" and name == "default"):
            raise invalid(
                f"refers to the {section[:-1]} {str(name)[:80]!r}, which is not there", ("services", service), at
            )
        body = known.get(name)
        body = body if isinstance(body, Map) else Map()
        _named(body, name, project)
        result.put(name, body, known.at.get(name, at))
    if result:
        document.put(section, result, model.at.get(section))


def _named(body: Map, name: str, project: str) -> None:
    external: Any = body.get("external")
    if isinstance(external, Map):
        body["external"] = True
        if isinstance(external.get("name"), str):
            body.setdefault("name", external["name"])
    elif external is False:
        body.drop("external")
    if not body.get("name"):
        body["name"] = name if body.get("external") else f"{project}_{name}"
