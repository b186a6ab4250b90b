"""`make install`: which way it takes, what it does not touch, and what it says of the PATH.

The programs that install are stand-ins that write down how they were called."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).parents[1] / "scripts"
_COMMAND = "#!/bin/sh\necho sandboxer 9.9\n"
_PIPX = """\
#!/bin/sh
echo "pipx $PIP_CONSTRAINT $@" >>"$HOME/called"
case $1 in
  environment) echo "$HOME/pipx-bin" ;;
  install) mkdir -p "$HOME/pipx-bin"; cp "$HOME/command" "$HOME/pipx-bin/sandboxer" ;;
esac
"""
_UV = """\
#!/bin/sh
echo "uv $@" >>"$HOME/called"
case $2 in
  dir) echo "$HOME/uv-bin" ;;
  install) mkdir -p "$HOME/uv-bin"; cp "$HOME/command" "$HOME/uv-bin/sandboxer" ;;
esac
"""
_PYTHON = f"""\
#!/bin/sh
echo "python $@" >>"$HOME/called"
[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
mkdir -p "$4/bin"
cp "$HOME/installs" "$4/bin/python"
"""
_INSTALLS = '#!/bin/sh\necho "pip $@" >>"$HOME/called"\ncp "$HOME/command" "${0%/*}/sandboxer"\n'
BIN = ".local/bin/sandboxer"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the stand-ins, and a checkout in it."""
    (tmp_path / "checkout" / "scripts").mkdir(parents=True)
    for name in ("install", "venv"):
        shutil.copy(_SCRIPTS / name, tmp_path / "checkout" / "scripts")
    (tmp_path / "programs").mkdir()
    _program(tmp_path / "command", _COMMAND)
    _program(tmp_path / "installs", _INSTALLS)
    _program(tmp_path / "programs" / "python9", _PYTHON)
    return tmp_path


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def install(home: Path, *folders: str) -> subprocess.CompletedProcess[str]:
    """Run it with these folders of the home first on the PATH."""
    path = ":".join([*(str(home / folder) for folder in ("programs", *folders)), "/usr/bin", "/bin"])
    words = [str(home / "checkout" / "scripts" / "install"), "python9"]
    return subprocess.run(
        words,
        env={"HOME": str(home), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("program", "text", "folder", "called"),
    [
        ("pipx", _PIPX, "pipx-bin", "install --force --python {home}/programs/python9 ."),
        ("uv", _UV, "uv-bin", "--python {home}/programs/python9 --constraints constraints.txt ."),
    ],
)
def test_the_installer_that_is_there_is_used_with_the_pinned_versions(
    home: Path, program: str, text: str, folder: str, called: str
) -> None:
    _program(home / "programs" / program, text)
    done = install(home, folder)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-2:] == ["sandboxer 9.9", "sandboxer is on the PATH"]
    first = (home / "called").read_text().splitlines()[0]
    assert first.endswith(called.format(home=home))
    assert "constraints.txt" in first
    assert not (home / ".local").exists()


def test_without_one_it_is_an_environment_of_its_own_and_again_is_an_update(home: Path) -> None:
    for _ in range(2):
        done = install(home, ".local/bin")
        assert done.returncode == 0, done.stdout
        assert done.stdout.endswith("sandboxer is on the PATH\n")
    assert (home / BIN).readlink() == home / ".local/share/sandboxer-command/bin/sandboxer"
    assert (
        "pip -m pip install --quiet --disable-pip-version-check -c constraints.txt ." in (home / "called").read_text()
    )


def test_what_to_type_is_said_where_the_path_lacks_it(home: Path) -> None:
    done = install(home)
    assert done.returncode == 0, done.stdout
    assert f'    export PATH="{home}/.local/bin:$PATH"' in done.stdout.splitlines()


def test_another_command_that_comes_first_is_named(home: Path) -> None:
    _program(home / "programs" / "sandboxer", _COMMAND)
    done = install(home, ".local/bin")
    assert done.returncode == 0, done.stdout
    assert f"but {home}/programs/sandboxer comes first on the PATH" in done.stdout


@pytest.mark.parametrize("there", ["a file", "a link to nothing"])
def test_what_somebody_else_put_there_stays(home: Path, there: str) -> None:
    (home / BIN).parent.mkdir(parents=True)
    if there == "a file":
        (home / BIN).write_text("precious")
    else:
        (home / BIN).symlink_to(home / "elsewhere")
    done = install(home)
    assert done.returncode == 1
    assert f"{home}/{BIN} is there and not made by this" in done.stdout
    assert (home / BIN).is_symlink() == (there != "a file")
    assert not (home / ".local/share").exists()
