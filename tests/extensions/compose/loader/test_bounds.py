"""What a stranger wrote costs little, however it is written: each bomb in a child with 384 MiB of address space."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[4]
_CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (384 << 20, 384 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from sandboxer.errors import SandboxerError
from tests.extensions.compose.loader.repositories import loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    loaded(json.load(sys.stdin))
    said = "loaded"
except SandboxerError as error:
    said = f"{error.code}: {error.message}"
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"said": said, "grown": grown // 1024}))
"""


def _child(tree: Mapping[str, str]) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(tree).encode(),
        capture_output=True,
        cwd=REPOSITORY,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    answer = json.loads(done.stdout)
    return answer["said"], answer["grown"]


def _main(text: str) -> dict[str, str]:
    return {"compose.yaml": text}


WEB = "services: {w: {image: a}}\n"
BIG = "{image: a, environment: {" + ",".join(f"E{i}: 1" for i in range(5000)) + "}}"
BOMBS: dict[str, tuple[dict[str, str], str]] = {
    "aliases of one long scalar": (
        _main("x-a: &a " + "x" * 200_000 + "\nx-b: [" + ",".join(["*a"] * 4000) + "]\n" + WEB),
        "of text once aliases",
    ),
    "a billion laughs": (
        _main("a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)) + WEB),
        "values once aliases",
    ),
    "merge keys that double": (
        _main("a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, k{i}: 1}}\n" for i in range(1, 5000))),
        "values once aliases",
    ),
    "a list of a hundred thousand merge keys": (
        _main(
            "a: &a {" + ",".join(f"k{i}: 1" for i in range(500)) + "}\nb: {<<: [" + ",".join(["*a"] * 100_000) + "]}"
        ),
        "values once aliases",
    ),
    "30,000 brackets": (_main("[" * 30_000), "nested deeper"),
    "a million brackets": (_main("[" * 1_000_000), "nested deeper"),
    "braces in braces": (_main("{a: " * 200_000), "nested deeper"),
    "a thousand levels of indentation": (_main("\n".join(" " * i + "a:" for i in range(1300))), "nested deeper"),
    "lists in one line": (_main("- " * 400_000), "nested deeper"),
    "keys in keys": (_main("? " * 400_000), "a key that is not a word"),
    "a tower of aliases": (
        _main("a0: &a0 {}\n" + "".join(f"a{i}: &a{i} {'[' * 50}*a{i - 1}{']' * 50}\n" for i in range(1, 300))),
        "nested deeper",
    ),
    "more bytes than a file may have": (_main("x" * 2_000_000), "larger than 1024 KiB"),
    "half a million numbers": (_main("x: [" + "1," * 500_000 + "]"), "values once aliases"),
    "a hundred thousand documents": (_main("--- {}\n" * 100_000), "documents"),
    "one variable a hundred thousand times": (
        {
            "compose.yaml": "services: {w: {image: a, labels: {"
            + ",".join(f'l{i}: "{"$A" * 100}"' for i in range(1000))
            + "}}}",
            ".env": "A=" + "x" * 500_000,
        },
        "of text once aliases",
    ),
    "one long variable a hundred thousand times in one text": (
        {
            "compose.yaml": 'services: {w: {image: a, labels: {l: "' + "${B:-$A}" * 100_000 + '"}}}',
            ".env": "A=" + "x" * 1_000_000,
        },
        "of text once aliases",
    ),
    "one long variable ten thousand times in one line of .env": (
        {"compose.yaml": WEB, ".env": "A=" + "x" * 1_000_000 + "\nB=" + "$A" * 10_000},
        "of text once aliases",
    ),
    "one long variable named by a thousand services": (
        {
            "compose.yaml": "services: {"
            + ",".join(f"w{i}: {{image: a, environment: [A]}}" for i in range(2000))
            + "}",
            ".env": "A=" + "x" * 900_000,
        },
        "of text once aliases",
    ),
    "variables of .env that double": (
        {
            "compose.yaml": WEB,
            ".env": "A0=xxxxxxxxxxxxxxxx\n" + "".join(f"A{i}=$A{i - 1}$A{i - 1}\n" for i in range(1, 60)),
        },
        "of text once aliases",
    ),
    "variables in variables": (_main('services: {w: {image: "' + "${A:-" * 99_999 + "}" * 99_999 + '"}}'), "brace"),
    "variables that never close": (_main('services: {w: {image: "' + "${A" * 300_000 + '"}}'), "brace"),
    "an include of itself": (_main("include: [compose.yaml]\n" + WEB), "includes itself"),
    "two files that include one another": (
        {"compose.yaml": "include: [b.yaml]\n" + WEB, "b.yaml": "include: [compose.yaml]\n"},
        "includes itself",
    ),
    "includes that double": (
        {"compose.yaml": "include: [a1.yaml, a1.yaml]\n" + WEB}
        | {f"a{i}.yaml": f"include: [a{i + 1}.yaml, a{i + 1}.yaml]\n" for i in range(1, 25)}
        | {"a25.yaml": "{}"},
        "files that are read",
    ),
    "one long file included a thousand times": (
        {
            "compose.yaml": "include: [" + ",".join(["b.yaml"] * 1000) + "]\n" + WEB,
            "b.yaml": "x: '" + "x" * 900_000 + "'",
        },
        "of compose files",
    ),
    "extends of itself": (_main("services: {a: {extends: b}, b: {extends: a}}"), "extends itself"),
    "extends twenty thousand deep": (
        _main(
            "services:\n" + "".join(f" a{i}: {{extends: a{i + 1}}}\n" for i in range(20_000)) + " a20000: {image: a}"
        ),
        "more than 32 extends",
    ),
    "one long service extended five thousand times": (
        _main("services:\n" + "".join(f" a{i}: {{extends: z}}\n" for i in range(5000)) + f" z: {BIG}"),
        "values once aliases",
    ),
    "a file of a long service extended five thousand times": (
        {
            "compose.yaml": "services:\n"
            + "".join(f" a{i}: {{extends: {{file: b.yaml, service: z}}}}\n" for i in range(5000)),
            "b.yaml": "services: {z: " + BIG + "}",
        },
        "values once aliases",
    ),
    "ranges of ports": (
        _main("services: {w: {image: a, ports: [" + ",".join(["'1-4000'"] * 5000) + "]}}"),
        "values once aliases",
    ),
    "one env file for two thousand services": (
        {
            "compose.yaml": "services: {" + ",".join(f"w{i}: {{image: a, env_file: e}}" for i in range(2000)) + "}",
            "e": "".join(f"A{i}=1\n" for i in range(1000)),
        },
        "values once aliases",
    ),
    "a circle of a thousand services": (
        _main(
            "services: {" + ",".join(f"w{i}: {{image: a, depends_on: [w{(i + 1) % 1000}]}}" for i in range(1000)) + "}"
        ),
        "depends on itself",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_with_little_memory(name: str) -> None:
    tree, reason = BOMBS[name]
    said, grown = _child(tree)
    assert said.startswith("invalid: ")
    assert reason in said
    assert grown < 150  # MiB


HEAVY: dict[str, dict[str, str]] = {
    "a megabyte of quotes in .env": {"compose.yaml": WEB, ".env": 'A="' * 300_000},
    "a megabyte of comments in .env": {"compose.yaml": WEB, ".env": "#\n" * 500_000},
    "a megabyte of names in .env": {"compose.yaml": WEB, ".env": "A\n" * 500_000},
    "a long command": _main("services: {w: {image: a, command: '" + "a " * 90_000 + "'}}"),
    "a long duration": _main("services: {w: {image: a, stop_grace_period: '" + "1s" * 200_000 + "'}}"),
    "many variables": _main('services: {w: {image: "' + "${A:-x}" * 140_000 + '"}}'),
    "a thousand services that depend on a hundred each": _main(
        "services: {"
        + ",".join(f"w{i}: {{image: a, depends_on: [{','.join(f'w{j}' for j in range(max(0, i - 100), i))}]}}"
                   for i in range(500))
        + "}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_a_large_project_is_loaded_with_little_memory(name: str) -> None:
    said, grown = _child(HEAVY[name])
    assert said == "loaded"
    assert grown < 200  # MiB
