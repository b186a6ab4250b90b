"""A Dockerfile, judged: which images, places and rights its instructions ask for.

Builders read here-documents in two ways: one as the text of an instruction, an older one as instructions. Both are
judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from sandboxer.extensions.compose_ssh.policy.names import image_fault
from sandboxer.extensions.compose_ssh.policy.values import Fault, Faults

MAX_LINES: Final = 20_000
_DIRECTIVE: Final = re.compile(r"#\s*escape\s*=\s*(.)\s*", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s")
_SYNTAX: Final = re.compile(r"(#|//)\s*syntax\s*=.*", re.IGNORECASE)
_HEREDOC: Final = re.compile(r"""<<(-?)\s*(["']?)([A-Za-z0-9_.][A-Za-z0-9_.-]*)\2""")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?([-+])([^{}$]*))?\})")
_KNOWN: Final = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
     "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)  # fmt: skip
_FLAGS: Final = {
    "FROM": {"platform"},
    "COPY": {"from", "chown", "chmod", "link", "parents", "exclude"},
    "ADD": {"chown", "chmod", "link", "checksum", "exclude"},
    "RUN": {"network", "security", "mount"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}


class _Instruction(msgspec.Struct, frozen=True):
    line: int
    word: str
    rest: str


def judge(text: str, *, args: Mapping[str, str], contexts: set[str]) -> Faults:
    """Everything in `text` that is not harmless. `args` are the build's arguments, `contexts` its named contexts."""
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    if len(lines) > MAX_LINES:
        return Faults((Fault(1, f"the time of whoever reads it: at most {MAX_LINES} lines"),), ())
    found: dict[Fault, None] = {}
    sources: dict[tuple[int, str], None] = {}
    escape = _escape(lines, found)
    here = any("<<" in line for line in lines)
    for escaping in (escape,) if escape == "\\" else (escape, "\\"):  # an old builder may not see the directive
        for heredocs in (True, False) if here else (False,):
            reading = _Reading(args, contexts, lenient=escaping != escape or (here and not heredocs))
            for instruction in _instructions(lines, escaping, heredocs=heredocs, found=found):
                reading.take(instruction)
            found.update(reading.found)
            sources.update(reading.sources)
    return Faults(tuple(found), tuple(sources))


def _escape(lines: list[str], found: dict[Fault, None]) -> str:
    escape = "\\"
    for number, line in enumerate(lines, 1):
        text = line.strip()[:400]  # patterns see no line of a megabyte
        if _SYNTAX.fullmatch(text):
            found[Fault(number, "the build to another program: `syntax` names an image that reads this file")] = None
        match = _DIRECTIVE.fullmatch(text)
        if match is not None and match[1] == "`":
            escape = "`"
        if text and not text.startswith(("#", "//")):
            break
    return escape


def _instructions(lines: list[str], escape: str, *, heredocs: bool, found: dict[Fault, None]) -> Iterator[_Instruction]:
    index = 0
    while index < len(lines):
        start, parts, more = index, [""], False
        while index < len(lines):
            line = lines[index]
            index += 1
            if line.lstrip().startswith("#") or (more and not line.strip()):
                if not more:
                    break
                continue  # comments and empty lines do not end an instruction
            stripped = line.rstrip(" \t")
            more = stripped.endswith(escape)
            if not more and line.rstrip().endswith(escape):
                found[Fault(index, "an instruction that builders end in different places: a space of another kind")] = (
                    None
                )
            parts.append(stripped[: -len(escape)] if more else line)
            if not more:
                break
        # builders split words at every kind of space
        joined = _SPACE.sub(" ", "".join(parts)).strip()
        if not joined:
            continue
        word, _, rest = joined.partition(" ")
        yield _Instruction(start + 1, word.upper(), rest.strip())
        if heredocs and word.upper() in ("RUN", "COPY", "ADD", "ONBUILD"):
            for dash, _, end in _HEREDOC.findall(rest):
                while index < len(lines):
                    line, index = lines[index], index + 1
                    if (line.lstrip("\t") if dash else line) == end:
                        break


class _Reading:
    """The instructions in order, with the stages and variables that they make."""

    def __init__(self, args: Mapping[str, str], contexts: set[str], *, lenient: bool) -> None:
        self.found: dict[Fault, None] = {}
        self.sources: dict[tuple[int, str], None] = {}
        self._args = args
        self._contexts = contexts
        self._lenient = lenient
        self._globals: dict[str, str] = {}
        self._stages: set[str] = set()
        self._stage = ""
        self._count = 0

    def take(self, one: _Instruction) -> None:
        """Judge one instruction."""
        if one.word not in _KNOWN:
            if not self._lenient:  # in a here-document it is a line of somebody's script
                self._fault(one, f"whatever a builder takes {one.word[:40]} for: nobody has looked at it yet")
            return
        if one.word == "ONBUILD":
            word, _, rest = one.rest.partition(" ")
            self.take(_Instruction(one.line, word.upper(), rest.strip()))
            return
        flags, rest = _flags(one.rest) if one.word in _FLAGS else ([], one.rest)
        for name, value in flags:
            self._flag(one, name, value)
        if one.word == "FROM":
            self._from(one, rest)
        elif one.word == "ARG" and not self._count:
            self._arg(one, rest)
        elif one.word in ("ADD", "COPY"):
            self._copy(one, rest, stage=any(name == "from" for name, _ in flags))

    def _fault(self, one: _Instruction, gives: str, grant: str | None = None) -> None:
        self.found[Fault(one.line, gives, grant)] = None

    def _flag(self, one: _Instruction, name: str, value: str) -> None:
        if name not in _FLAGS[one.word]:
            self._fault(one, f"whatever a builder takes --{name[:40]} for: nobody has looked at it yet")
        elif one.word == "RUN" and name == "mount":
            self._fault(one, "caches, secrets or files that a build shares with others: a mount of RUN")
        elif one.word == "RUN" and name == "network" and value not in ("none", "default"):
            self._fault(one, "the network of the host, while it builds", "build:network" if value == "host" else None)
        elif one.word == "RUN" and name == "security" and value != "sandbox":
            self._fault(one, "the host: an insecure build is as good as root", "privileged")
        elif one.word == "COPY" and name == "from" and "$" in value:
            self._fault(one, f"an image that nobody can name: {value[:120]}")
        elif one.word == "COPY" and name == "from":
            self._image(one, value)

    def _arg(self, one: _Instruction, rest: str) -> None:
        if len(rest.split()) > 1 and any(mark in rest for mark in "\"'\\"):
            self._fault(one, "an image by an argument that builders read in different ways: give one ARG a line")
        for word in rest.split():
            name, is_set, value = word.partition("=")
            default = self._expand(value.strip("\"'")) if is_set else None
            given = self._args.get(name, default)
            if given is not None:
                self._globals[name] = given

    def _from(self, one: _Instruction, rest: str) -> None:
        words = rest.split()
        if self._stage:
            self._stages.add(self._stage)  # a stage does not copy from itself
        if not words:
            self._fault(one, "an image that nobody can name")
        else:
            self._image(one, words[0])
        self._count += 1
        self._stage = words[2].lower() if len(words) == 3 and words[1].upper() == "AS" else ""

    def _image(self, one: _Instruction, text: str) -> None:
        name = self._expand(text.strip("\"'"))
        if name is None:
            self._fault(one, f"an image that nobody can name: {text[:120]} has no value in the repository")
            return
        number = name.isascii() and name.isdigit() and len(name) < 6 and int(name) < self._count
        if name == "scratch" or name.lower() in self._stages or name in self._contexts or number:
            return
        fault = image_fault(name)
        if fault is not None:
            self._fault(one, fault)

    def _copy(self, one: _Instruction, rest: str, *, stage: bool) -> None:
        for source in _words(rest)[:-1]:
            if source.startswith("<<"):
                continue
            remote = "://" in source or source.startswith("git@") or re.search(r"\.git(#.*)?$", source)
            if one.word == "ADD" and remote:
                self._fault(one, "what the host's network reaches: the builder fetches it, not the container")
            elif one.word == "ADD" and "$" in source:
                self._fault(one, "what the host's network reaches: a variable can hold an address")
            elif not stage:
                self.sources[one.line, source] = None

    def _expand(self, text: str) -> str | None:
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            name, sign, word = match[1] or match[2], match[3], match[4]
            known = self._globals.get(name)
            if sign == "+":
                return word if known else ""
            if known is None and sign != "-":
                missing = True
            return known or word or "" if sign == "-" else known or ""

        expanded = _VARIABLE.sub(value, text)
        return None if missing or "$" in expanded or "\\" in expanded else expanded


def _flags(rest: str) -> tuple[list[tuple[str, str]], str]:
    flags = []
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        name, _, value = word[2:].partition("=")
        flags.append((name.lower(), value.strip("\"'")))
    return flags, rest


def _words(rest: str) -> list[str]:
    if rest.startswith("["):
        try:
            found = json.loads(rest)
        except (ValueError, RecursionError):
            return rest.split()
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return found
    return rest.split()
