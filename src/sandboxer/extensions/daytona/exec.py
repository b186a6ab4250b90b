"""Run a command inside a sandbox by its toolbox: byte for byte, its two outputs apart, ended at the deadline."""

from __future__ import annotations

import base64
import binascii
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal

from sandboxer import document_bounds
from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.daytona import scripts
from sandboxer.extensions.daytona.client import Toolbox, sleep
from sandboxer.extensions.daytona.stdin import PIECE, StdinReader
from sandboxer.extensions.provider.command_bytes import check
from sandboxer.hosts.base import Result, Sink, Streams
from sandboxer.hosts.process.capture import capture_capped
from sandboxer.http import without_html
from sandboxer.models import Value
from sandboxer.timing import Deadline

FIRST_SECONDS: Final = 0.4
"""How long the first request waits for the command's end: most have ended by then, and need no second one."""
LOOKS: Final = 200
"""How often (each 0.1 s) a following request looks for something new before it answers that there is nothing."""
LOOKS_FEEDING: Final = 3
"""The same while more input may come."""
FIRST_BYTES: Final = 256 * 1024
PART_BYTES: Final = 2 * 1024 * 1024
"""How much of each output one answer carries, in bytes."""
END_SECONDS: Final = 10.0
LATE_PAUSE: Final = 0.5
"""Seconds before a toolbox that did not answer in its own time is asked again."""
_READONLY: Final = frozenset({"UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO"})
"""Variables that some shells do not let themselves be set: the command gets them by `env`."""

CommandState = Literal["run", "done", "lost", "late", "lacks"]
_STATES: Final[dict[str, CommandState]] = {name: name for name in ("run", "done", "lost", "late", "lacks")}


class CommandProgress(Value, frozen=True, kw_only=True):
    """One answer of START or FOLLOW. `code` has a meaning when it is done; `word` is what is lacking."""

    state: CommandState
    code: int = 0
    word: str = ""
    out: bytes = b""
    err: bytes = b""


def job(argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str]) -> bytes:
    """Write the shell text that becomes the command, in a shell that START made for it. Pure. Every word is quoted; it
    comes by a descriptor, so that values appear in no argv.

    `setsid` would tell of a program that is not there in its own words, or, an old one, with its own code; so the shell
    looks first. Raises Invalid for words that no program can be given."""
    check(argv, env=env, cwd=cwd)
    lines = ["exec 3<&-", "umask 022"]
    if cwd is not None:
        where = cwd if cwd.startswith("/") else f"./{cwd}"
        lines.append(f"CDPATH= cd {shlex.quote(where)} || exit 126")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items() if name not in _READONLY]
    lines.append("set -- " + shlex.join(argv))
    lines.append('command -v -- "$1" >/dev/null 2>&1 || [ -e "$1" ] || { echo "sh: $1: not found" >&2; exit 127; }')
    by_env = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items() if name in _READONLY)
    if by_env:
        lines.append(f'exec setsid env {by_env} "$@"')
    else:
        lines.append('exec setsid -- "$@"' if argv[0].startswith("-") else 'exec setsid "$@"')
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def read(result: str, token: str) -> CommandProgress:
    """Parse an answer. Pure. Raises BackendError for one that is not whole."""
    head, _, body = result[max(0, result.find(f"{token} ")) :].partition("\n")
    words = head.split()
    parts = _sections(body)
    if len(words) < 2 or words[0] != token or words[1] not in _STATES or parts is None:
        raise BackendError(
            "the toolbox of the sandbox did not answer as expected: " + without_html(" ".join(result.split()))[:200],
            hint="does the image have a POSIX sh? try another image",
            outcome="unknown",
        )
    state, word = _STATES[words[1]], words[2] if len(words) > 2 else ""
    code = (document_bounds.number(word) or 0) if state == "done" else 0
    return CommandProgress(state=state, code=code, word=word, out=parts[0], err=parts[1])


def _sections(body: str) -> tuple[bytes, bytes] | None:
    """Split off the two parts, each ended by a line with `=` alone; None when one is not whole."""
    lines = body.splitlines()
    ends = [number for number, line in enumerate(lines) if line == "="]
    if len(ends) < 2:
        return None
    try:
        out = base64.b64decode("".join(lines[: ends[0]]), validate=True)
        err = base64.b64decode("".join(lines[ends[0] + 1 : ends[1]]), validate=True)
    except (binascii.Error, ValueError):
        return None
    return out, err


def run(
    toolbox: Toolbox,
    argv: Sequence[str],
    streams: Streams,
    deadline: Deadline,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a program to its end; its exit code. Raises Timeout at the deadline, having killed everything of its session;
    the same when this thread is interrupted. 126 when `cwd` cannot be entered, which stderr says."""
    deadline.check("running a command in the sandbox")
    token = os.urandom(8).hex()
    intake = StdinReader(streams.stdin)
    running = _Running(toolbox, token, streams, intake)
    try:
        return running.to_the_end(job(argv, cwd=cwd, env=env or {}), deadline)
    except BaseException as error:
        if running.begun and not running.ended:
            left = running.kill()
            if isinstance(error, Timeout):
                raise _timed_out(left) from None
        raise


def _timed_out(left: SandboxerError | None) -> Timeout:
    if left is None:
        return Timeout("the command did not end in time and was killed", hint="give it longer with --timeout")
    return Timeout(
        f"the command did not end in time, and may still run: {left.message}",
        hint="look for it with `sandboxer exec ID -- ps`, or destroy the sandbox",
        outcome="unknown",
    )


class _Running:
    """One command, from its start to its end."""

    def __init__(self, toolbox: Toolbox, token: str, streams: Streams, intake: StdinReader) -> None:
        self._toolbox, self._token, self._streams, self._intake = toolbox, token, streams, intake
        self._files = scripts.PREFIX + token
        self.begun = False
        self.ended = False
        self._out = self._err = 0

    def to_the_end(self, text: bytes, deadline: Deadline) -> int:
        """Start it, pass everything on, and give its exit code."""
        first = self._intake.first()
        kind = "none" if first is None else "live" if self._intake.open else "whole"
        seconds = deadline.seconds(FIRST_SECONDS)
        plain = _plain(text)
        words = [self._token, self._files, f"{seconds:.2f}", str(FIRST_BYTES), kind, "" if plain else "armoured"]
        command = self._text(scripts.START, *words, job=plain or _armoured(text), data=_armoured(first or b""))
        self.begun = True
        told = self._first_progress(command, deadline)
        if self._complete(told, FIRST_BYTES):
            self.ended = True  # and START has removed what it made
            return told.code
        number = 1
        while True:
            data = self._intake.more() if kind == "live" else None
            last = kind == "live" and not self._intake.open
            told = self._followed(number if data else None, data, deadline, last=last)
            number += 1 if data else 0
            if self._complete(told, PART_BYTES):
                self.ended = True
                self._forget()
                return told.code

    def _first_progress(self, command: str, deadline: Deadline) -> CommandProgress:
        """Start it. A lost answer is no reason to give up: what was begun can be followed."""
        try:
            return read(self._ask(command, deadline, 30), self._token)
        except Unavailable as error:
            if error.outcome != "unknown":
                raise
            told = self._followed(None, None, deadline, last=False)
            if told.state == "lost":
                raise
            return told

    def _followed(self, number: int | None, data: bytes | None, deadline: Deadline, *, last: bool) -> CommandProgress:
        deadline.check("running a command in the sandbox")
        most = LOOKS_FEEDING if self._intake.open else LOOKS
        looks = math.ceil(deadline.seconds(most / 10) * 10)
        if data is not None and len(data) == PIECE:
            looks = 0  # there is more where that came from
        words = [self._token, self._files, str(looks), str(PART_BYTES), str(self._out), str(self._err)]
        words += ["" if number is None else str(number), "last" if last else ""]
        command = self._text(scripts.FOLLOW, *words, data=_armoured(data or b""))
        while True:
            try:
                return read(self._ask(command, deadline, looks / 10 + 20, again=True), self._token)
            except Unavailable as error:
                if (error.details or {}).get("status") != 408:
                    raise
            sleep(LATE_PAUSE, deadline)  # the toolbox gave up waiting, not the command: it may be asked the same again

    def _complete(self, told: CommandProgress, limit: int) -> bool:
        """Pass on what is new; whether that was all."""
        if told.state == "lacks":
            self.ended = True
            raise BackendError(
                f"the sandbox lacks {told.word}, and the command was not begun",
                hint="use an image with util-linux or busybox",
            )
        if told.state in ("lost", "late"):
            self.ended = True
            raise BackendError(
                "what became of the command is not known: its traces in the sandbox are gone",
                hint="was the sandbox stopped meanwhile? see `sandboxer get ID`",
                outcome="unknown",
            )
        if told.out:
            self._streams.stdout(told.out)
        if told.err:
            self._streams.stderr(told.err)
        self._out += len(told.out)
        self._err += len(told.err)
        return told.state == "done" and len(told.out) < limit and len(told.err) < limit

    def kill(self) -> SandboxerError | None:
        """End everything of its session; what went wrong with that."""
        deadline = Deadline(END_SECONDS)
        try:
            said = self._ask(self._text(scripts.END, self._files), deadline, END_SECONDS, again=True)
        except SandboxerError as error:
            return error
        if "ended" not in said.split():
            return BackendError("its processes could not be ended", hint="destroy the sandbox")
        return None

    def _forget(self) -> None:
        try:
            self._ask(self._text(scripts.FORGET, self._files), Deadline(END_SECONDS), END_SECONDS)
        except SandboxerError:
            return  # a few files stay in its /tmp

    def _text(self, script: str, *words: str, job: str = "", data: str = "") -> str:
        return scripts.text(script, *words, job=job, data=data, mark=f"end-{self._token}")

    def _ask(self, command: str, deadline: Deadline, seconds: float, *, again: bool = False) -> str:
        body: dict[str, Any] = {"command": command, "timeout": math.ceil(seconds)}
        answer = self._toolbox.api.call(
            "POST",
            self._toolbox.path("/process/execute"),
            deadline.shorter(seconds + 10),
            json=body,
            retry="safe" if again else "never",
            expect=(200, 408),
        )
        document = answer.json()
        if answer.status == 408 or not isinstance(document, dict) or not isinstance(document.get("result"), str):
            raise Unavailable(
                "the toolbox of the sandbox did not run it in time",
                hint="try again",
                outcome="unknown",
                details={"status": answer.status},
            )
        return str(document["result"])


def _plain(text: bytes) -> str | None:
    """Decode a job so that JSON can carry it; None when it holds bytes that are not UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _armoured(data: bytes) -> str:
    return base64.encodebytes(data).decode().rstrip("\n")


def capture(
    toolbox: Toolbox,
    argv: Sequence[str],
    deadline: Deadline,
    *,
    stdin: BinaryIO | None = None,
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Result:
    """Run one of our own small scripts inside; see `capture_capped`."""
    return capture_capped(
        lambda streams: run(toolbox, argv, streams, deadline), stdin=stdin, stdout=stdout, stderr=stderr
    )
