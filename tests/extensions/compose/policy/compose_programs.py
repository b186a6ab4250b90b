"""The three compose programs, asked what they make of a file. Python programs are imported once and forked."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from sandboxer.extensions.compose_ssh.policy import ComposeProgram
from tests.testbed.components import cache_folder, which

_FORKS: Final = """
import io, os, sys, traceback
sys.argv = ["compose", "--help"]
mode, files = {mode!r}, sys.stdin.read().split("\\n")
if mode == "v1":
    from compose.cli import main as program
    enter = program.main
else:
    import podman_compose as program
    enter = program.main
for file in files:
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0); os.dup2(nothing, 1)
        read = os.open(file + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(read, 2)
        sys.argv = ["compose", "-f", file, "-p", "sbx-k3v9x2m7q4ta", "config"]
        code = 1
        try:
            enter(); code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    print(file, os.waitstatus_to_exitcode(status), flush=True)
"""


def program_of(program: ComposeProgram) -> list[str] | None:
    """The words that start it, None when it is not here. `config` needs no engine."""
    if program is ComposeProgram.DOCKER:
        found = cache_folder() / "compose-v2/docker-compose"
        return [str(found)] if found.exists() else None
    if program is ComposeProgram.V1:
        asked = subprocess.run(["/usr/bin/python3", "-c", "import compose.cli.main"], capture_output=True, check=False)
        return ["/usr/bin/python3"] if asked.returncode == 0 else None
    python = cache_folder() / "podman-compose/bin/python"
    return [str(python)] if python.exists() and which("podman") else None


def refused_by(program: ComposeProgram, words: list[str], files: list[Path]) -> dict[str, str]:
    """The files that the program's `config` does not take, with what it said."""
    if program is ComposeProgram.DOCKER:
        return {
            file.name: answer.stderr
            for file in files
            if (answer := _config([*words, "-f", str(file), "-p", "sbx-k3v9x2m7q4ta", "config", "-q"])).returncode
        }
    script = _FORKS.format(mode="v1" if program is ComposeProgram.V1 else "podman")
    listed = "\n".join(map(str, files))
    answer = subprocess.run(
        [*words, "-c", script], input=listed, capture_output=True, text=True, timeout=300, check=True, env=_ENV
    )
    codes = dict(line.rsplit(" ", 1) for line in answer.stdout.splitlines())
    assert set(codes) == set(map(str, files)), answer.stderr
    return {Path(file).name: Path(f"{file}.err").read_text() for file, code in codes.items() if code != "0"}


_ENV: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent"}


def _config(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=_ENV)
