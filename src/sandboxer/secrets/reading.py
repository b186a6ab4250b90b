"""From a reference to its value."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from sandboxer.errors import BackendError, NotConfigured, SandboxerError, Timeout
from sandboxer.models import OpenBaoSettings, SecretRef
from sandboxer.models.references import (
    CommandReference,
    EnvReference,
    FileReference,
    Reference,
    expand,
    parse_local_reference,
    parse_reference,
)
from sandboxer.secrets.secret import Secret

if TYPE_CHECKING:
    from sandboxer.timing import Deadline

MAX_VALUE: Final = 64 * 1024
"""The longest value, in bytes."""
COMMAND_SECONDS: Final = 30.0
"""How long a `cmd:` reference may take, within the deadline of the whole."""


def resolve(
    name: str, ref: SecretRef, environment: Mapping[str, str], *, openbao: OpenBaoSettings, deadline: Deadline
) -> Secret | None:
    """The value behind a reference, read now; None when it is optional and missing. Line breaks at its end are dropped.

    Raises NotConfigured (it is missing; the reference and what to do are named), Denied (OpenBao refuses our token or
    login), Unavailable (OpenBao does not answer or is sealed), BackendError (the command failed, or the value is not
    text), Timeout, or Invalid for what is not a reference. No error quotes a value, nor what a command said."""
    what = f"secret {name!r}"
    reference = parse_reference(ref.ref, what=what)
    try:
        return _read(reference, what, environment, openbao=openbao, deadline=deadline)
    except SandboxerError as error:
        if isinstance(error, NotConfigured) and not ref.required:
            return None
        # whatever became of the login: no sandbox was begun, and none needs to be looked for
        error.outcome, error.outcome_stated = "failed", True
        raise


def present(ref: SecretRef, environment: Mapping[str, str]) -> SandboxerError | None:
    """The error that says that a required value is certainly missing, without asking anybody; None when it may be
    there. Raises Invalid."""
    if not ref.required:
        return None
    reference = parse_reference(ref.ref, what="a secret's reference")
    if not isinstance(reference, EnvReference | FileReference):
        return None
    return missing(reference, environment)


def missing(reference: EnvReference | FileReference, environment: Mapping[str, str]) -> SandboxerError | None:
    """The error that says that a value is not there, or is no text; None when it is there."""
    try:
        _local(reference, "the secret", environment)
    except (NotConfigured, BackendError) as error:
        return error
    return None


def _read(
    reference: Reference, what: str, environment: Mapping[str, str], *, openbao: OpenBaoSettings, deadline: Deadline
) -> Secret:
    if isinstance(reference, EnvReference | FileReference):
        return _local(reference, what, environment)
    if isinstance(reference, CommandReference):
        return _by_command(reference, what, environment, deadline)
    from sandboxer.secrets.openbao import read  # most installations have none

    login = login_of(openbao, environment)
    value = read(reference, what, openbao, login=login, home=environment.get("HOME"), deadline=deadline)
    return _filled(value, what, f"write a value to the key {reference.key!r} of {reference}")


def login_of(openbao: OpenBaoSettings, environment: Mapping[str, str]) -> Secret | None:
    """The token for OpenBao, or the AppRole's secret id; None when neither is configured. Raises NotConfigured when it
    is not there."""
    role = openbao.app_role
    text = openbao.token if role is None else role.secret_id
    if text is None:
        return None
    return _local(parse_local_reference(text, what="the login to OpenBao"), "the login to OpenBao", environment)


def _local(reference: EnvReference | FileReference, what: str, environment: Mapping[str, str]) -> Secret:
    if isinstance(reference, EnvReference):
        value = environment.get(reference.variable)
        if not value:
            raise NotConfigured(
                f"{what} is not there: the environment variable {reference.variable} is not set",
                hint=f"set the environment variable {reference.variable}",
            )
        return _filled(value, what, f"set the environment variable {reference.variable}")
    path = expand(reference.path, environment.get("HOME"))
    hint = f"write the value to {path} (mode 0600)"
    return _filled(_text(_bytes(path, what, hint), what, str(reference)), what, hint)


def _bytes(path: Path, what: str, hint: str) -> bytes:
    try:
        data = _at_most(path, MAX_VALUE + 1)
    except OSError as error:
        raise NotConfigured(f"{what} is not there: {path}: {error.strerror}", hint=hint) from None
    if data is None:
        raise NotConfigured(f"{what} is not there: {path} is not a regular file", hint=hint)
    if len(data) > MAX_VALUE:
        raise NotConfigured(f"{what} is not in {path}, which has more than {MAX_VALUE} bytes", hint=hint)
    return data


def _at_most(path: Path, count: int) -> bytes | None:
    """The beginning of a regular file; None for what is something else: a pipe would be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(count)
    finally:
        os.close(descriptor)


def _by_command(reference: CommandReference, what: str, environment: Mapping[str, str], deadline: Deadline) -> Secret:
    """What the program says. What it complains of is not passed on: it may be the value."""
    from sandboxer.hosts.local import LocalHost
    from sandboxer.models import HostSettings

    program = reference.argv[0]
    hint = f"run its command by hand to see why: {program} ..."
    deadline.check(f"reading {what}")
    try:
        result = LocalHost("local", HostSettings(), environ=environment).run(
            reference.argv, deadline.shorter(COMMAND_SECONDS), limit=MAX_VALUE
        )
    except Timeout:
        raise Timeout(f"{what}: {program} did not end in time and was ended", hint=hint) from None
    except BackendError as error:
        raise BackendError(f"{what}: {error.message}", hint=hint) from None
    if result.code in (126, 127):
        _not_started(what, program, result.code)
    if result.code != 0:
        raise BackendError(f"{what}: {program} ended with {result.code}", hint=hint)
    return _filled(_text(result.stdout, what, str(reference)), what, hint)


def _not_started(what: str, program: str, code: int) -> NoReturn:
    why = "cannot be found" if code == 127 else "cannot be run"
    raise NotConfigured(f"{what} is not there: {program} {why}", hint=f"install {program}, or write its whole path")


def _text(data: bytes, what: str, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # the decoder's own error carries the bytes
        raise BackendError(f"{what}: what {where} gives is not text", hint="store it as UTF-8") from None


def _filled(value: str, what: str, hint: str) -> Secret:
    text = value.rstrip("\r\n")
    if not text.strip():
        raise NotConfigured(f"{what} is empty", hint=hint)
    return Secret(text)
