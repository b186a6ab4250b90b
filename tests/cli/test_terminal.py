"""What people see on a terminal, and what they do not see anywhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sandboxer.cli.terminal_table import GAP, column_widths, render
from tests.cli.running import Command

LONG = "a-name-that-is-rather-long-for-a-table"
HEADINGS = ("SANDBOX", "HOST", "WHY")


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """An installation with two sandboxes that these tests look at."""
    here = Command(tmp_path_factory.mktemp("boxes"))
    for name in ("box", LONG):
        assert here("create", "--profile", "profile.fake", "--name", name).status == 0
    return here


def on_terminal(here: Command, *words: str, columns: int, **more: str) -> list[str]:
    """The lines that a command writes to a terminal so wide."""
    primary, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {"TERM": "xterm", **here.environment, **more}
    try:
        process = subprocess.Popen(
            here.words(*words), env=environment, cwd=here.root, stdin=subprocess.DEVNULL, stdout=terminal,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        os.close(terminal)
    received = b""
    try:
        while chunk := os.read(primary, 1 << 16):
            received += chunk
    except OSError:
        pass  # the terminal's other end is closed: how a pseudo-terminal says that all was read
    finally:
        os.close(primary)
    assert process.wait(timeout=60) == 0
    return received.decode().splitlines()


def uncoloured(lines: Sequence[str]) -> list[str]:
    for code in ("\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"):
        lines = [line.replace(code, "") for line in lines]
    return list(lines)


@pytest.mark.parametrize("verb", ["list", "profiles list", "extensions list", "events list", "audit list"])
@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_is_as_wide_as_the_terminal(boxes: Command, verb: str, columns: int) -> None:
    """What was wider was broken in the middle of a word by the terminal."""
    lines = uncoloured(on_terminal(boxes, *verb.split(), columns=columns))
    assert len(lines) == len(boxes(*verb.split()).stdout.splitlines()), "a line a row"
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("columns", [30, 60, 80])
def test_an_id_is_never_cut(boxes: Command, columns: int) -> None:
    ids = [document["id"] for document in boxes("list", "--json").document["sandboxes"]]
    told = "\n".join(on_terminal(boxes, "list", columns=columns))
    assert all(sandbox_id in told for sandbox_id in ids)
    audited = "\n".join(on_terminal(boxes, "audit", "list", columns=80))
    assert all(sandbox_id in audited for sandbox_id in ids)


def test_a_pipe_gets_everything_and_no_colour(boxes: Command) -> None:
    told = boxes("list").stdout
    assert LONG in told
    assert "\x1b" not in told


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_have_them(boxes: Command, more: dict[str, str], coloured: bool) -> None:
    lines = on_terminal(boxes, "list", columns=80, **more)
    assert any("\x1b[32mready" in line for line in lines) is coloured
    assert any("\x1b" in line for line in lines) is coloured
    assert max(map(len, uncoloured(lines))) <= 80


def test_what_a_stranger_wrote_does_not_steer_a_table() -> None:
    """Cells are what `shown` made of them; square brackets are no markup, colons no emoji."""
    told = render(("ID", "NOTE"), [["x", "[red]a[/] :smile: \\x1b[31m"]], width=80, colours=True, state_styles={})
    assert "[red]a[/] :smile: \\x1b[31m" in told


def test_wide_characters_take_two_columns() -> None:
    told = render(("ID", "TITLE"), [["x", "箱" * 40], ["y", "b"]], width=40, colours=False, state_styles={})
    cut = told.splitlines()[1]
    assert cut.endswith("…")
    assert 38 <= cell_len(cut) <= 40


@given(st.lists(st.integers(1, 90), min_size=3, max_size=3), st.integers(10, 200))
def test_prose_gives_way_first_and_the_first_column_never(natural: list[int], room: int) -> None:
    widths = column_widths(HEADINGS, natural, room)
    assert widths[0] == natural[0]
    assert all(0 < width <= whole for width, whole in zip(widths, natural, strict=True))
    if sum(natural) + 2 * GAP <= room:
        assert widths == natural
    if widths[1] < natural[1]:
        assert widths[2] <= 22, "the others are cut only when the prose is short"


def test_rich_is_for_terminals_only(boxes: Command) -> None:
    """Start-up is a feature: programs read JSON and pipes."""
    program = (
        "import sys; from sandboxer.cli.main import main\n"
        "status = main(sys.argv[1:]); sys.exit(9 if 'rich' in sys.modules else status)"
    )
    for words in (["list"], ["list", "--json"], ["get", "box"], ["profiles", "list"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], env=boxes.environment, cwd=boxes.root, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, words
