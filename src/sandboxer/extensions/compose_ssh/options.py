"""What a profile may say to ext.compose-ssh, and what the extension remembers of one sandbox."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from sandboxer.errors import Invalid
from sandboxer.extensions.base import from_handle as read_handle
from sandboxer.extensions.compose_ssh.policy import Grants
from sandboxer.models import Handle, Value, Written
from sandboxer.names import check_env_name

Publish = Literal["declared", "remapped", "none"]
Policy = Literal["contained", "trusted"]
EXTENSION_ID: Final = "ext.compose-ssh"
HANDLE_VERSION: Final = 1


class ComposeOptions(Written, frozen=True, kw_only=True):
    """Options of ext.compose-ssh.

    `publish`: ports as the file declares them, remapped to free loopback ports (then many sandboxes of one repository
    fit on a host), or none. `settle`: seconds for which a service must stay up before it counts as ready.
    `main_service`: where `exec` goes without `--service`. `include_git`: send `.git` too. `gitignore`: leave out what
    the repository's .gitignore files leave out. `policy`: `contained` takes only what docs/compose-policy.md lists, and
    what `grants` adds to it; `trusted` takes the repository's file at its word. `env`: variables for the file.
    """

    publish: Publish = "remapped"
    settle: Annotated[float, msgspec.Meta(ge=0, le=600)] = 2.0
    main_service: str | None = None
    include_git: bool = False
    gitignore: bool = False
    policy: Policy = "contained"
    grants: list[str] = []
    env: dict[str, str] = {}

    def __post_init__(self) -> None:
        try:
            Grants.parse(self.grants)
            for name in self.env:
                check_env_name(name)
        except Invalid as error:
            raise ValueError(f"{error.message}: {error.hint}") from None


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


def to_handle(remembered: ComposeHandleData) -> Handle:
    """The handle that the core keeps."""
    return Handle(version=HANDLE_VERSION, data=msgspec.to_builtins(remembered))


def from_handle(handle: Handle) -> ComposeHandleData:
    """What was remembered. Raises Conflict for a handle of another version."""
    return read_handle(handle, ComposeHandleData, version=HANDLE_VERSION)
