"""Paths of the host that the engine or a compose program opens, and who could change what lies there.

A container that may write a directory can put a link where another path is opened later: at a restart, when a
dependency has completed, at `stop` and `start`. So no opened path may lie beneath a writable bind. What a container
cannot do is to replace the bind's own directory: it is a mount point inside, and its parents are not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.gate import Gate
from sandboxer.extensions.compose_ssh.policy.verdict import format_path

_PLAIN: Final = re.compile(r"/[^\x00-\x1f\x7f:,\\]*")
MAX_DEPTH: Final = 64
What = Literal["bind", "file", "context"]


class HostPath(msgspec.Struct, frozen=True, kw_only=True):
    """One path that is opened later. `holder[key]` is where the document names it.

    `inside` is relative to the repository, None for a path of the host. A `context` is read with all that is in it;
    `area` is what it moves with: a Dockerfile goes where its context goes.
    """

    path: Path
    full: str
    inside: str | None
    what: What
    writable: bool
    holder: dict[str, Any]
    key: str
    area: str = ""


def relative(directory: str, full: str) -> str | None:
    """`full` relative to `directory`; "" for the directory itself, None for what is not in it."""
    if full == directory:
        return ""
    return full.removeprefix(directory + "/") if full.startswith(directory + "/") else None


def normal(text: object) -> str | None:
    """An absolute path without `.`, `..` and double slashes; None for what is none."""
    if not isinstance(text, str) or len(text) > 4096 or not _PLAIN.fullmatch(text):
        return None
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) if len(parts) <= MAX_DEPTH else None


def plain_in_tree(gate: Gate, path: Path, inside: str, *, wanted: tuple[str, ...]) -> bool:
    """Whether each step of a path of the repository is itself, and no link to something else."""
    steps = inside.split("/") if inside else []
    for end in range(1, len(steps) + 1):
        step = "/".join(steps[:end])
        kind = gate.kind(step)
        if kind == "link":
            gate.refuse(path, f"what the link {step} in the repository leads to")
            return False
        if kind == "missing" and "missing" in wanted:
            return True  # then nothing of it exists; the engine makes a directory, or says so
        if kind not in (wanted if end == len(steps) else ("directory",)):
            what = (
                "is not there"
                if kind == "missing"
                else f"is a {kind}"
                if kind != "other"
                else "is no file or directory"
            )
            gate.refuse(path, f"what nobody can look at now: {step} {what} in the repository")
            return False
    return True


def binds(gate: Gate, document: dict[str, Any]) -> list[HostPath]:
    """The bind mounts of services, and the volumes that are binds."""
    found = []
    for name, service in document.get("services", {}).items():
        for index, mount in enumerate(service.get("volumes") or []):
            path: Path = ("services", name, "volumes", index)
            if mount.get("type") == "bind":
                writable = mount.get("read_only") is not True
                opened = _bind(
                    gate,
                    path,
                    mount,
                    "source",
                    writable=writable,
                    selinux=bool((mount.get("bind") or {}).get("selinux")),
                )
                found += [opened] if opened else []
            elif mount.get("type") == "volume" and mount.get("source") is not None:
                if mount["source"] not in document.get("volumes", {}):
                    gate.refuse((*path, "source"), "a volume of the host: the file declares none of this name")
            elif mount.get("type") == "tmpfs" and mount.get("source") is not None:
                gate.refuse((*path, "source"), "a place of the host: a tmpfs has no source")
            elif mount.get("type") not in ("volume", "tmpfs"):
                gate.refuse(path, "a mount that nobody can name: it has no `type`")
            if mount.get("target") is None:
                gate.refuse(path, "a mount that nobody can name: it has no `target`")
    for name, volume in document.get("volumes", {}).items():
        options = (volume or {}).get("driver_opts") or {}
        if options.get("type") != "tmpfs" and "device" in options:
            writable = "ro" not in str(options.get("o", "")).split(",")
            opened = _bind(gate, ("volumes", name, "driver_opts"), options, "device", writable=writable, selinux=False)
            found += [opened] if opened else []
    return found


def _bind(
    gate: Gate, path: Path, holder: dict[str, Any], key: str, *, writable: bool, selinux: bool
) -> HostPath | None:
    where = path if key == "source" else (*path, key)
    full = normal(holder.get(key))
    if full is None:
        gate.refuse(where, "a path that engines read in different ways: it is not absolute, or has ':', ',' or '\\'")
        return None
    inside = relative(gate.directory, full)
    if inside is None:
        grant = f"bind:{full}" if writable else f"bind:{full}:ro"
        if not gate.grants.bind(full, writable=writable):
            gate.refuse(where, f"{full} of the host{', for writing' if writable else ''}", grant)
            return None
        if selinux:
            gate.refuse(where, f"the labels of {full} on the host: selinux would change them for everybody")
    elif not plain_in_tree(gate, where, inside, wanted=("file", "directory", "missing")):
        return None
    holder[key] = full  # a `..` behind a link leads elsewhere than its text says
    return HostPath(path=where, full=full, inside=inside, what="bind", writable=writable, holder=holder, key=key)


def files(gate: Gate, document: dict[str, Any]) -> list[HostPath]:
    """The files of secrets and configs."""
    found = []
    for section in ("secrets", "configs"):
        for name, body in document.get(section, {}).items():
            path: Path = (section, name, "file")
            if not isinstance(body, dict) or "file" not in body:
                continue
            full = normal(body["file"])
            inside = relative(gate.directory, full) if full is not None else None
            if full is None or not inside:
                gate.refuse(path, f"the host's file {str(body['file'])[:200]}")
            elif plain_in_tree(gate, path, inside, wanted=("file",)):
                body["file"] = full
                found.append(
                    HostPath(path=path, full=full, inside=inside, what="file", writable=False, holder=body, key="file")
                )
    return found


def _said(one: HostPath) -> str:
    """A path as its repository would write it; one of the host as it is."""
    if one.inside is None:
        return one.full
    return f"./{one.inside}" if one.inside else "the whole repository"


def separate(gate: Gate, opened: list[HostPath]) -> None:
    """Keep what is opened apart from what containers write: from a copy, or by a refusal that names the pair."""
    writable = {one.full: one for one in opened if one.writable}
    holding = {holder for full in writable for holder in (full, *_parents(full))}
    for one in opened:
        above = _above(one.full, writable)
        if above is not None and one.what == "bind" and not _can_be_a_copy(gate, one):
            better = "; read-only it comes from a copy, a named volume is another way" if one.inside else ""
            gate.refuse(
                one.path,
                f"what a link leads to that a container puts there: {_said(one)} lies beneath {_said(above)}, "
                f"which {format_path(above.path)} lets a container write{better}",
            )
            continue
        written = one.what == "context" and (one.area or one.full) in holding
        if one.inside is not None and (above is not None or written):
            if gate.kind(one.inside) != "missing":  # else the engine makes a directory there
                gate.copies.add(one.inside)
            copied = f"{gate.pristine}/{one.inside}" if one.inside else gate.pristine
            one.holder[one.key] = copied
            above = _above(copied, writable) or writable.get(copied)
            if above is not None:
                gate.refuse(
                    one.path, f"what a container puts there: {format_path(above.path)} holds the sandbox's own files"
                )
            if one.what == "bind":
                alone = ", and what is written by it stays in a copy" if one.writable else ""
                gate.note(
                    f"{format_path(one.path)}: services see {one.inside} as it was sent, not what a container writes "
                    f"there{alone}"
                )
    gate.copies = set(topmost(gate.copies))


def _can_be_a_copy(gate: Gate, one: HostPath) -> bool:
    """A single file too where it is writable: no link can be put into a file, and people seldom write `:ro`."""
    return one.inside is not None and (not one.writable or gate.kind(one.inside) == "file")


def _above(full: str, writable: dict[str, HostPath]) -> HostPath | None:
    """The writable bind that strictly holds `full`."""
    return next((writable[parent] for parent in _parents(full) if parent in writable), None)


def _parents(full: str) -> Iterator[str]:
    while full != "/":
        full = full.rpartition("/")[0] or "/"
        yield full


def topmost(paths: Iterable[str]) -> list[str]:
    """The paths, relative to one place, without those that lie below another one of them."""
    found = set(paths)
    return sorted(
        path for path in found if not path or found.isdisjoint(one.lstrip("/") for one in _parents(f"/{path}"))
    )
