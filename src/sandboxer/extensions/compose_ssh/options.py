"""Read what a profile and a host's settings may say to ext.compose-ssh."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

import msgspec

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.policy import Grants
from sandboxer.models import Written
from sandboxer.names import check_env_name

Publish = Literal["declared", "remapped", "none"]
Policy = Literal["contained", "trusted"]
EXTENSION_ID: Final = "ext.compose-ssh"
DEFAULT_COMPOSE: Final = "docker compose"


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


class ComposeCommand(msgspec.Struct, frozen=True):
    """A compose front end: the words that start it, and the engine's program that it works with."""

    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """Its program's name without the directory: docker, docker-compose, podman-compose or podman."""
        return PurePosixPath(self.words[0]).name

    @property
    def podman(self) -> bool:
        """Whether it is podman that it works with."""
        return self.program.startswith("podman")

    @property
    def engine(self) -> str:
        """The engine's own program: `docker` at the same path where it is `docker compose`, else found by PATH."""
        if self.program in ("docker", "podman"):
            return self.words[0]
        return "podman" if self.podman else "docker"

    @property
    def plugin_check(self) -> list[str]:
        """The words that show that a plug-in is there; nothing where the program is the front end itself (then its
        being found is enough: starting version 1 only to ask costs half a second)."""
        return [*self.words, "version"] if len(self.words) > 1 else []


def parse_compose_command(setting: str | None) -> ComposeCommand:
    """The front end in a host's `compose` setting; raises Invalid."""
    try:
        words = tuple(shlex.split(setting or DEFAULT_COMPOSE))
    except ValueError as error:
        raise Invalid(
            f"the compose command {setting!r} cannot be read: {error}", hint="write it like podman-compose"
        ) from None
    if not words or words[0].startswith("-") or "\0" in "".join(words):
        raise Invalid(f"the compose command {setting!r} names no program", hint="write it like podman-compose")
    return ComposeCommand(words)
