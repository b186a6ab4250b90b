"""The documents of the repository, and what is in them: blocks, tables, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")


def pages() -> list[Path]:
    """Every Markdown page of ours."""
    folders = ("docs", "workplans", "history", "registry")
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))])


def shown(page: Path) -> str:
    """What a page is called in messages."""
    return str(page.relative_to(ROOT))


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The fenced blocks in one of the languages."""
    for match in _BLOCK.finditer(text):
        if match[1] in languages:
            yield match[2]


def files(page: Path) -> dict[str, str]:
    """The files that a page shows: a name in backticks on a line of its own, and the block that follows."""
    return {match[1]: match[2] for match in _FILE.finditer(page.read_text())}


def spans(text: str) -> Iterator[str]:
    """What stands in backticks, outside of blocks."""
    for match in _SPAN.finditer(_BLOCK.sub("", text)):
        yield match[1]


class Table(NamedTuple):
    """A table of a page."""

    heading: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(text: str) -> Iterator[Table]:
    """The tables of a page; cells as written, without the blanks around them."""
    rows: list[tuple[str, ...]] = []
    for line in [*_BLOCK.sub("", text).splitlines(), ""]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append(tuple(cell.strip().replace("\\|", "|") for cell in cells))
        elif rows:
            yield Table(rows[0], rows[2:])
            rows = []


def table(page: Path, *heading: str) -> Table:
    """The one table of a page whose heading starts with these cells."""
    (found,) = [found for found in tables(page.read_text()) if found.heading[: len(heading)] == heading]
    return found


def bare(cell: str) -> str:
    """A cell without its backticks."""
    return cell.replace("`", "")
