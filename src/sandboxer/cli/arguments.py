"""Sort the words of a command line before they are parsed: which are ours, and where `--json` may stand."""

from __future__ import annotations

from collections.abc import Collection, Sequence

JSON = "--json"


def before_separator(words: Sequence[str]) -> Sequence[str]:
    """The words before `--`: what comes after belongs to the command inside."""
    return words[: words.index("--")] if "--" in words else words


def move_json_option(words: Sequence[str], groups: Collection[str]) -> list[str]:
    """The same words with each `--json` that stands ahead of the command, or between the two words of one, behind it:
    the option is the command's own. Without a command there is nothing that could have it. `groups` are the first
    words that take a second. Pure."""
    ahead, path = 0, 0
    wanted = 1
    while (at := ahead + path) < len(words) and path < wanted:
        word = words[at]
        if word == JSON:
            ahead += 1
        elif word.startswith("-"):
            break
        else:
            path += 1
            wanted = 2 if path == 1 and word in groups else wanted
    command = [word for word in words[: ahead + path] if word != JSON]
    if at == len(words) and path < wanted:
        return command
    return command + [JSON] * ahead + list(words[at:])
