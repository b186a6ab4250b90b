"""A Dockerfile, judged: which images, places and rights its instructions ask for.

Builders read the same text in different ways: here-documents are the text of an instruction or, to older ones,
instructions; an indented comment between two lines of an instruction is none to old ones; an escape directive is not
known to all. Every such reading is judged. Where there are more ways than are worth following, the text is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from sandboxer.extensions.compose_ssh.policy.dockerfile_words import is_address, label_names, split_flags, split_words
from sandboxer.extensions.compose_ssh.policy.names import claims, describes, image_fault
from sandboxer.extensions.compose_ssh.policy.run_mounts import judge_mount
from sandboxer.extensions.compose_ssh.policy.verdict import DockerfileFinding, DockerfileFindings
from sandboxer.names import PREFIX

MAX_LINES: Final = 20_000
_SPACE: Final = re.compile(r"\s")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_MARGIN: Final = re.compile(r"\s*")
_HEREDOC: Final = re.compile(r"""<<(-?)\s*(["']?)([A-Za-z0-9_.][A-Za-z0-9_.-]*)\2""")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE: Final = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::([-+])([^{}$]*))?\})", re.ASCII)
"""Without `${A-x}` and `${A+x}`: not every builder knows them."""
_BUILDERS_OWN: Final = re.compile(
    r"(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT|OSVERSION|STAGE)|BUILDKIT_.*|SOURCE_DATE_EPOCH|\w+_PROXY", re.IGNORECASE
)
"""Arguments that builders set by themselves."""
MAX_WORD: Final = 4096
"""Of an image's name and of an argument that it may come from: arguments can be doubled line by line."""
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
    later: bool = False  # in a build that uses the image, which has other stages and contexts


def check_dockerfile(text: str, *, args: Mapping[str, str], contexts: set[str]) -> DockerfileFindings:
    """Everything in `text` that is not harmless. `args` are the build's arguments, `contexts` its named contexts."""
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    if len(lines) > MAX_LINES:
        return DockerfileFindings(
            (DockerfileFinding(1, f"the time of whoever reads it: at most {MAX_LINES} lines"),), ()
        )
    found: dict[DockerfileFinding, None] = {}
    sources: dict[tuple[int, str], None] = {}
    mounted: dict[tuple[int, str], None] = {}
    labels: dict[str, None] = {}
    indented = _margins(lines, found)
    escape = _escape(lines, found)
    here = any("<<" in line for line in lines)
    usual = (escape, here, True)
    for reading in itertools.product(
        {escape, "\\"},  # an old builder may not see the directive
        {here, False},
        {True, not indented},
    ):
        escaping, heredocs, comments = reading
        judging = _Reading(args, contexts, lenient=reading != usual, here=here)
        for instruction in _instructions(lines, escaping, heredocs=heredocs, comments=comments, found=found):
            judging.take(instruction)
        found.update(judging.found)
        sources.update(judging.sources)
        mounted.update(judging.mounted)
        labels.update(judging.labels)
    return DockerfileFindings(tuple(found), tuple(sources), tuple(labels), tuple(mounted))


def _margins(lines: list[str], found: dict[DockerfileFinding, None]) -> bool:
    """Note characters that are a space to some builders only; whether a comment is indented."""
    indented = False
    for number, line in enumerate(lines, 1):
        margin = _MARGIN.match(line)
        begin = margin.end() if margin is not None else 0
        if _CONTROL.search(line) or line[:begin].strip(" \t"):
            found[
                DockerfileFinding(
                    number, "an instruction that builders end in different places: a space of another kind"
                )
            ] = None
        indented = indented or (begin > 0 and line[begin : begin + 1] == "#")
    return indented


def _escape(lines: list[str], found: dict[DockerfileFinding, None]) -> str:
    escape = "\\"
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith(("#", "//")):
            break
        name, _, value = text.lstrip("#/").partition("=")
        if name.strip().lower() == "syntax":
            found[_frontend(number, value.strip(), usual=text.startswith("#"))] = None
        if name.strip().lower() == "escape" and value.strip() == "`":
            escape = "`"
    return escape


def _frontend(line: int, image: str, *, usual: bool) -> DockerfileFinding:
    fault = image_fault(image)
    if fault is not None:
        return DockerfileFinding(line, f"the build to another program, and {fault}")
    gives = "the build to another program: `syntax` names an image that reads this file, and is not judged"
    return DockerfileFinding(line, gives, f"frontend:{image}" if usual else None)


def _instructions(
    lines: list[str], escape: str, *, heredocs: bool, comments: bool, found: dict[DockerfileFinding, None]
) -> Iterator[_Instruction]:
    """The instructions; `comments`: also an indented comment does not end one."""
    index = 0
    while index < len(lines):
        start, parts, more = index, [""], False
        while index < len(lines):
            line = lines[index]
            index += 1
            comment = line if more and not comments else line.lstrip()
            if comment.startswith("#") or (more and not line.strip()):
                if not more:
                    break
                continue  # comments and empty lines do not end an instruction
            stripped = line.rstrip(" \t")
            more = stripped.endswith(escape)
            if not more and line.rstrip().endswith(escape):
                found[
                    DockerfileFinding(
                        index, "an instruction that builders end in different places: a space of another kind"
                    )
                ] = None
            if stripped.endswith(2 * escape):
                found[
                    DockerfileFinding(index, f"an instruction that builders end in different places: {2 * escape}")
                ] = None
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

    def __init__(self, args: Mapping[str, str], contexts: set[str], *, lenient: bool, here: bool) -> None:
        self.found: dict[DockerfileFinding, None] = {}
        self.sources: dict[tuple[int, str], None] = {}
        self.mounted: dict[tuple[int, str], None] = {}
        self.labels: dict[str, None] = {}
        self._args = args
        self._contexts = contexts
        self._lenient = lenient
        self._here = here
        self._globals: dict[str, str | None] = {}
        self._stages: set[str] = set()
        self._lowered: set[str] = set()
        self._stage = ""
        self._count = 0

    def take(self, one: _Instruction) -> None:
        """Judge one instruction."""
        if one.word not in _KNOWN:
            if not self._lenient:  # in a here-document it is a line of somebody's script
                self._fault(one, f"whatever a builder takes {one.word[:40]} for: nobody has looked at it yet")
            return
        if one.word == "ONBUILD" and one.later:
            self._fault(one, "an instruction that no builder takes: ONBUILD of ONBUILD")
            return
        if one.word == "ONBUILD":
            word, _, rest = one.rest.partition(" ")
            self.take(_Instruction(one.line, word.upper(), rest.strip(), later=True))
            return
        flags, rest = split_flags(one.rest) if one.word in _FLAGS else ([], one.rest)
        if one.word in _FLAGS and rest.startswith("--"):
            self._fault(one, f"a flag that builders read in different ways: {rest[:40]}")
        for name, value in flags:
            self._flag(one, name, value)
        if one.word == "FROM":
            self._from(one, rest)
        elif one.word == "ARG" and not self._count:
            self._arg(one, rest)
        elif one.word in ("ADD", "COPY"):
            self._copy(one, rest, stage=any(name == "from" for name, _ in flags))
        elif one.word == "LABEL":
            self._label(one)

    def _fault(self, one: _Instruction, gives: str, grant: str | None = None) -> None:
        self.found[DockerfileFinding(one.line, gives, grant)] = None

    def _flag(self, one: _Instruction, name: str, value: str) -> None:
        if name not in _FLAGS[one.word]:
            self._fault(one, f"whatever a builder takes --{name[:40]} for: nobody has looked at it yet")
        elif one.word == "RUN" and name == "mount":
            self._mount(one, value)
        elif one.word == "RUN" and name == "network" and value not in ("none", "default"):
            self._fault(one, "the network of the host, while it builds", "build:network" if value == "host" else None)
        elif one.word == "RUN" and name == "security" and value != "sandbox":
            self._fault(one, "the host: an insecure build is as good as root", "privileged")
        elif one.word == "COPY" and name == "from" and "$" in value:
            self._fault(one, f"an image that nobody can name: {value[:120]}")
        elif one.word == "COPY" and name == "from":
            self._image(one, value)

    def _mount(self, one: _Instruction, value: str) -> None:
        mount = judge_mount(value)
        if mount.gives_away is not None:
            self._fault(one, mount.gives_away, mount.grant)
        elif mount.source is not None and one.later:
            self._fault(one, "files of a build that uses the image: a mount of its context by ONBUILD")
        elif mount.source is not None:
            self.mounted[one.line, mount.source] = None

    def _arg(self, one: _Instruction, rest: str) -> None:
        if len(rest.split()) > 1 and any(mark in rest for mark in "\"'\\"):
            self._fault(one, "an image by an argument that builders read in different ways: give one ARG a line")
        for word in rest.split():
            name, is_set, value = word.partition("=")
            if name in self._globals:
                self._fault(one, f"an image by an argument that builders read in different ways: {name[:80]} is twice")
            if not _NAME.fullmatch(name) or _BUILDERS_OWN.fullmatch(name):
                continue  # then nothing can be said of an image that it names
            default = self._expand(value.strip("\"'")) if is_set else None
            if is_set and default is None and name not in self._args:
                continue
            self._globals[name] = self._args.get(name, default)

    def _from(self, one: _Instruction, rest: str) -> None:
        words = rest.split()
        if self._stage:
            self._stages.add(self._stage)  # a stage does not copy from itself
            self._lowered.add(self._stage.lower())
        if not words:
            self._fault(one, "an image that nobody can name")
        else:
            self._image(one, words[0])
        self._count += 1
        self._stage = words[2] if len(words) == 3 and words[1].upper() == "AS" else ""

    def _image(self, one: _Instruction, text: str) -> None:
        name = self._expand(text.strip("\"'"))
        if name is None:
            self._fault(one, f"an image that nobody can name: {text[:120]} has no value in the repository")
            return
        fault = image_fault(name)
        if fault is None or (name in self._contexts and not one.later):
            return  # also where a builder does not take it for a stage
        earlier = name.isascii() and name.isdigit() and len(name) < 6 and int(name) < self._count - 1
        stage = not one.later and (name in self._stages or (one.word == "COPY" and earlier))
        if stage and PREFIX not in name and not self._here:
            return
        if name.lower() in self._lowered and image_fault(name.lower()) is None:
            return  # in such letters it cannot be an image
        if stage and PREFIX not in name:
            fault = "another sandbox's image, where a builder reads the here-documents differently: name it otherwise"
        self._fault(one, fault)

    def _label(self, one: _Instruction) -> None:
        keys = label_names(one.rest)
        if keys is None:
            self._fault(one, "a label that builders read in different ways: write NAME=VALUE, the name without `$`")
        for key in keys or ():
            if claims(key):
                self._fault(one, f"whose the container is: the engine or sandboxer reads the label {key[:80]}")
            elif not describes(key):
                self.labels[key] = None

    def _copy(self, one: _Instruction, rest: str, *, stage: bool) -> None:
        for source in split_words(rest)[:-1]:
            if source.startswith("<<"):
                continue
            if one.word == "ADD" and any(mark in source for mark in "\"'\\"):
                self._fault(one, "what the host's network reaches: quotes and backslashes can make up an address")
            elif one.word == "ADD" and is_address(source):
                self._fault(one, "what the host's network reaches: the builder fetches it, not the container")
            elif one.word == "ADD" and "$" in source:
                self._fault(one, "what the host's network reaches: a variable can hold an address")
            elif not stage:
                self.sources[one.line, source] = None

    def _expand(self, text: str) -> str | None:
        if len(text) > MAX_WORD:
            return None
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            name, sign, word = match[1] or match[2], match[3], match[4]
            if name not in self._globals or (sign is None and self._globals[name] is None):
                missing = True
            known = self._globals.get(name) or ""
            if sign is None:
                return known
            return (known or word) if sign == "-" else (word if known else "")

        expanded = _VARIABLE.sub(value, text)
        unclear = missing or "$" in expanded or "\\" in expanded or len(expanded) > MAX_WORD
        return None if unclear else expanded
