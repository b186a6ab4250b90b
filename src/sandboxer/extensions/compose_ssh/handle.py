"""Make and read the handle of a compose sandbox: what the core keeps of it."""

from __future__ import annotations

from typing import Final

import msgspec

from sandboxer.extensions.base import Context
from sandboxer.extensions.base import from_handle as read_handle
from sandboxer.extensions.compose_ssh.options import parse_compose_command
from sandboxer.models import Handle, Value
from sandboxer.names import resource_name

HANDLE_VERSION: Final = 1


class ComposeHandleData(Value, frozen=True, kw_only=True):
    """The inside of a handle. `compose` are the words that made the sandbox: the ones that also take it away.

    `directory` holds the repository; `state` is a directory of ours that no build context or bind mount of the
    repository contains. `project` is the directory where compose programs run: an empty one of ours, or, for a file
    that was not resolved, the one where it lies. `services` maps the services that have to come up to how many
    containers each must have at least. `sha256` is that of the compose file which was judged and is the only one that
    is used; "" for one that was not. `notes` tell what was granted.
    """

    sandbox_id: str
    name: str
    directory: str
    state: str
    project: str
    compose: list[str]
    services: dict[str, int] = {}
    main: str | None = None
    settle: float = 2.0
    labels: dict[str, str] = {}
    sha256: str = ""
    notes: list[str] = []

    @property
    def pristine(self) -> str:
        """Where copies of the repository lie that no container writes."""
        return pristine_directory(self.state)


def pristine_directory(state: str) -> str:
    """Where, beside what is kept in `state`, copies of the repository lie."""
    return f"{state}/source"


def to_handle(data: ComposeHandleData) -> Handle:
    """The handle that the core keeps."""
    return Handle(version=HANDLE_VERSION, data=msgspec.to_builtins(data))


def from_handle(handle: Handle) -> ComposeHandleData:
    """Read what a handle holds. Raises Conflict for a handle of another version."""
    return read_handle(handle, ComposeHandleData, version=HANDLE_VERSION)


def state_directory(work_dir: str, resource: str) -> str:
    """Where what we keep of a sandbox lies."""
    return f"{work_dir}/.sandboxer/{resource}"


def handle_data_from_id(sandbox_id: str, ctx: Context) -> ComposeHandleData:
    """What the id alone tells."""
    work_dir, name = ctx.host.work_dir(ctx.deadline), resource_name(sandbox_id)
    return ComposeHandleData(
        sandbox_id=sandbox_id,
        name=name,
        directory=f"{work_dir}/{name}",
        state=state_directory(work_dir, name),
        project=f"{work_dir}/{name}",
        compose=list(parse_compose_command(ctx.host.compose).words),
    )
