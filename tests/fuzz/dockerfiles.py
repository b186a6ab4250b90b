"""Dockerfiles: they are judged, and a line that surely takes another sandbox's image is never overlooked."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from sandboxer.extensions.compose_ssh.policy import dockerfile
from sandboxer.extensions.compose_ssh.policy.verdict import DockerfileFindings
from tests.extensions.compose.policy.test_dockerfiles import CASES, HONEST

INPUTS = 400
OTHER = b"sbx-aaaaaaaaaaaa"
SEEDS = [
    b"FROM alpine\nRUN true\nCOPY --from=" + OTHER + b" / /x\n",
    *(text.encode() for text, _ in (*CASES.values(), *HONEST.values()) if len(text) < 1000),
]
TOKENS = [
    b"FROM ", b"alpine", OTHER, b"\nFROM " + OTHER + b"\n", b"\nCOPY --from=" + OTHER + b" / /x\n", b" AS ", b"abc",
    b"COPY --from=abc / /x\n", b"RUN ", b"\\\n", b"\\", b"`", b"# escape=`\n", b"# x\n", b"  # x\n", b"<<EOF\n",
    b"EOF\n", b"<<-'E'\n", b"ONBUILD ", b"ARG A=alpine\n", b"$A", b"${A:-x}", b"--from=", b"--chown=a ", b"LABEL a=b\n",
    b"LABEL ", b'"', b"'", b"\n", b"\r\n", b"\t", b" ", b"\x1c", b"\xc2\xa0", b"ADD ", b"http://x", b"[", b"]", b"0",
]  # fmt: skip
_SURE = re.compile(rb"(?:FROM %s|COPY --from=%s / /x)" % (OTHER, OTHER))
_OPEN = re.compile(rb".*[\\`]\s*|\s*(?:#.*)?", re.DOTALL)
"""A line behind which an instruction may go on."""


def run(data: bytes) -> object:
    """Judge it as the gate does."""
    return _judged(data, lambda text: dockerfile.check_dockerfile(text, args={}, contexts=set()))


def _judged(data: bytes, judge: Callable[[str], DockerfileFindings]) -> object:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    faults = judge(text)
    lines = data.split(b"\n")
    for before, line in itertools.pairwise(lines):
        if _SURE.fullmatch(line.rstrip(b"\r")) and not _OPEN.fullmatch(before):
            assert faults.found, line
    return len(faults.found)


def _trusting(text: str) -> DockerfileFindings:
    """One that believes that every line behind `RUN` belongs to it."""
    return dockerfile.check_dockerfile(text.partition("RUN")[0], args={}, contexts=set())


FAULTS = {"what stands behind RUN is overlooked": lambda data: _judged(data, _trusting)}
