"""Show the progress of a create on a terminal: a line a phase, the present one rewritten in place."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType

from sandboxer.cli.output import colours, columns, note
from sandboxer.terminal_text import shown

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_SECONDS = 0.1


class Progress:
    """Call it with a phase and a text. Silent unless stderr is a terminal and `quiet` is false; but a `note` is said in
    every case, as a line of its own."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._colour = colours(sys.stderr)
        self._still = os.environ.get("TERM") == "dumb"  # it cannot rewrite a line: only what is done is said
        self._lock = threading.Lock()
        self._phase: str | None = None
        self._text = ""
        self._since = time.monotonic()
        self._done = threading.Event()

    def __enter__(self) -> Progress:
        if self._on:
            threading.Thread(target=self._spin, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end(ok=error is None)

    def end(self, *, ok: bool = True) -> None:
        """Finish the present line, and show nothing more: the terminal is somebody else's from now on."""
        self._done.set()
        with self._lock:
            self._finish(ok=ok)
            self._on = False

    def __call__(self, phase: str, text: str) -> None:
        if phase == "note":
            with self._lock:
                self._finish(ok=True)
                note(f"note: {text}")
            return
        if not self._on:
            return
        with self._lock:
            if phase != self._phase:
                self._finish(ok=True)
                self._phase, self._since = phase, time.monotonic()
            self._text = text
            self._draw(_SPINNER[0])

    def _spin(self) -> None:
        turn = 0
        while not self._done.wait(_TICK_SECONDS):
            with self._lock:
                if self._phase is not None and not self._done.is_set():
                    self._draw(_SPINNER[turn % len(_SPINNER)])
            turn += 1

    def _finish(self, *, ok: bool) -> None:
        if self._on and self._phase is not None:
            self._draw("✓" if ok else "✗", colour="32" if ok else "31", done=True)
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._phase = None

    def _draw(self, sign: str, *, colour: str = "36", done: bool = False) -> None:
        if self._still and not done:
            return
        seconds = time.monotonic() - self._since
        taken = f" {seconds:.1f}s" if seconds >= 1 else ""
        width = columns()
        rest = f" {shown(self._phase or ''):<9} {shown(self._text)}"[: max(10, width - len(taken) - 3)]
        painted = f"\x1b[{colour}m{sign}\x1b[0m" if self._colour else sign
        again = "" if self._still else "\r\x1b[K"
        sys.stderr.write(f"{again}{painted}{rest}{taken}")
        sys.stderr.flush()
