"""Read the log of a sandbox's entry point; of one that does not come up, what its build wrote."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import NotFound
from sandboxer.extensions.daytona.client import DaytonaClient, sleep
from sandboxer.extensions.daytona.errors import api_error
from sandboxer.extensions.daytona.sandbox import DaytonaSandbox
from sandboxer.hosts.base import Streams
from sandboxer.http import Response, segment
from sandboxer.timing import Deadline

FOLLOW_SECONDS: Final = 1.0
_OUT: Final = b"\x01\x01\x01"
_ERR: Final = b"\x02\x02\x02"
_MARKS: Final = re.compile(rb"(\x01\x01\x01|\x02\x02\x02)")
"""What marks whose bytes follow, where both outputs come as one text."""
_BUILDING: Final = frozenset({"pending_build", "building_snapshot", "pulling_snapshot", "build_failed", "error"})

LogStreams = tuple[bytes, bytes]


def show(
    cloud: DaytonaClient, name: str, streams: Streams, deadline: Deadline, *, follow: bool, tail: int | None
) -> None:
    """Write the logs; `tail` counts lines of each output. Raises NotFound when there is no such sandbox."""
    shown = (b"", b"")
    first = True
    while True:
        found = cloud.sandbox(name, deadline)
        if found is None or found.phase == "gone":
            raise NotFound(f"{name} is gone from Daytona", hint="run `sandboxer reconcile`")
        now = _written(cloud, found, deadline)
        fresh = (
            (_last(now[0], tail), _last(now[1], tail))
            if first
            else (_since(now[0], shown[0]), _since(now[1], shown[1]))
        )
        if fresh[0]:
            streams.stdout(fresh[0])
        if fresh[1]:
            streams.stderr(fresh[1])
        shown, first = now, False
        if not follow:
            return
        sleep(FOLLOW_SECONDS, deadline)


def _written(cloud: DaytonaClient, found: DaytonaSandbox, deadline: Deadline) -> LogStreams:
    if found.state in _BUILDING:
        answer = cloud.api.call(
            "GET", f"/sandbox/{segment(found.id)}/build-logs", deadline, retry="safe", expect=(200, 404)
        )
        return (answer.body, b"") if answer.status == 200 else (b"", b"")
    toolbox = cloud.toolbox(found.id, found.toolbox, deadline)
    answer = toolbox.api.call(
        "GET", toolbox.path("/process/session/entrypoint/logs"), deadline, retry="safe", expect=None
    )
    if answer.status == 200:
        return split_streams(answer)
    if answer.status == 404 or found.phase != "up":
        return b"", b""  # no entry point, or nobody who could tell of it
    raise api_error(answer)


def split_streams(answer: Response) -> LogStreams:
    """stdout and stderr of a log: as JSON, or as one text with marks (before 0.161), or without. Pure."""
    try:
        document = document_bounds.decode(answer.body)
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict) and ("stdout" in document or "stderr" in document):
        return str(document.get("stdout") or "").encode(), str(document.get("stderr") or "").encode()
    out, err = bytearray(), bytearray()
    into = out
    for n, piece in enumerate(_MARKS.split(answer.body)):  # what runs inside may write millions of marks
        if n % 2:
            into = err if piece == _ERR else out
        else:
            into += piece
    return bytes(out), bytes(err)


def _last(text: bytes, lines: int | None) -> bytes:
    if lines is None:
        return text
    parts = text.splitlines(keepends=True)
    return b"".join(parts[len(parts) - min(lines, len(parts)) :])


def _since(text: bytes, shown: bytes) -> bytes:
    """Cut off what was shown already; all of it when it began anew."""
    return text[len(shown) :] if text.startswith(shown) else text
