"""Dockerfiles that one builder reads otherwise than another: what any of them would do is judged, or nothing is built.

Each of these got another sandbox's image, or an address, past a reader that knew one way only.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.extensions.compose.policy.corpora import judged

OTHER = "sbx-aaaaaaaaaaaa"
LOOT = f"COPY --from={OTHER} / /loot\n"

CASES: dict[str, tuple[str, dict[str, str]]] = {
    # where an instruction ends
    "two escapes at the end of a line are none to newer builders": (f"FROM alpine\nRUN echo \\\\\n{LOOT}", {}),
    "a separator that is a space to Python alone before a comment": (f"FROM alpine\nRUN echo \\\n\x1c# x\n{LOOT}", {}),
    "a line with nothing but such a separator": (f"FROM alpine\nRUN echo \\\n\x1f\n{LOOT}", {}),
    "an escape directive with its sign far to the right": (
        "#" + " " * 30 + "escape=" + " " * 500 + "`\n" + f"FROM alpine\nRUN dir C:\\\n{LOOT}", {},
    ),
    "a syntax directive far to the right": ("#" + " " * 500 + "syntax=example.com/any\nFROM alpine\n", {}),
    # arguments
    "an argument whose name goes on in the next line": ("ARG BA\\\nSE=alpine\nFROM $BA\\\nSE\n", {"BASE": OTHER}),
    "an argument that is taken back": (f"ARG A=alpine\nARG A\nFROM ${{A:-{OTHER}}}\n", {}),
    "an argument that is given twice": (f"ARG A=alpine\nARG A={OTHER}\nFROM $A\n", {}),
    "an argument that the builder gives": ("FROM ${TARGETOS:+s}bx-aaaaaaaaaaaa\n", {}),
    "an argument that the builder gives, declared": ("ARG TARGETOS\nFROM ${TARGETOS:+s}bx-aaaaaaaaaaaa\n", {}),
    "a name that begins with a digit": ("ARG 1sbx=foo\nFROM $1sbx-aaaaaaaaaaaa\n", {}),
    "an empty argument with a word for unset ones": (f"ARG A=\nARG B={OTHER}\nFROM ${{A-foo}}${{B}}\n", {}),
    "an empty argument with a word for set ones": ("ARG A=\nFROM ${A+s}bx-aaaaaaaaaaaa\n", {}),
    # flags
    "a quoted flag with a space before another flag": (f"FROM alpine\nCOPY --chown='0 0' --from={OTHER} / /loot\n", {}),
    "a letter whose second byte is a space to builders": (
        f"FROM alpine\nCOPY --chown=\u00e0--from={OTHER} / /loot\n", {},
    ),
    # stages
    "a stage by its number as a base": ("FROM alpine\nFROM 0\n", {}),
    "a stage by its own number": ("FROM alpine\nCOPY --from=0 / /loot\n", {}),
    "a stage that another sandbox's image is called in other letters": (
        f"FROM alpine AS {OTHER.upper()}\nFROM alpine\n{LOOT}", {},
    ),
    "a stage that only a script declares": (
        f"FROM alpine\nRUN <<\u00e9\nFROM alpine AS {OTHER}\nFROM alpine\n\u00e9\n{LOOT}", {},
    ),
    "a stage with the beginning of an id that only a script declares": (
        "FROM alpine\nRUN echo $((1<<CMD))\nRUN <<X\nFROM alpine AS abc\nX\nCOPY --from=abc / /loot\n", {},
    ),
    "an indented comment that old builders do not know": (f"FROM alpine\nRUN echo \\\n  # x\n{LOOT}", {}),
    "a stage that a build on this image does not have": (
        "FROM alpine AS abc\nFROM alpine\nONBUILD COPY --from=abc / /loot\n", {},
    ),
    "a trigger of a trigger of a trigger": ("FROM alpine\n" + "ONBUILD " * 5000 + "RUN true\n", {}),
    # addresses
    "an address in pieces": ('FROM alpine\nADD http:""//169.254.169.254/latest /x\n', {}),
    "an address with an escape": ("FROM alpine\nADD http:\\//169.254.169.254/latest /x\n", {}),
    "an address in pieces in a list": ('FROM alpine\nADD ["http:\'\'//169.254.169.254/latest", "/x"]\n', {}),
    "a repository by a user of another name": ("FROM alpine\nADD me@169.254.169.254:x /x\n", {}),
    "a repository by the old short form": ("FROM alpine\nADD github.com/a/b /x\n", {}),
}  # fmt: skip


def repository(root: Path, dockerfile: str, args: dict[str, str]) -> Path:
    compose = {"services": {"a": {"build": {"context": ".", "args": args}}}}
    (root / "compose.yaml").write_text(json.dumps(compose))
    (root / "Dockerfile").write_bytes(dockerfile.encode())
    return root


@pytest.mark.parametrize("name", CASES)
def test_what_builders_read_in_different_ways_is_refused(name: str, tmp_path: Path) -> None:
    dockerfile, args = CASES[name]
    verdict = judged(repository(tmp_path, dockerfile, args))
    assert verdict.violations, dockerfile
    assert all(one.file == "Dockerfile" for one in verdict.violations)


HONEST: dict[str, tuple[str, dict[str, str]]] = {
    "stages by name, number and in other letters": (
        "FROM node:20 AS Build\nRUN npm ci\nFROM build AS second\nFROM nginx\nCOPY --from=0 /a /a\n"
        "COPY --from=BUILD --chown=1000:1000 --link /b /b\nCOPY --from=second /c /c\n", {},
    ),
    "stages with names that could be ids": ("FROM debian AS deb\nFROM alpine\nCOPY --from=deb /a /a\n", {}),
    "arguments": (
        'ARG VERSION=3.20\nARG VARIANT="-slim"\nARG REGISTRY=docker.io/library\n'
        "FROM --platform=$BUILDPLATFORM ${REGISTRY}/python:${VERSION}${VARIANT} AS base\nARG TARGETARCH\n"
        "RUN echo ${TARGETARCH}\nFROM base\n", {"VERSION": "3.12"},
    ),
    "an argument with a default by its own": ("ARG TAG\nFROM alpine:${TAG:-3.20}\n", {}),
    "a script in place": (
        "FROM alpine AS build\nRUN <<EOF\nset -e\necho $((1 << 3))\nEOF\nFROM alpine\nCOPY --from=build /a /b\n", {},
    ),
    "a file in place": ('FROM alpine\nCOPY <<"EOF" /etc/x.conf\n[a]\nb = "c"\nEOF\n', {}),
    "words of other languages": (
        "# f\u00fcr alle \u4f60\u597d\nFROM alpine\nRUN echo 'gr\u00fc\u00df \u00e0 tous \U0001f600'\n"
        "LABEL a='\u00e0'\n", {},
    ),
    "line ends of Windows and a BOM": ("\ufeffFROM alpine\r\nRUN echo a && \\\r\n    echo b\r\nCOPY . /app\r\n", {}),
    "comments between lines": ("FROM alpine\nRUN apk add \\\n    # the first\n    a \\\n\n    b\n", {}),
    "sources with quotes": ('FROM alpine\nCOPY ["a b", "/x"]\nADD "app.tar.gz" /x/\nADD app.tar.gz /y/\n', {}),
    "what is mounted of the context, and memory, for one instruction": (
        "FROM golang AS build\nWORKDIR /src\nRUN --mount=target=. --mount=type=tmpfs,target=/tmp,size=64m go build\n"
        "RUN --mount=type=bind,source=./deploy,dst=/deploy,readonly ls\n", {},
    ),
    "a health check": ("FROM alpine\nHEALTHCHECK --interval=5s --timeout=3s CMD curl -f localhost || exit 1\n", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_what_all_builders_read_alike_passes(name: str, tmp_path: Path) -> None:
    dockerfile, args = HONEST[name]
    assert judged(repository(tmp_path, dockerfile, args)).violations == ()


def test_arguments_that_double_each_other_cost_nothing(tmp_path: Path) -> None:
    lines = ["ARG A0=aaaaaaaaaa", *(f"ARG A{n}=$A{n - 1}$A{n - 1}" for n in range(1, 60))]
    verdict = judged(repository(tmp_path, "\n".join([*lines, "FROM $A59"]), {}))
    assert any("nobody can name" in one.gives_away for one in verdict.violations)


@pytest.mark.parametrize(
    "line",
    ["COPY " + "--link " * 140_000 + "a b", "ADD " + "@" * 900_000 + " /x", "#" + " " * 900_000 + "x",
     "FROM " + "$A" * 400_000,
     "FROM a\n" * 19_000, "RUN " + "<<A " * 200_000, "COPY " + "a " * 400_000],
    ids=["flags", "at signs", "spaces", "variables", "stages", "here-documents", "sources"],
)  # fmt: skip
def test_a_dockerfile_of_a_megabyte_is_read_in_no_time(line: str, tmp_path: Path) -> None:
    began = time.process_time()
    judged(repository(tmp_path, f"FROM alpine\n{line}\n", {}))
    assert time.process_time() - began < 20  # what these guard against took minutes


def test_what_steers_the_builder_itself_is_no_argument_of_a_build(tmp_path: Path) -> None:
    verdict = judged(
        repository(
            tmp_path,
            "FROM alpine\n",
            {"BUILDKIT_SYNTAX": "example.com/any", "BUILDKIT_INLINE_CACHE": "1", "BUILDKIT_SANDBOX_HOSTNAME": "x"},
        )
    )
    assert [(one.path, one.grant) for one in verdict.violations] == [
        ("services.a.build.args.BUILDKIT_SANDBOX_HOSTNAME", None),
        ("services.a.build.args.BUILDKIT_SYNTAX", "frontend:example.com/any"),
    ]


def test_an_ignore_file_through_a_link_is_refused_beside_a_dockerfile_in_place_too(tmp_path: Path) -> None:
    compose = {"services": {"a": {"build": {"context": ".", "dockerfile_inline": "FROM alpine"}}}}
    (tmp_path / "compose.yaml").write_text(json.dumps(compose))
    (tmp_path / ".dockerignore").symlink_to("/dev/zero")
    assert judged(tmp_path).violations


def test_many_dockerfiles_with_arguments_of_their_own_are_not_read_without_end(tmp_path: Path) -> None:
    builds = {f"s{n}": {"build": {"context": ".", "args": {"N": n}}} for n in range(20)}
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": builds}))
    (tmp_path / "Dockerfile").write_text("FROM alpine\n" + "RUN echo aaaaaaaaaaaaaaaaaaaaaaaaaaa\n" * 15_000)
    assert any("MiB of Dockerfiles" in one.gives_away for one in judged(tmp_path).violations)


def test_labels_of_a_dockerfile_are_taken_back_from_the_containers(tmp_path: Path) -> None:
    """A container has its image's labels, and a proxy or an updater of the host would act on them."""
    root = repository(
        tmp_path,
        'FROM alpine\nLABEL maintainer=me version=\'1\' traefik.enable=true "a b"="c \\" d=e" \\\n  x.y=\'1 2\'\n'
        'LABEL swag enable it\nONBUILD LABEL later=1\nLABEL org.opencontainers.image.title="x $y"\n',
        {},
    )
    compose = {"services": {"a": {"build": ".", "image": "ours"}, "b": {"image": "ours"}, "c": {"image": "nginx"}}}
    (root / "compose.yaml").write_text(json.dumps(compose))
    verdict = judged(root)
    wanted = {"traefik.enable": "", "a b": "", "x.y": "", "swag": "", "later": ""}
    services = verdict.document["services"]
    assert services["a"]["labels"] == services["b"]["labels"] == wanted
    assert "labels" not in services["c"]


@pytest.mark.parametrize(
    "line",
    ["sandboxer.id=aaaaaaaaaaaa", "com.docker.compose.project=x", "'Io.Podman.x'=1", "$A=1", 'a"b"=1', "a=1 b", 'a="1',
     "a\\ b=1", "a=`b c=d`", "PODMAN_SYSTEMD_UNIT=x.service", ""],
)  # fmt: skip
def test_a_label_that_claims_something_or_cannot_be_told_is_refused(line: str, tmp_path: Path) -> None:
    (found,) = judged(repository(tmp_path, f"FROM alpine\nLABEL {line}\n", {})).violations
    assert (found.file, found.line) == ("Dockerfile", 2)


def test_a_grant_for_one_frontend_is_none_for_another_and_its_file_is_judged_all_the_same(tmp_path: Path) -> None:
    text = "# syntax=docker/dockerfile:1\nFROM alpine\nRUN --mount=type=cache,target=/c true\n"
    root = repository(tmp_path, text, {})
    granted = [one.grant for one in judged(root, grants=["frontend:docker/dockerfile:1"]).violations]
    assert granted == ["build:cache"]
    other = judged(root, grants=["frontend:docker/dockerfile", "build:cache"]).violations
    assert [one.grant for one in other] == ["frontend:docker/dockerfile:1"]
    verdict = judged(root, grants=["frontend:docker/dockerfile:1", "build:cache"])
    assert verdict.violations == ()
