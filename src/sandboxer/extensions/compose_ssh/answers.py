"""What an engine's `exec` answers: its own words and codes told apart from those of the command. Pure."""

from __future__ import annotations

import re
from typing import Final

from sandboxer.errors import Conflict
from sandboxer.hosts.base import Streams

_DOCKER: Final = b"OCI runtime exec failed: "
"""Docker tells that a command could not be started on the command's own stdout."""
_PODMAN: Final = re.compile(rb"Error: (?:runc|crun|[a-z-]+): .*(?:exec|chdir).*\n?\Z", re.S)
_GONE: Final = re.compile(
    rb"(?:Error response from daemon: .*(?:is not running|No such container|is paused)"
    rb"|Error: can only create exec sessions on running containers|Error: no container with name or ID).*\n?\Z",
    re.S,
)
_KEPT: Final = 4096


class ExecOutput:
    """Stands between an engine's client and the caller's streams."""

    def __init__(self, streams: Streams) -> None:
        self._to = streams
        self._held: bytearray | None = bytearray()
        self._complaint = bytearray()
        self.streams = Streams(stdin=streams.stdin, stdout=self._stdout, stderr=self._stderr)

    def _stdout(self, data: bytes) -> None:
        """Pass on, but hold what may be the engine's own message."""
        if self._held is None:
            self._to.stdout(data)
            return
        self._held += data
        length = min(len(self._held), len(_DOCKER))
        if self._held[:length] != _DOCKER[:length] or len(self._held) > _KEPT:
            held, self._held = bytes(self._held), None
            self._to.stdout(held)

    def _stderr(self, data: bytes) -> None:
        self._complaint += data[: max(0, _KEPT - len(self._complaint))]
        self._to.stderr(data)

    def finish(self, code: int) -> int:
        """The command's exit code: 126 when it could not be executed, 127 when it was not found. Raises Conflict when
        the container ended before the command began."""
        held = bytes(self._held or b"")
        failed = code in (126, 127)
        if held and failed and held.startswith(_DOCKER):
            self._to.stderr(held)
        elif held:
            self._to.stdout(held)
        if code in (1, 125, 255) and _GONE.match(bytes(self._complaint)):
            raise Conflict(
                f"the container is not running: {self._complaint.decode('utf-8', 'replace').strip()[:300]}",
                hint="see why with `sandboxer logs ID`",
            )
        said = held if held.startswith(_DOCKER) else bytes(self._complaint)
        if not failed or not (said.startswith(_DOCKER) or _PODMAN.match(said)):
            return code
        if b"chdir to cwd" in said:
            return 126
        missing = b"executable file not found" in said or b"no such file or directory" in said
        return 127 if missing else 126
