"""Profiles and manifests: built in, or the user's own, which replace a built-in with the same id."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

from sandboxer.config.paths import Paths, data_files
from sandboxer.config.prices import check_amount, check_prices
from sandboxer.config.yaml_document import load, with_line
from sandboxer.errors import Invalid, NotFound
from sandboxer.models import InputSpec, Manifest, Profile
from sandboxer.models.references import check_references
from sandboxer.names import HOST
from sandboxer.timing import parse_duration

PROFILE_ID = re.compile(r"profile\.[a-z0-9][a-z0-9._-]{0,62}")
EXTENSION_ID = re.compile(r"ext\.[a-z0-9][a-z0-9._-]{0,62}")
VERSION = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}([.+-][A-Za-z0-9.+-]{1,40})?")
CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
INPUT = re.compile(r"[a-z][a-z0-9_]{0,62}")

T = TypeVar("T", Profile, Manifest)


Stamp = tuple[int, int, int] | None
"""What tells one version of a file or directory from another without reading it; None when it is not there."""

_SETTLED_NS = 2_000_000_000
"""What changed less than so long ago (clocks of file systems tick in milliseconds) may change again unseen."""


class Catalog(Generic[T]):
    """The documents of one kind. Reading one by id opens one file when the file is called after the id."""

    def __init__(self, kind: str, model: type[T], directories: tuple[Path, ...]) -> None:
        self._kind = kind
        self._model: type[T] = model
        self._directories = directories
        self._read: dict[Path, tuple[Stamp, T]] = {}
        self._found: dict[str, tuple[dict[str, Stamp], T]] = {}  # by id, with all that the search has looked at

    def get(self, document_id: str) -> T:
        """The document with this id; raises NotFound, or Invalid when its file is wrong. It is not searched for again
        while nothing has changed: one create asks for the manifest of each candidate several times."""
        known = self._found.get(document_id)
        if known is not None and all(_stamp(path) == stamp for path, stamp in known[0].items()):
            return known[1]
        self._found.pop(document_id, None)
        looked_at: dict[str, Stamp] = {}
        document = self._search(document_id, looked_at)
        latest = time.time_ns() - _SETTLED_NS
        if all(stamp is None or stamp[2] < latest for stamp in looked_at.values()):
            self._found[document_id] = (looked_at, document)
        return document

    def _search(self, document_id: str, looked_at: dict[str, Stamp]) -> T:
        """Look for a document, noting each path that had a say in what is found, as it was before it was read."""
        pattern = PROFILE_ID if self._kind == "profile" else EXTENSION_ID
        if not pattern.fullmatch(document_id):
            raise NotFound(f"no {self._kind} {document_id[:80]!r}", hint=f"run `sandboxer {self._kind}s list`")
        for directory in self._directories:
            file = directory / f"{document_id}.yaml"
            looked_at[str(file)] = stamp = _stamp(str(file))
            if stamp is not None and file.is_file():
                found = self._as_of(stamp, file)
                if found.id == document_id:
                    return found
            looked_at[str(directory)] = _stamp(str(directory))
            for other in _yaml_files(directory):
                looked_at[str(other)] = _stamp(str(other))
                if other != file and self._mentions(other, document_id) and self.read(other).id == document_id:
                    return self.read(other)
        raise NotFound(f"no {self._kind} {document_id!r}", hint=f"run `sandboxer {self._kind}s list`")

    def all(self) -> list[tuple[T, Path]]:
        """Every document with its file, sorted by id; the user's come first and hide built-in ones."""
        found: dict[str, tuple[T, Path]] = {}
        for directory in self._directories:
            here: dict[str, Path] = {}
            for file in _yaml_files(directory):
                document = self.read(file)
                if document.id in here:
                    raise Invalid(
                        f"{file} and {here[document.id]} both define {document.id}", hint="remove or rename one of them"
                    )
                here[document.id] = file
                found.setdefault(document.id, (document, file))
        return [found[key] for key in sorted(found)]

    def read(self, file: Path) -> T:
        """One file, checked; raises Invalid. A file that has not changed is not parsed again."""
        stamp = _stamp(str(file))
        return self._parsed(file) if stamp is None else self._as_of(stamp, file)  # parsing says what is wrong

    def _as_of(self, stamp: Stamp, file: Path) -> T:
        known = self._read.get(file)
        if known is not None and known[0] == stamp:
            return known[1]
        document = self._parsed(file)
        self._read[file] = (stamp, document)
        return document

    def _parsed(self, file: Path) -> T:
        document = load(file, self._model)
        try:
            if isinstance(document, Profile):
                check_profile(document, str(file))
            else:
                check_manifest(document, str(file))
        except Invalid as error:
            raise with_line(error, file, source=str(file)) from None
        return document

    def file_of(self, document: T) -> Path | None:
        """The file that this very document was read from."""
        return next((file for file, (_, found) in self._read.items() if found is document), None)

    def _mentions(self, file: Path, document_id: str) -> bool:
        """A cheap look, so that a broken file of another document does not stop this one."""
        try:
            return document_id in file.read_text("utf-8", "replace")
        except OSError:
            return False


def shelves(paths: Paths) -> tuple[Catalog[Profile], Catalog[Manifest]]:
    """The profiles and the manifests of this installation."""
    return (
        Catalog("profile", Profile, (paths.config / "profiles", data_files("profiles"))),
        Catalog("extension", Manifest, (paths.config / "extensions", data_files("extensions"))),
    )


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116 - many a create, and a Path takes as long to make
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _yaml_files(directory: Path) -> Iterator[Path]:
    yield from sorted(directory.glob("*.yaml"))


def check_profile(profile: Profile, source: str) -> None:
    """What types alone cannot say of a profile. Raises Invalid naming the file and the key."""
    _match(PROFILE_ID, profile.id, source, "id", "profile.NAME")
    _match(VERSION, profile.version, source, "version", "a version like 1.0.0")
    if (profile.extension is None) == (profile.route is None):
        raise Invalid(f"{source}: give either 'extension' or 'route'", hint="exactly one of the two keys")
    names = [profile.extension] if profile.extension is not None else profile.route.candidates if profile.route else []
    if not names:
        raise Invalid(f"{source}: route.candidates is empty", hint="name at least one extension")
    for name in names:
        _match(EXTENSION_ID, name, source, "extension", "ext.NAME")
    lifetimes: dict[str, int] = {}
    for key, value in {
        "default": profile.ttl.default, "max": profile.ttl.max, "idle": profile.ttl.idle, "failed": profile.ttl.failed,
    }.items():  # fmt: skip
        if value is not None:
            lifetimes[key] = _within(source, f"ttl.{key}", value)
    if lifetimes.get("default", 0) > lifetimes.get("max", lifetimes.get("default", 0)):
        raise Invalid(f"{source}: ttl.default is longer than ttl.max", hint="make it at most ttl.max")
    if profile.ttl.idle_action == "stop" and profile.ttl.idle is None:
        raise Invalid(f"{source}: ttl.idle_action is stop, and ttl.idle is null", hint="say after how long: idle: 30m")
    for key, spec in profile.inputs.items():
        _match(INPUT, key, source, f"inputs.{key}", "a name of a-z, 0-9 and '_'")
        _check_input(key, spec, f"{source}: inputs.{key}")
    for host in profile.placement.hosts:
        _match(HOST, host, source, "placement.hosts", "a host's name")
    check_references(profile.secrets, source, "secrets")
    for key, amount in {
        "max_usd": profile.require.max_usd, "max_usd_per_hour": profile.require.max_usd_per_hour,
    }.items():  # fmt: skip
        if amount is not None:
            check_amount(amount, source, f"require.{key}")


def _check_input(name: str, spec: InputSpec, what: str) -> None:
    if spec.required and spec.default is not None:
        raise Invalid(f"{what} is required and has a default", hint="remove one of the two")
    if spec.choices is not None and spec.type == "bool":
        raise Invalid(f"{what}.choices is not for what is true or false", hint="remove it")
    for given, key in [(spec.default, "default"), *((choice, "choices") for choice in spec.choices or [])]:
        if given is None:
            continue
        try:
            typed = _typed(name, spec.type, given, Path("/"))
        except Invalid as error:
            raise Invalid(f"{what}.{key}: {error.message}", hint=error.hint) from None
        if spec.choices is not None and str(typed) not in spec.choices:
            raise Invalid(f"{what}.{key} is not one of the choices", hint=f"choose one of {', '.join(spec.choices)}")


def check_manifest(manifest: Manifest, source: str) -> None:
    """What types alone cannot say of a manifest. Raises Invalid."""
    _match(EXTENSION_ID, manifest.id, source, "id", "ext.NAME")
    _match(VERSION, manifest.version, source, "version", "a version like 1.0.0")
    _match(CLASS, manifest.class_, source, "class", "package.module:Class")
    check_references(manifest.secrets, source, "secrets")
    check_prices(manifest.prices, source, "prices")
    if manifest.max_ttl is not None:
        _within(source, "max_ttl", manifest.max_ttl)


def _within(source: str, key: str, value: str | int) -> int:
    try:
        return parse_duration(value, what=key)
    except Invalid as error:
        raise Invalid(f"{source}: {error.message}", hint=error.hint) from None


def _match(pattern: re.Pattern[str], value: str, source: str, key: str, wanted: str) -> None:
    if not pattern.fullmatch(value):
        raise Invalid(f"{source}: {key} {value[:80]!r} is not {wanted}", hint=f"write {key} as {wanted}")


MAX_INPUTS: Final = 64 * 1024
"""How long the texts of a request's inputs may be together, in bytes: a record keeps them, and is written with all
others at every change."""
_INT: Final = 10**18
"""A whole number has up to 18 digits, given as a number or as text."""


class UnresolvedPath(Invalid):
    """A path input that this machine cannot follow. It says why, which tells of the machine."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"input {name!r} is not a path that can be found: {error}", hint="write it whole")
        self.name = name


def resolve_inputs(profile: Profile, given: Mapping[str, object], *, base: Path) -> dict[str, object]:
    """The inputs of a request, typed and complete. `base` is where relative paths start. Raises Invalid."""
    unknown = sorted(set(given) - set(profile.inputs))
    if unknown:
        known = ", ".join(profile.inputs) or "none"
        raise Invalid(f"{profile.id} has no input {unknown[0][:80]!r}", hint=f"its inputs: {known}")
    values: dict[str, object] = {}
    for name, spec in profile.inputs.items():
        value = given.get(name, spec.default)
        if value is None:
            if spec.required:
                raise Invalid(
                    f"{profile.id} needs the input {name!r}" + (f" ({spec.description})" if spec.description else ""),
                    hint=f"add --input {name}=...",
                )
            continue
        values[name] = _typed(name, spec.type, value, base)
        if spec.choices is not None and str(values[name]) not in spec.choices:
            raise Invalid(f"input {name!r} is {value!r:.80}", hint=f"choose one of {', '.join(spec.choices)}")
    size = sum(len(value.encode("utf-8", "replace")) for value in values.values() if isinstance(value, str))
    if size > MAX_INPUTS:
        raise Invalid(
            f"the inputs are {size} bytes, over the limit of {MAX_INPUTS}", hint="copy it in with `cp` instead"
        )
    return values


def _typed(name: str, kind: str, value: object, base: Path) -> object:
    text = value if isinstance(value, str) else None
    if text is not None and "\x00" in text:
        raise Invalid(f"input {name!r} has a NUL character", hint="remove it")
    if kind == "int":
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT:
            return value
        if text is not None and re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
            return int(text)
        raise Invalid(
            f"input {name!r} is not a whole number: {value!r:.80}", hint=f"write {name}=5; it has at most 18 digits"
        )
    if kind == "bool":
        if isinstance(value, bool):
            return value
        if text in ("true", "false"):
            return text == "true"
        raise Invalid(f"input {name!r} is neither true nor false: {value!r:.80}", hint=f"write {name}=true")
    if text is None:
        raise Invalid(f"input {name!r} is not text: {value!r:.80}", hint="quote it")
    if kind == "path":
        if not text:
            raise Invalid(f"input {name!r} is an empty path", hint=f"write {name}=/some/where")
        try:
            text = str((base / Path(text).expanduser()).resolve())
        except (RuntimeError, OSError) as error:  # an unknown ~user, a loop of links
            raise UnresolvedPath(name, error) from None
    if not _is_text(text):
        raise Invalid(
            f"input {name!r} is not written in UTF-8, and no record could hold it: {text!r:.200}",
            hint="rename it, or copy it to a place with another name" if kind == "path" else "write it in UTF-8",
        )
    return text


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
