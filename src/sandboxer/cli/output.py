"""Print what a command says: one JSON document on stdout for programs, tables and sentences for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO

from sandboxer.errors import Invalid, SandboxerError, Unavailable
from sandboxer.terminal_text import json_safe, shown, shown_lines


class OutputClosed(Exception):
    """Whoever read this stream of ours has closed it. No OSError: the parser of the command line makes exit status 1 of
    a broken pipe, and a pipe to somebody else may break too."""

    def __init__(self, stream: IO[Any]) -> None:
        super().__init__("nobody reads the output")
        self.stream = stream


def wants_json(flag: bool) -> bool:
    """Whether the answer is for a program: `--json`, or SANDBOXER_OUTPUT=json."""
    return flag or os.environ.get("SANDBOXER_OUTPUT") == "json"


def check_output_format() -> None:
    """Raise Invalid for a SANDBOXER_OUTPUT that means nothing: a program that asked for JSON would get a table."""
    found = os.environ.get("SANDBOXER_OUTPUT")
    if found not in (None, "", "json", "text"):
        raise Invalid(
            f"SANDBOXER_OUTPUT {found[:80]!r} is no format",
            hint="set SANDBOXER_OUTPUT to json or text, or unset it",
        )


def emit(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout: UTF-8, whatever the terminal's encoding; a lone surrogate (a byte of a file's name)
    and what would steer a terminal are written as JSON's own escapes. Raises Unavailable, as `say` does."""
    flush()
    text = json_safe(json.dumps(document, ensure_ascii=False, indent=2)) + "\n"
    put(sys.stdout.buffer, text.encode("utf-8", "backslashreplace"))


def put(stream: BinaryIO, data: bytes) -> None:
    """Write bytes now. Raises Unavailable when the stream does not take them; OutputClosed when nobody reads."""
    with written_to(stream):
        stream.write(data)
        stream.flush()


def say(text: str = "") -> None:
    """A line for people on stdout, in which nothing but our own colours steers the terminal. Raises Unavailable when
    stdout does not take it."""
    with written_to(sys.stdout):
        sys.stdout.write(shown_lines(text, painted=colours(sys.stdout)) + "\n")


def flush() -> None:
    """Write what was said until now. Raises as `say` does."""
    with written_to(sys.stdout):
        sys.stdout.flush()


@contextmanager
def written_to(stream: IO[Any]) -> Iterator[None]:
    """Raise what `say` raises for what goes wrong with writing to this stream of ours."""
    try:
        yield
    except BrokenPipeError:
        raise OutputClosed(stream) from None
    except OSError as error:
        raise Unavailable(
            f"the output cannot be written: {error.strerror}", hint="make room there, or send it somewhere else"
        ) from None


def note(text: str) -> None:
    """A line for people on stderr: progress, warnings, hints. There is no one left to tell when that fails."""
    with suppress(OSError):
        sys.stderr.write(shown_lines(text, painted=colours(sys.stderr)) + "\n")
        sys.stderr.flush()


def colours(stream: Any) -> bool:
    """Colours only on a terminal, and never under NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: Any = None) -> str:
    """`text` in an ANSI colour where that is wanted."""
    stream = sys.stdout if stream is None else stream
    return f"\x1b[{code}m{text}\x1b[0m" if colours(stream) else text


def columns() -> int:
    """How wide the terminal is."""
    import shutil

    return shutil.get_terminal_size().columns


STATE_STYLES = {
    "ready": "green",
    "active": "cyan",
    "stopped": "blue",
    "provisioning": "yellow",
    "failed": "red",
    "expired": "magenta",
}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Aligned columns; `empty` is said when there are no rows. On a terminal they fit its width; whoever reads them
    through a pipe gets all of them."""
    printed = [[shown(cell or "") for cell in row] for row in rows]
    if not printed:
        say(empty)
        return
    if sys.stdout.isatty():
        from sandboxer.cli.terminal_table import render

        say(render(headings, printed, width=columns(), colours=colours(sys.stdout), state_styles=STATE_STYLES))
        return
    widths = [max(len(heading), *(len(row[n]) for row in printed)) for n, heading in enumerate(headings)]
    for row in [list(headings), *printed]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


_PROSE = frozenset({"error", "passed over"})


def facts(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Names and values, one a line; those without a value are left out. On a terminal, prose goes on below itself;
    paths and commands do not: whoever copies one gets one line."""
    given = [(name, shown(value or "")) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in given), default=0)
    for name, value in given:
        lines = wrapped(value, indent=width + 2) if name in _PROSE else value
        say(f"{paint(name.ljust(width), '2')}  {lines}")


def wrapped(text: str, *, indent: int) -> str:
    """A text that begins at a column of a terminal, in lines that end between words; elsewhere, as it is."""
    if not sys.stdout.isatty() or len(text) <= (room := columns() - indent) or room < _NARROW:
        return text
    import textwrap

    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


_NARROW = 20


def complain(error: SandboxerError, *, as_json: bool) -> None:
    """An error, for whoever asked."""
    if as_json:
        emit({"error": error.document()})
        return
    note(f"{paint('error:', '1;31', sys.stderr)} {_lines(error.message)}")
    if error.sandbox_id:
        note(f"{paint('sandbox:', '2', sys.stderr)} {error.sandbox_id}")
    if error.outcome == "unknown":
        note("something may still exist: run `sandboxer reconcile`")
    for one in (error.details or {}).get("violations") or ():
        note(_printed_violation(one))
    for one in (error.details or {}).get("unsupported") or ():
        note(f"{_place(one)}\n      {shown(str(one.get('gives_away')))}")
    if error.hint:
        note(f"{paint('hint:', '1;34', sys.stderr)} {_lines(error.hint)}")


def _printed_violation(one: Mapping[str, Any]) -> str:
    """What a policy refuses: where it stands, what it would give away, what would allow it."""
    lines = [_place(one)]
    for name, value in (("gives away", one.get("gives_away")), ("grant", one.get("grant") or "none allows it")):
        lines.append(f"      {paint(f'{name}:', '2', sys.stderr)} {shown(str(value))}")
    return "\n".join(lines)


def _place(one: Mapping[str, Any]) -> str:
    return "  " + shown(f"{one.get('file')}:{one.get('line')}: {one.get('path')}")


def _lines(text: str) -> str:
    return "\n".join(shown(line) for line in text.splitlines())
