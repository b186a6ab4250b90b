"""Open path inputs and hold them: judged when they are opened, and what was opened is what an extension gets."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.errors import Denied, Invalid, SandboxerError
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.beneath import LinkOnPath, PinnedPath
from sandboxer.manager.services import Progress
from sandboxer.models import Profile


class OpenedInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs as an extension gets them, and the names by which people know the paths among them."""

    values: Mapping[str, Any]
    names: Mapping[str, str]

    def named(self, text: str) -> str:
        """A text of an extension in the names that people know."""
        for path in sorted(self.names, key=len, reverse=True):
            text = text.replace(path, self.names[path])
        return text

    def progress(self, progress: Progress) -> Progress:
        """Progress told in those names."""
        if not self.names:
            return progress
        return lambda phase, text: progress(phase, self.named(text))


@contextmanager
def opened_inputs(profile: Profile, inputs: Mapping[str, Any], roots: Sequence[str] | None) -> Iterator[OpenedInputs]:
    """Open each path input once, without a link (they were followed when the request was read): with `roots` beneath
    one of them, else anywhere. What is not there is handed on as a path at which nothing can ever be.

    Errors raised inside speak of the names. Raises Denied, Invalid."""
    opened: list[PinnedPath] = []
    values, names = dict(inputs), {}
    try:
        for name, spec in profile.inputs.items():
            value = inputs.get(name)
            if spec.type != "path" or not isinstance(value, str):
                continue
            one = _opened(name, value, roots)
            opened += [one] if isinstance(one, PinnedPath) else []
            path = one.path if isinstance(one, PinnedPath) else one
            values[name] = path
            if path != value:
                names[path] = value
        found = OpenedInputs(values=values, names=names)
        try:
            yield found
        except SandboxerError as error:
            _speak(error, found.named)
            raise
    finally:
        for one in opened:
            one.close()


def _opened(name: str, value: str, roots: Sequence[str] | None) -> PinnedPath | str:
    path = Path(value)
    try:
        fd = beneath.open_beneath(Path("/"), path) if roots is None else _beneath_one(name, path, roots)
    except LinkOnPath as error:
        raise Denied(
            f"input {name!r}: {value} leads through a link that was not there when the request was read",
            hint="name the place itself, and let nobody else write there meanwhile",
        ) from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        if roots is None:
            return value  # the caller's own: the extension says what is wrong with it
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Invalid(f"input {name!r}: {value} cannot be read", hint="make it readable for the server") from error
        return beneath.absent(value)
    loose = stat.S_ISDIR(os.fstat(fd).st_mode) and roots is None and beneath.others_write_below(fd)
    return PinnedPath(fd, value, strict=roots is not None or loose)


def _beneath_one(name: str, path: Path, roots: Sequence[str]) -> int:
    for text in roots:
        root = Path(text).expanduser().resolve()
        if path.is_relative_to(root):
            return beneath.open_beneath(root, path)
    raise outside_roots(name)


def outside_roots(name: str) -> Denied:
    """The refusal of a path input that is in no allowed directory."""
    return Denied(
        f"input {name!r} is not below an allowed directory",
        hint="the operator lists directories in config.yaml under api.allowed_roots",
    )


def _speak(error: SandboxerError, named: Callable[[str], str]) -> None:
    error.message, error.hint = named(error.message), named(error.hint)
    error.args = (error.message,)
