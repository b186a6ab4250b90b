"""Map what the programs on a host say when they fail to SandboxerError. One table; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from sandboxer.errors import BackendError, Denied, Fault, Invalid, NotConfigured, SandboxerError, Timeout, Unavailable
from sandboxer.hosts.base import Result

CONFIGURE: Final = "set `compose: {0}` for the host in config.yaml, or SANDBOXER_COMPOSE_CMD={0}"

# noise that stands before, between and behind what matters
_NOISE: Final = re.compile(
    r"DEPRECATED: The legacy builder|BuildKit is currently disabled|environment-variable\.$|Install the buildx comp"
    r"|failed to connect to syslog|level=warning|systemd connection|^Encountered errors while bringing up"
    r"|the attribute `version` is obsolete|^\s*raise \w+\(|^\s*$"
)
_PART: Final = 128 * 1024
_LONGEST_LINE: Final = 1000
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class _Known(msgspec.Struct, frozen=True):
    """One kind of failure: how it is recognised, and what it is for us."""

    says: tuple[str, ...]
    kind: type[SandboxerError]
    what: str
    hint: str
    fault: Fault | None = None
    """Another host would not help what is wrong with the repository."""


# The first that matches wins: a port that is taken also makes a service "fail to start".
_KNOWN: Final = (
    _Known(
        (
            r"all predefined address pools have been fully subnetted|non-overlapping IPv4 address pool",
            r"could not find free subnet|failed to find free subnet|no free subnet|subnet.*(?:exhausted|already used)",
        ),
        BackendError,
        "the engine has no free subnet for another network: its default address pools are used up",
        "remove networks nobody uses with `{engine} network prune` on the host, or raise the limit: "
        "`default-address-pools` in /etc/docker/daemon.json, `default_subnet_pools` in containers.conf",
    ),
    _Known(
        (r"port is already allocated|address already in use|bind for .* failed|ports are not available",),
        BackendError,
        "a port that the compose file publishes is already in use on the host",
        "use a profile with options `publish: remapped`, or free the port (`ss -ltnp` on the host shows its owner)",
    ),
    _Known(
        (r"short-name .* did not resolve|short-name resolution enforced",),
        BackendError,
        "an image has a short name, and podman does not guess the registry",
        "write the fully qualified name in the compose file, like docker.io/library/nginx:alpine",
    ),
    _Known(
        (
            r"pull access denied|manifest (?:for .* not found|unknown)|no such image|image not known|name unknown",
            r"unable to find image|failed to resolve reference|pinging container registry|initializing source",
            r"registry .* is blocked|repository does not exist|failed to pull|error pulling image",
            r"/v2/.*(?:dial tcp|proxyconnect|refused)",
        ),
        BackendError,
        "an image is not on the host and could not be pulled",
        "check the image's name, or bring it to the host (`{engine} pull`, `{engine} load`)",
    ),
    _Known(
        (r"container name .* (?:is already in use|already in use)|that name is already in use",),
        BackendError,
        "a fixed `container_name` of the compose file is taken on the host",
        "use a profile with options `publish: remapped`: then fixed names go",
    ),
    _Known(
        (
            r"Cannot connect to the Docker daemon|Is the docker daemon running|Couldn't connect to Docker daemon",
            r"Error while fetching server API version.*(?:No such file|refused)",
        ),
        Unavailable,
        "the container engine's daemon does not answer",
        "start it on the host (`systemctl start docker`), or check DOCKER_HOST in the host's `env`",
    ),
    _Known(
        (
            r"permission denied while trying to connect to the Docker|dial unix .*permission denied",
            r"Error while fetching server API version.*Permission denied",
        ),
        Denied,
        "this user may not use the container engine's socket",
        "add the user to the group `docker` on the host and log in again, or use rootless podman",
    ),
    _Known(
        (
            r"failed to build|returned a non-zero code|building at STEP|Build command failed|failed to solve",
            r"Cannot locate specified Dockerfile|Dockerfile.* no such file|unable to prepare context",
            r"Dockerfile not found in|build path .* does not exist",
        ),
        BackendError,
        "an image could not be built",
        "build it by hand in the repository to see why; its base images must be on the host or in a registry",
        "caller",
    ),
    _Known(
        (
            r"The Compose file .*is invalid|unsupported Compose file version|Additional propert|validating |yaml: ",
            r"Unsupported config option|required variable|Missing mandatory value|invalid interpolation|ScannerError",
            r"undefined (?:network|volume|service)|missing networks|not defined in top level|depends on undefined",
            r"ValueError: |KeyError: |RuntimeError: |invalid (?:spec|project|compose project)|contains an invalid type",
            r"env file .* (?:not found|does not exist)|Couldn't find env file|Invalid 'extends' configuration",
            r"In file '.*', \w+ must be",
        ),
        Invalid,
        "the compose file is refused",
        "check it with `docker compose config` or `podman-compose config` in the repository",
    ),
    _Known(
        (
            r"(?:network|volume) .* declared as external, but could not be found",
            r"External (?:network|volume) .* does not exist",
            r"external (?:network|volume) .* not found",
        ),
        BackendError,
        "the compose file wants a network or volume that is not on the host",
        "make it there with `{engine} network create` or `{engine} volume create`, or drop `external` from the file",
    ),
    _Known(
        (r"No space left on device",),
        BackendError,
        "the host's disk is full",
        "free space on the host: `{engine} system df` shows what the engine holds",
    ),
)
_NO_PLUGIN: Final = re.compile(r"is not a docker command|unknown (?:docker )?command|unknown (?:shorthand )?flag", re.I)
_ABSENT: Final = re.compile(
    r"Could not find the file|could not be found on container|no such file or directory|not a directory", re.I
)
_READ_ONLY: Final = re.compile(r"marked read-only|read-only file system", re.I)
_VANISHED: Final = re.compile(r"no such (?:container|object)|no container with name or ID", re.I)
_COMPILED: Final = tuple((re.compile("|".join(known.says), re.I), known) for known in _KNOWN)


def tail(text: str, *, lines: int = 6) -> str:
    """The last lines that say something."""
    told = [line.strip() for line in _COLOUR.sub("", text).splitlines() if not _NOISE.search(line)]
    return "\n".join(dict.fromkeys(line[:400] for line in told[-lines:]))


def translate(result: Result, *, doing: str, engine: str) -> SandboxerError:
    """The error for a program that ended badly while `doing`."""
    said = _measured(result.stderr if result.stderr.strip() else result.stdout)
    kept = tail(said)
    for pattern, known in _COMPILED:
        if pattern.search(said):
            line = next((line for line in kept.splitlines() if pattern.search(line) and line[-1:] != ":"), kept)
            message = f"{known.what}: {line}" if line else known.what
            return known.kind(message, hint=known.hint.format(engine=engine), fault=known.fault)
    shown = kept or f"exit code {result.code}, without a word"
    return BackendError(f"{doing} failed: {shown}", hint="run the same command on the host to see more")


def _measured(said: bytes) -> str:
    """The beginning and the end of what a program said, in lines that are not too long. A build prints what the
    repository wants, and each of our patterns looks from each of its beginnings to the end of the line."""
    if len(said) > 2 * _PART:
        said = said[:_PART] + b"\n" + said[-_PART:]
    return "\n".join(line[:_LONGEST_LINE] for line in said.decode("utf-8", "replace").splitlines())


def raise_if_shut_out(result: Result, engine: str) -> None:
    """Raise Unavailable, Denied or NotConfigured where the engine did not let a teardown look at anything."""
    if result.code == 6:
        raise missing_program(engine, [])
    error = translate(result, doing="listing what is left", engine=engine)
    if isinstance(error, Unavailable | Denied):
        error.outcome = "unknown"
        raise error


def no_plugin(result: Result) -> bool:
    """Whether the engine's program does not know the command `compose`."""
    return bool(_NO_PLUGIN.search(result.stderr.decode("utf-8", "replace")))


@contextmanager
def explain_timeout(doing: str, *, engine: str, host: str) -> Iterator[None]:
    """Let a time-out inside say what took so long, rather than which shell."""
    try:
        yield
    except Timeout as error:
        hint = f"does `{engine} ps` answer on the host? If so, give it longer with --timeout"
        raise error.reworded(f"{doing} did not end in time on {host}", hint=hint) from error


def says_absent(result: Result) -> bool:
    """Whether `cp` failed because there is no such path inside."""
    return bool(_ABSENT.search(result.stderr.decode("utf-8", "replace")))


def read_only(result: Result) -> bool:
    """Whether `cp` failed because nothing can be written there."""
    return bool(_READ_ONLY.search(result.stderr.decode("utf-8", "replace")))


def socket(result: Result) -> bool:
    """Whether `cp` failed because a socket is at the path itself."""
    return b"sockets not supported" in result.stderr


def says_vanished(result: Result) -> bool:
    """Whether a container went away between two steps of one look."""
    return bool(_VANISHED.search(result.stderr.decode("utf-8", "replace")))


def missing_program(words: str, others: list[str]) -> NotConfigured:
    """A program that is not on the host; `others` are those that are."""
    front = next((name for name in ("podman-compose", "docker-compose") if name in others), None)
    if front and front != words:
        return NotConfigured(f"{words!r} is not on the host, but {front} is", hint=CONFIGURE.format(front))
    return NotConfigured(
        f"{words!r} is not on the host",
        hint="install docker with its compose plug-in, or podman and podman-compose, on the host; then "
        + CONFIGURE.format("podman-compose"),
    )
