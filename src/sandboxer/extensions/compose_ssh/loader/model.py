"""Load the files of a project into one model: several files merged, `include` and `extends` followed."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader.limits import DEFAULT, LoadUsage
from sandboxer.extensions.compose_ssh.loader.merge import merged, settled, unified
from sandboxer.extensions.compose_ssh.loader.nodes import Map, Override, Seq, copied, invalid, size
from sandboxer.extensions.compose_ssh.loader.project import Origin
from sandboxer.extensions.compose_ssh.loader.project_files import ProjectFiles

_SERVICE: Final = ("services", "*")
_SECTIONS: Final = ("services", "networks", "volumes", "secrets", "configs")
"""Includes within one another, and services that extend one another."""

Variables = Mapping[str, str]


def load_model(
    files: ProjectFiles, paths: Sequence[str], *, base: str, variables: Variables, within: tuple[str, ...] = ()
) -> Map:
    """The model of `paths`, later ones on top; relative paths in them start from `base`."""
    model = Map()
    for path in paths:
        if path in within:
            raise Invalid(f"{path} includes itself: {' -> '.join([*within, path])}", hint="take one `include` out")
        for document in files.documents(path, base=base, variables=variables):
            _Extender(files, path, base, variables).extend(document)
            _include(files, document, base=base, variables=variables, within=(*within, *paths))
            document.drop("version")
            model = merged(model, document)
    if files.tagged:
        settled(model)
    services = model.get("services")
    for service in services.values() if isinstance(services, Map) else ():
        if isinstance(service, Map):
            unified(service)
            _environment(service, variables, files.account)
            build = service.get("build")
            if isinstance(build, Map):
                build.setdefault("context", files.absolute(base))
    return model


def _environment(service: Map, variables: Variables, account: LoadUsage) -> None:
    """Give the entries without a value the one of the variable of that name; nobody else may do it later."""
    build = service.get("build")
    for entries in (service.get("environment"), build.get("args") if isinstance(build, Map) else None):
        if not isinstance(entries, Map):
            continue
        for name in [name for name, value in entries.items() if value is None and name in variables]:
            at = entries.at.get(name)
            account.values(at.file if at else "the project", text=len(variables[name]), line=at.line if at else 0)
            entries[name] = variables[name]


def _include(files: ProjectFiles, document: Map, *, base: str, variables: Variables, within: tuple[str, ...]) -> None:
    entries = settled(document.drop("include"))
    if not isinstance(entries, Seq):
        return  # nothing, or taken away by a tag
    if len(within) > DEFAULT.includes:
        raise Invalid(
            f"{within[-1]}: includes nested deeper than {DEFAULT.includes} levels", hint="include fewer levels"
        )
    for index, entry in enumerate(entries):
        origin = entries.at[index]
        where = ("include", index)
        if not entry.get("path"):
            raise invalid("has no path", where, origin)

        def located(path: str, where: Any = where, origin: Origin | None = origin) -> str:
            return files.located(path, base, path_of=where, origin=origin)

        paths = [located(path) for path in entry["path"]]
        wanted = entry.get("project_directory")
        directory = located(wanted) if wanted else posixpath.dirname(paths[0])
        files.account.values(paths[0], nodes=1)
        known = dict(variables)
        if entry.get("env_file"):
            found: dict[str, str] = {}
            for path in entry["env_file"]:
                found.update(files.variables(located(path), {**found, **variables}, origin=origin))
        else:
            path = posixpath.normpath(posixpath.join(directory, ".env"))
            found = files.variables(path, variables) if files.exists(path) else {}
        known = {**found, **variables}
        model = load_model(files, paths, base=directory, variables=known, within=within)
        _import(document, model, origin)


def _import(document: Map, model: Map, origin: Origin | None) -> None:
    """Put what an included project has into the one that includes it. Raises Invalid for one name with two meanings."""
    for section in _SECTIONS:
        have: Any = _untagged(document.get(section))
        brought: Any = model.get(section)
        for name, body in brought.items() if isinstance(brought, Map) else ():
            if not isinstance(have, Map):
                have = document.put(section, Map(), origin)[section]
            if name in have and have[name] != body:
                at = have.at.get(name)
                raise invalid("conflicts with what an include brings under that name", (section, name), at)
            have.put(name, body, brought.at.get(name))


def _untagged(value: Any) -> Any:
    return value.value if isinstance(value, Override) else value


class _Extender:
    """Follows `extends` of the services of one document."""

    def __init__(self, files: ProjectFiles, path: str, base: str, variables: Variables) -> None:
        self._files = files
        self._path = path
        self._base = base
        self._variables = variables

    def extend(self, document: Map) -> None:
        """Replace each service that extends another by the result."""
        services: Any = _untagged(document.get("services"))
        if not isinstance(services, Map):
            return
        done: dict[str, Any] = {}
        for name in list(services):
            services.put(name, self._extended(services, name, (), done), None)

    def _extended(self, services: Map, name: str, chain: tuple[str, ...], done: dict[str, Any]) -> Any:
        if name in done:
            return done[name]
        service = services[name]
        tagged = isinstance(service, Override)
        body = _untagged(service)
        if not isinstance(body, Map) or "extends" not in body:
            return service
        at = body.at.get("extends")
        link = f"{self._path}:{name}"
        if link in chain or len(chain) >= DEFAULT.includes:
            what = "extends itself" if link in chain else f"is the last of more than {DEFAULT.includes} extends"
            raise invalid(f"{what}: {' -> '.join([*chain, link])[:400]}", ("services", name, "extends"), at)
        extends = settled(body["extends"])
        if not isinstance(extends, Map):
            body.drop("extends")
            return service
        if not isinstance(extends.get("service"), str):
            raise invalid("has no service", ("services", name, "extends"), at)
        source = self._source(services, extends, name, at, (*chain, link), done)
        body.drop("extends")  # not before: a circle is seen by it
        result = merged(source, body, _SERVICE)
        done[name] = Override(result) if tagged else result
        return done[name]

    def _source(
        self,
        services: Map,
        extends: Map,
        name: str,
        at: Origin | None,
        chain: tuple[str, ...],
        done: dict[str, Any],
    ) -> Map:
        wanted = extends["service"]
        extender, known, there = self, services, done
        if isinstance(extends.get("file"), str):
            where = ("services", name, "extends", "file")
            path = self._files.located(extends["file"], self._base, path_of=where, origin=at)
            directory = posixpath.dirname(path)
            extender, known, there = _Extender(self._files, path, directory, self._variables), Map(), {}
            for document in self._files.documents(path, base=directory, variables=self._variables, origin=at):
                found = _untagged(document.get("services"))
                if isinstance(found, Map):
                    known = merged(known, found, ("services",))
        if wanted not in known:
            raise invalid(f"extends the service {wanted[:80]!r}, which is not there", ("services", name, "extends"), at)
        base = _untagged(extender._extended(known, wanted, chain, there))
        if not isinstance(base, Map):
            raise invalid(f"extends {wanted[:80]!r}, which is no mapping", ("services", name, "extends"), at)
        nodes, text = size(base)
        self._files.account.values(self._path, nodes=nodes, text=text)
        return copied(base)  # type: ignore[no-any-return]
