"""Check builds: where they read, what their Dockerfile asks for, and what their image is called."""

from __future__ import annotations

import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy import dockerfile
from sandboxer.extensions.compose_ssh.policy.checks import plain
from sandboxer.extensions.compose_ssh.policy.gate import Gate
from sandboxer.extensions.compose_ssh.policy.names import image_fault
from sandboxer.extensions.compose_ssh.policy.paths import MAX_DEPTH, HostPath, normal, plain_in_tree, relative

_IGNORES: Final = (".dockerignore", ".containerignore")
MAX_SOURCES: Final = 2_000
"""Of COPY, ADD and mounts in one Dockerfile: each is looked up."""
MAX_LABELS: Final = 200
"""Of one image: each is taken back from the container."""
MAX_READ: Final = 2 << 20
"""Characters of all Dockerfiles; one that is built with other arguments counts again."""
_STEERING: Final = re.compile(r"BUILDKIT_(?!INLINE_CACHE$).*", re.IGNORECASE)
_CONTEXT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}")


def contexts(gate: Gate, document: dict[str, Any]) -> list[HostPath]:
    """The build contexts of services; their Dockerfiles are judged."""
    found: list[HostPath] = []
    for name, service in document.get("services", {}).items():
        build = service.get("build")
        if not isinstance(build, dict):
            continue
        path: Path = ("services", name, "build")
        _network(gate, path, build)
        _steering(gate, path, build)
        context = _directory(gate, (*path, "context"), build, "context")
        if context is not None:
            found.append(context)
            found += _dockerfile(gate, path, build, context)
        found += _additional(gate, (*path, "additional_contexts"), build)
    return found


def _network(gate: Gate, path: Path, build: dict[str, Any]) -> None:
    if build.get("network") == "host":
        gate.granted((*path, "network"), "the network of the host, while it builds", "build:network")


def _steering(gate: Gate, path: Path, build: dict[str, Any]) -> None:
    gives = "the build to another program, or another way to build: BuildKit itself reads this argument"
    for name, value in (build.get("args") or {}).items():
        frontend = plain(value) or ""
        if name == "BUILDKIT_SYNTAX" and image_fault(frontend) is None:
            gate.granted((*path, "args", name), gives, f"frontend:{frontend}")
        elif _STEERING.fullmatch(name):
            gate.refuse((*path, "args", name), gives)


def _directory(gate: Gate, path: Path, holder: dict[str, Any], key: str, *, text: str | None = None) -> HostPath | None:
    full = normal(text if text is not None else holder.get(key))
    if full is None:
        gate.refuse(
            path, "what an address or another builder's word leads to: a context is a directory of the repository"
        )
        return None
    inside = relative(gate.directory, full)
    if inside is None:
        gate.refuse(path, f"the host's directory {full}, into an image")
        return None
    if not plain_in_tree(gate, path, inside, wanted=("directory",)):
        return None
    holder[key] = full
    return HostPath(path=path, full=full, inside=inside, what="context", writable=False, holder=holder, key=key)


def _additional(gate: Gate, path: Path, build: dict[str, Any]) -> list[HostPath]:
    given = build.get("additional_contexts")
    if isinstance(given, list):
        pairs = [(plain(item) or "").partition("=")[::2] for item in given]
        build["additional_contexts"] = given = dict(pairs)
    if not given:
        return []
    if not isinstance(given, dict):
        gate.refuse(path, "what was not looked at: it is not a mapping of contexts")
        return []
    found = []
    for name, value in given.items():
        where, text = (*path, name), plain(value) or ""
        scheme, _, rest = text.partition("://")
        if not _CONTEXT_NAME.fullmatch(name) or name.startswith("sbx-"):
            gate.refuse(where, "what was not looked at: it is not the name of a context")
        elif rest and scheme == "docker-image":
            fault = image_fault(rest)
            if fault is not None:
                gate.refuse(where, fault)
        elif text.startswith("service:"):
            if text.removeprefix("service:") not in gate.services:
                gate.refuse(where, "an image of a service that is not of this file")
        else:
            opened = _directory(gate, where, given, name, text=text)
            found += [opened] if opened else []
    return found


def _dockerfile(gate: Gate, path: Path, build: dict[str, Any], context: HostPath) -> list[HostPath]:
    args = {key: plain(value) or "" for key, value in (build.get("args") or {}).items() if value is not None}
    extra = build.get("additional_contexts")
    known = {str(key) for key in extra} if isinstance(extra, dict) else set()
    where: Path = (*path, "dockerfile") if "dockerfile" in build else (*path, "context")
    _ignores(gate, where, [f"{context.inside}/{name}".lstrip("/") for name in _IGNORES])
    inline = build.get("dockerfile_inline")
    if isinstance(inline, str) and inline:
        if build.get("dockerfile"):
            gate.refuse((*path, "dockerfile"), "which of two Dockerfiles is built: there is `dockerfile_inline` too")
        origin = gate.project.origin((*path, "dockerfile_inline"))
        file, line = (origin.file, origin.line) if origin else ("compose.yaml", 1)
        _judge(gate, inline, context, args, known, where=lambda _: (file, line), path=(*path, "dockerfile_inline"))
        return []
    given = plain(build.get("dockerfile")) or "Dockerfile"
    full = normal(given if given.startswith("/") else f"{context.full}/{given}")
    inside = relative(gate.directory, full) if full is not None else None
    if full is None or not inside:
        gate.refuse(where, f"the host's file {given[:200]}, read as a Dockerfile")
        return []
    if inside.endswith(".in"):
        gate.refuse(where, "files of the host: podman runs a Dockerfile that ends in .in through a preprocessor")
        return []
    if not plain_in_tree(gate, where, inside, wanted=("file",)):
        return []
    _ignores(gate, where, [f"{inside}{name}" for name in _IGNORES])
    data = gate.tree.read(inside)
    try:
        text = data.decode("utf-8-sig") if data is not None else None
    except UnicodeDecodeError:
        text = None
    if text is None:
        gate.refuse(where, f"what nobody can look at: {inside} is too large or no text")
        return []
    _judge(gate, text, context, args, known, where=lambda line: (inside, line), path=where)
    build["dockerfile"] = full
    area = context.full if full.startswith(context.full + "/") else full
    return [
        HostPath(
            path=where,
            full=full,
            inside=inside,
            what="context",
            writable=False,
            holder=build,
            key="dockerfile",
            area=area,
        )
    ]


def _ignores(gate: Gate, path: Path, files: list[str]) -> None:
    for file in files:
        if gate.kind(file) not in ("file", "missing"):
            gate.refuse(path, f"what {file} leads to: it is no plain file, and the builder reads it")


def _judge(
    gate: Gate, text: str, context: HostPath, args: dict[str, str], known: set[str], *, where: Any, path: Path
) -> None:
    # all of them: a name can go on in the next line
    key = (text, tuple(args.items()), frozenset(known))
    faults = gate.dockerfiles.get(key)
    if faults is None:
        gate.read += len(text)
        if gate.read > MAX_READ:
            gate.refuse(path, f"the time of whoever reads it: at most {MAX_READ >> 20} MiB of Dockerfiles")
            return
        faults = gate.dockerfiles[key] = dockerfile.check_dockerfile(text, args=args, contexts=known)
    for fault in faults.found:
        grant = fault.grant
        if grant is None or not gate.grants.has(grant):
            gate.refuse(path, fault.gives_away, grant, at=where(fault.line))
    gate.image_labels.setdefault(str(path[1]), {}).update(dict.fromkeys(faults.labels))
    if len(faults.labels) > MAX_LABELS:
        gate.refuse(path, f"the time of whoever reads it: at most {MAX_LABELS} labels")
    if len(faults.sources) + len(faults.mounted) > MAX_SOURCES:
        gate.refuse(path, f"the time of whoever reads it: at most {MAX_SOURCES} sources of COPY and mounts")
        return
    for line, source in faults.sources:
        leaving = _leaves(gate, context.inside or "", source)
        if leaving is not None:
            gate.refuse(path, f"what the link {leaving} leads to, outside of the context", at=where(line))
    for line, source in faults.mounted:
        link = _link_on(gate, context.inside or "", source)
        if link is not None:
            gate.refuse(path, f"what {link} leads to: a mount of RUN shows a plain path of the context", at=where(line))


def _link_on(gate: Gate, context: str, source: str) -> str | None:
    """The first part of a path that is no file or directory, if any: not every builder keeps a link in the context."""
    here = context
    for part in [part for part in source[:4096].split("/") if part not in ("", ".")][:MAX_DEPTH]:
        here = f"{here}/{part}".lstrip("/")
        kind = gate.kind(here)
        if kind == "missing":
            return None  # then there is nothing to mount
        if kind not in ("file", "directory"):
            return here
    return None


def _leaves(gate: Gate, context: str, source: str) -> str | None:
    """The first link on the way of a COPY that leads out of the context. Wildcards count for the whole directory."""
    here = context
    for part in [part for part in source[:4096].split("/") if part not in ("", ".")][:MAX_DEPTH]:
        if part == "..":
            return None  # builders keep it in the context, and so does the copy
        if any(mark in part for mark in "*?[$"):
            if (context, here) not in gate.leaving:
                gate.leaving[context, here] = _any_leaves(gate, context, here)
            return gate.leaving[context, here]
        here = f"{here}/{part}".lstrip("/")
        if gate.kind(here) == "link":
            return here if _outside(gate, context, here) else None
    return None


def _any_leaves(gate: Gate, context: str, directory: str) -> str | None:
    links = (name for name, kind in gate.tree.entries(directory).items() if kind == "link")
    paths = (f"{directory}/{name}".lstrip("/") for name in links)
    return next((path for path in paths if _outside(gate, context, path)), None)


def _outside(gate: Gate, context: str, link: str) -> bool:
    target = gate.tree.target(link)
    if target.startswith("/"):
        return True
    depth = len([part for part in link.rpartition("/")[0].split("/") if part])
    floor = len([part for part in context.split("/") if part])
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < floor:
            return True
    return False


def name_images(gate: Gate, document: dict[str, Any]) -> None:
    """Give what is built a name of this sandbox, also where another service uses it: a build that took the name of
    somebody's image would be what everybody on the host runs from then on."""
    services = document.get("services", {})
    renamed: dict[str, str] = {}
    used: set[str] = set()
    for name, service in services.items():
        if not isinstance(service.get("build"), dict):
            continue
        given = plain(service.get("image"))
        own = renamed.get(_full(given)) if given else None
        if own is None:
            own = f"{gate.sandbox}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-') or 'service'}"
            while own in used:
                own += "-x"
        used.add(own)
        if given:
            renamed[_full(given)] = own
            gate.note(f"the image of {name} is built as {own}, so that {given} on the host stays what it is")
        service["image"] = own
    for service in services.values():
        given = plain(service.get("image"))
        if given and not isinstance(service.get("build"), dict) and _full(given) in renamed:
            service["image"] = renamed[_full(given)]
    _take_back_labels(gate, services)


def _take_back_labels(gate: Gate, services: dict[str, Any]) -> None:
    """Empty the labels that containers would have of images which are built here: a container's own come first."""
    by_image: dict[str, dict[str, None]] = {}
    for name, service in services.items():
        by_image.setdefault(service.get("image", ""), {}).update(gate.image_labels.get(name, {}))
    for service in services.values():
        taken = by_image.get(service.get("image", ""), {})
        if taken:
            service["labels"] = {**dict.fromkeys(taken, ""), **(service.get("labels") or {})}
            gate.note(
                "labels of Dockerfiles are empty: programs on the host (proxies, updaters, schedulers) act on them"
            )


def _full(image: str) -> str:
    """An image's name with what is left out of it."""
    name = image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
    first = name.split("/")[0]
    if "/" not in name:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
