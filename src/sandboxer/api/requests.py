"""Parse the bodies and queries of requests. A key that is not known, or a value of another type, is 422."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, LiteralString

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from sandboxer.errors import Invalid
from sandboxer.extensions.base import Exec
from sandboxer.manager.snapshots.restore import RestoreRequest
from sandboxer.manager.tokens import TokenRequest
from sandboxer.models import Request
from sandboxer.state import State
from sandboxer.timing import MAX_SECONDS, parse_duration

MAX_EXEC_SECONDS = 3600
DEFAULT_EXEC_SECONDS = 60
MAX_LEASE_SECONDS = 86400
"""A lease keeps a sandbox from being idle; who still needs it renews it."""
DEFAULT_LEASE_SECONDS = 300

Whole = Annotated[int, Field(ge=1, le=MAX_SECONDS)]
Written = Annotated[
    str, Field(min_length=1, max_length=40, pattern=r"^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s?)?$")
]


def _worded(words: LiteralString) -> WrapValidator:
    """One complaint about a value that may be of several types, instead of one for each type."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise PydanticCustomError("worded", words) from None

    return WrapValidator(checked)


Duration = Annotated[
    Whole | Written,
    Field(description="`90s`, `30m`, `2h`, `7d`, `1h30m`, or a number of seconds", examples=["2h", 90]),
    _worded("Input should be like 90s, 30m, 2h, 7d or 1h30m, or a whole number of seconds above 0"),
]
Text = Annotated[str, Field(max_length=4096)]


class RequestBody(BaseModel):
    """A request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConsumerBody(RequestBody):
    """Who asks."""

    actor: Literal["adm", "agt", "atm"]
    name: Annotated[str, Field(min_length=1, max_length=128, examples=["builder"])]


class ExplainBody(RequestBody):
    """What one would like to have. Everything is optional: without a profile it is the configured default."""

    profile: Annotated[str | None, Field(max_length=80, examples=["profile.native"])] = None
    inputs: dict[str, Annotated[str | int | bool, _worded("Input should be text, a whole number, true or false")]] = {}
    ttl: Duration | None = None
    consumer: Annotated[
        Annotated[str | ConsumerBody, _worded("Input should be like agt:NAME, or an object of `actor` and `name`")]
        | None,
        Field(description="`agt:NAME`, or the same in parts", examples=["agt:builder"]),
    ] = None
    host: Annotated[
        str | None, Field(max_length=253, description="`local`, or a host of the server's configuration")
    ] = None

    def request(self, *, default_profile: str) -> Request:
        """The request as the manager takes it."""
        return Request(
            profile=default_profile if self.profile is None else self.profile,
            inputs=dict(self.inputs),
            host=self.host,
            ttl=None if self.ttl is None else parse_duration(self.ttl, what="ttl"),
        )

    @property
    def actor(self) -> str | None:
        """Who asks, as `agt:NAME`."""
        if isinstance(self.consumer, ConsumerBody):
            return f"{self.consumer.actor}:{self.consumer.name}"
        return self.consumer


class CreateBody(ExplainBody):
    """What to establish. Everything is optional: without a profile it is the configured default."""

    name: Annotated[str | None, Field(max_length=63)] = None
    labels: dict[str, str] = {}

    def request(self, *, default_profile: str) -> Request:
        """The request as the manager takes it."""
        asked = super().request(default_profile=default_profile)
        return msgspec.structs.replace(asked, name=self.name, labels=dict(self.labels))


class SnapshotBody(RequestBody):
    """What a snapshot is called."""

    name: Annotated[str | None, Field(max_length=63)] = None


class RestoreBody(RequestBody):
    """What the new sandbox shall be; what is left out is as it was with the first one, but for the name."""

    ttl: Duration | None = None
    host: Annotated[
        str | None, Field(max_length=253, description="`local`, or a host of the server's configuration")
    ] = None
    name: Annotated[str | None, Field(max_length=63)] = None
    labels: dict[str, str] | None = None
    inputs: Annotated[
        dict[str, Annotated[str | int | bool, _worded("Input should be text, a whole number, true or false")]],
        Field(description="laid over those of the first sandbox; secret ones are not kept"),
    ] = {}

    @property
    def asked(self) -> RestoreRequest:
        """The same as the manager takes it."""
        return RestoreRequest(
            host=self.host,
            ttl=None if self.ttl is None else parse_duration(self.ttl, what="ttl"),
            name=self.name,
            labels=self.labels,
            inputs=dict(self.inputs),
        )


class SnapshotQuery(BaseModel):
    """Which snapshots to list, and from where on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sandbox: Annotated[str | None, Field(max_length=63, description="only of this sandbox, by its whole id")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str | None, Field(max_length=200, description="`next_cursor` of the page before")] = None


class ListQuery(BaseModel):
    """Which sandboxes to list, and from where on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Annotated[list[State], Field(description="only in one of these states")] = []
    profile: Annotated[str | None, Field(max_length=80)] = None
    label: Annotated[
        list[Annotated[str, Field(pattern="^[^=]+=")]], Field(description="`KEY=VALUE`; all of them must fit")
    ] = []
    all: Annotated[bool, Field(description="also the sandboxes that have ended")] = False
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str | None, Field(max_length=200, description="`next_cursor` of the page before")] = None


class ExtendBody(RequestBody):
    """How much longer."""

    duration: Duration


class SetTtlBody(RequestBody):
    """How much longer from now on, whatever was agreed before."""

    ttl: Duration


class RenameBody(RequestBody):
    """What a sandbox shall be called."""

    name: Annotated[str, Field(min_length=1, max_length=63, examples=["web"])]


class LabelsBody(RequestBody):
    """Labels to set; one that is null is taken away, and those that are not named stay."""

    labels: Annotated[dict[str, str | None], Field(min_length=1, examples=[{"team": "blue", "old": None}])]


class ExecBody(RequestBody):
    """A command to run inside. It ends at the latest after `timeout`, whether or not the client still waits."""

    argv: Annotated[list[str], Field(min_length=1, max_length=10_000, examples=[["uname", "-a"]])]
    cwd: Text | None = None
    env: dict[str, str] = {}
    service: Annotated[str | None, Field(max_length=128)] = None
    timeout: Annotated[Duration, Field(description="at most 1h; default 60s")] = DEFAULT_EXEC_SECONDS
    stdin: Annotated[str | None, Field(description="the input, as text")] = None
    stdin_base64: Annotated[str | None, Field(description="the input, as base64; instead of `stdin`")] = None

    @property
    def command(self) -> Exec:
        """The command as the manager takes it."""
        return Exec(argv=tuple(self.argv), service=self.service, cwd=self.cwd, env=dict(self.env))

    @property
    def seconds(self) -> int:
        """The time limit; raises Invalid."""
        return _at_most(self.timeout, MAX_EXEC_SECONDS, what="timeout")

    @property
    def input(self) -> bytes:
        """The bytes for the command's stdin; raises Invalid."""
        if self.stdin is not None and self.stdin_base64 is not None:
            raise Invalid("stdin and stdin_base64 are both given", hint="give one of them")
        if self.stdin_base64 is None:
            return (self.stdin or "").encode()
        try:
            return base64.b64decode(self.stdin_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Invalid("stdin_base64 is not base64", hint="encode the bytes with the standard alphabet") from error


class LeaseBody(RequestBody):
    """A lease to be had: as long as it lasts, the sandbox is `active` and not idle. Its TTL ends it all the same."""

    holder: Annotated[str, Field(min_length=1, max_length=128, examples=["build 17"])] = "api"
    duration: Annotated[Duration, Field(description="at most 24h; default 5m")] = DEFAULT_LEASE_SECONDS

    @property
    def seconds(self) -> int:
        """How long it lasts; raises Invalid."""
        return _at_most(self.duration, MAX_LEASE_SECONDS, what="duration")


class RenewBody(RequestBody):
    """How long a lease shall last from now on."""

    duration: Annotated[Duration, Field(description="at most 24h; default 5m")] = DEFAULT_LEASE_SECONDS

    @property
    def seconds(self) -> int:
        """How long it lasts; raises Invalid."""
        return _at_most(self.duration, MAX_LEASE_SECONDS, what="duration")


class TokenBody(RequestBody):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    role: Literal["read", "use", "admin"]
    consumer: Annotated[str | None, Field(max_length=140, description="`agt:NAME`; needed for read and use")] = None
    profiles: Annotated[list[str], Field(max_length=100, description="the only ones it is for; none: all")] = []
    budget: Annotated[str | None, Field(max_length=40, description="US dollars")] = None
    ttl: Duration | None = None

    @property
    def wanted(self) -> TokenRequest:
        """The token as the manager makes it."""
        return TokenRequest(
            name=self.name,
            role=self.role,
            consumer=self.consumer,
            profiles=tuple(self.profiles),
            budget=self.budget,
            ttl=None if self.ttl is None else parse_duration(self.ttl, what="ttl"),
        )


class ExpireBody(RequestBody):
    """A dry run, unless `apply`."""

    apply: bool = False


class ReconcileBody(RequestBody):
    """A dry run, unless `apply`. `force`: also when it would remove more than a fifth of what is known."""

    apply: bool = False
    force: bool = False


class ReapStaleBody(RequestBody):
    """A dry run, unless `apply`. `force`: also more than a fifth of what is known. `install`: of another one."""

    apply: bool = False
    force: bool = False
    install: str | None = None


def _at_most(duration: int | str, limit: int, *, what: str) -> int:
    seconds = parse_duration(duration, what=what)
    if seconds > limit:
        raise Invalid(f"{what} {seconds}s is too long", hint=f"give at most {limit}s")
    return seconds
