"""Shells of a sandbox that stay, each with the commands that it was given."""

from __future__ import annotations

import shlex
import threading
import time
import uuid
from dataclasses import dataclass, field

from tests.fakes.sandbox_fs import Process, SandboxFS

_DIRECTORY = "/tmp/.daytona-sessions"


@dataclass(kw_only=True)
class Shell:
    """One session: a shell that reads what it shall run."""

    name: str
    process: Process
    commands: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """The sessions of one sandbox."""

    def __init__(self, box: SandboxFS) -> None:
        self._box = box
        self._shells: dict[str, Shell] = {}

    def open(self, name: str) -> bool:
        """A new one; False when the name is taken."""
        if name in self._shells:
            return False
        self._box.path(_DIRECTORY).mkdir(parents=True, exist_ok=True)
        self._shells[name] = Shell(name=name, process=self._box.start(["sh"], stdin=True, merged=True))
        return True

    def get(self, name: str) -> Shell | None:
        """One by its name."""
        return self._shells.get(name)

    def all(self) -> list[Shell]:
        """Every one."""
        return list(self._shells.values())

    def close(self, name: str) -> bool:
        """End one and what it runs; False when there is none."""
        shell = self._shells.pop(name, None)
        if shell is None:
            return False
        shell.process.close()
        return True

    def run(self, shell: Shell, command: str) -> str:
        """Let a shell run a command; its id."""
        number = uuid.uuid4().hex
        shell.commands[number] = command
        base = f"{_DIRECTORY}/{number}"
        text = (
            f"mkfifo {base}.in\n{{ {command}\n}} <>{base}.in >{base}.out 2>{base}.err\n"
            f"echo $? >{base}.tmp; mv {base}.tmp {base}.code\n"
        )
        assert shell.process.stdin is not None
        with shell.lock:
            shell.process.stdin.write(text.encode())
        return number

    def code(self, number: str) -> int | None:
        """The exit code of a command that has ended."""
        file = self._box.path(f"{_DIRECTORY}/{number}.code")
        return int(file.read_text()) if file.exists() else None

    def wait(self, number: str, seconds: float) -> int | None:
        """The same, waiting for it."""
        until = time.monotonic() + seconds
        while (code := self.code(number)) is None and time.monotonic() < until:
            time.sleep(0.01)
        return code

    def output(self, number: str) -> tuple[str, str]:
        """What a command wrote so far."""
        texts = []
        for kind in ("out", "err"):
            file = self._box.path(f"{_DIRECTORY}/{number}.{kind}")
            texts.append(file.read_bytes().decode("utf-8", "replace") if file.exists() else "")
        return texts[0], texts[1]

    def send(self, number: str, data: str) -> None:
        """Input for a command that runs."""
        words = ["sh", "-c", f"printf %s {shlex.quote(data)} >{_DIRECTORY}/{number}.in"]
        self._box.run(words, timeout=5)
