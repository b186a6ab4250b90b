"""`.gitignore` means what git says that it means, whichever way the tree goes."""

import os
import subprocess
from pathlib import Path

import pytest
from dulwich.ignore import IgnoreFilterManager
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import BackendError
from sandboxer.hosts.base import Host
from sandboxer.hosts.trees.gitignore import ignored, parse
from sandboxer.hosts.trees.sync import scan
from sandboxer.timing import Deadline
from tests.hosts.test_sync import Way, by_rsync, by_tar, walked
from tests.sizes import scaled
from tests.testbed.components import need


def plant(top: Path, names: list[str], ignore: dict[str, str]) -> Path:
    """A tree with these files, and .gitignore files by their directory."""
    for name in names:
        path = top / name
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for directory, text in ignore.items():
        if (top / directory).is_dir():
            (top / directory / ".gitignore").write_bytes(os.fsencode(text))
    return top


def taken_by_git(top: Path) -> set[str]:
    """What `git add .` would take."""
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": str(top / ".git")}
    env = {**os.environ, **nothing}
    subprocess.run(["git", "init", "-q", "--template=", str(top)], check=True, env=env)
    words = ["git", "-C", str(top), "ls-files", "-z", "--others", "--exclude-standard"]
    done = subprocess.run(words, check=True, env=env, capture_output=True)
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}


def files(top: Path) -> set[str]:
    """The files below a directory."""
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.mark.parametrize("way", [by_rsync, by_tar])
def test_what_git_takes_arrives_and_nothing_else(host: Host, tmp_path: Path, way: Way) -> None:
    names = ["a.log", "keep.log", "top", "x/top", "b/c", "x/b/c", "#h", "foo/1", "x/foo/2", "-d", "new\nline", "$(id)"]
    rules = "*.log\n!keep.log\n/top\nb/c\n\\#h\nfoo/\n"
    source, target = plant(tmp_path / "so urce", names, {".": rules}), tmp_path / "target"
    source.chmod(0o755)
    (source / "x").chmod(0o751)
    way(host, source, str(target), Deadline(30), exclude=["/-d"], gitignore=True)
    assert files(target) == {".gitignore", "keep.log", "x/top", "x/b/c", "new\nline", "$(id)"}
    assert [path.stat().st_mode & 0o777 for path in (target, target / "x")] == [0o755, 0o751]


def test_a_list_of_what_is_wanted_lets_that_in(tmp_path: Path) -> None:
    source = plant(tmp_path, ["compose.yaml", "src/main.py", "src/main.pyc", "data/dump"], {".": "/*\n!/src\n*.pyc\n"})
    assert walked(source) == {".", "src", "src/main.py"}


def test_a_gitignore_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "sub").symlink_to("sub")
    (tmp_path / ".gitignore").write_text("x")
    assert scan(tmp_path, gitignore=True).names == [".", ".gitignore", "sub"]
    with pytest.raises(BackendError, match="nowhere"):
        scan(tmp_path / "nowhere", gitignore=True)


piece = st.sampled_from(
    ["a", "b", "ab", "*", "**", "?", "[ab]", "[!a]", "[a-", "]", "[[:alpha:]]", "\\", "\\*", "ü", "-"]
)
line = st.one_of(
    st.lists(st.one_of(piece, st.just("/")), max_size=6).map("".join),
    st.sampled_from(["# no", "\\#", "!", "/", "a ", "a\\ ", "", "\r", "a\r", "!a", "!/a/b", "!**/b", "\\!a", "a//b"]),
)
name = st.sampled_from(["a", "b", "ab", "aa", "ü", "#", "a ", "!a", "-", "*", "[a-"])


@settings(max_examples=scaled(40, soak=3000), deadline=None)
@given(
    names=st.lists(st.lists(name, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12),
    rules=st.lists(st.tuples(st.sampled_from(["", "!"]), line).map("".join), max_size=5),
    inner=st.lists(st.tuples(st.sampled_from(["", "!"]), line).map("".join), max_size=3),
)
def test_any_rules_are_read_as_git_reads_them(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], rules: list[str], inner: list[str]
) -> None:
    need("git")
    top = plant(tmp_path_factory.mktemp("tree"), names, {".": "\n".join(rules), "a": "\n".join(inner)})
    assert {name for name in walked(top, ["/.git"]) if not (top / name).is_dir()} == taken_by_git(top)


def taken_by_dulwich(top: Path) -> set[str]:
    """What dulwich would take."""
    manager = IgnoreFilterManager(str(top), [], False)

    def is_taken(path: str) -> bool:
        parts = path.split("/")
        above = ("/".join(parts[:count]) + "/" for count in range(1, len(parts)))
        return not any(manager.is_ignored(directory) for directory in above) and not manager.is_ignored(path)

    return {path for path in files(top) if is_taken(path)}


@settings(max_examples=scaled(40, soak=3000), deadline=None)
@given(
    names=st.lists(st.lists(name, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12),
    rules=st.lists(
        st.tuples(st.sampled_from(["", "!"]), line).map("".join).filter(lambda rule: "//" not in rule), max_size=5
    ),
)
def test_any_rules_are_read_as_dulwich_reads_them(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], rules: list[str]
) -> None:
    """A second reading of the same words, without git's code and ours."""
    top = plant(tmp_path_factory.mktemp("tree"), names, {".": "\n".join(rules)})
    assert {name for name in walked(top) if not (top / name).is_dir()} == taken_by_dulwich(top)


@pytest.mark.parametrize(
    ("place", "rules"),
    [
        (".", "a//\n"),  # several slashes at the end
        ("a", "**/\n"),  # a rule that is about directories, and is applied to the one that it stands in
    ],
)
def test_where_dulwich_reads_otherwise_git_reads_as_we_do(tmp_path: Path, place: str, rules: str) -> None:
    need("git")
    top = plant(tmp_path, ["a/b", "c"], {place: rules})
    taken = {name for name in walked(top) if not (top / name).is_dir()}
    assert taken != taken_by_dulwich(top)
    assert taken == taken_by_git(top)


@given(data=st.binary(max_size=60), path=st.text(alphabet="ab/[]*ü", min_size=1, max_size=8))
def test_no_bytes_break_the_reader(data: bytes, path: str) -> None:
    ignored(parse(data), path.strip("/"), is_directory=False)
