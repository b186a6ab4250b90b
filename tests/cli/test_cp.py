"""`sandboxer cp`, held against what `cp -r` does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import Command


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    command = Command(tmp_path)
    assert command("create", "--profile", "profile.fake", "--name", "box").status == 0
    tree = tmp_path / "src"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_text("a\n")
    (tree / "sub" / "b").write_text("b\n")
    (tmp_path / "flink").symlink_to("src/a")
    (tmp_path / "dlink").symlink_to("src")
    return command


def inside(sandboxer: Command, script: str) -> str:
    answer = sandboxer("exec", "box", "--", "sh", "-c", script)
    assert answer.status == 0, answer.stderr
    return answer.stdout


CASES = [
    ("src/a", "new"), ("src/a", "there"), ("src/a", "there/"), ("src/a", "file"), ("src", "new"), ("src", "there"),
    ("src/", "there"), ("src/.", "new"), ("src/.", "there"), ("src/./", "there/"), ("src/sub/..", "there"),
    ("flink", "there"), ("flink", "new"), ("dlink", "there"), ("dlink/.", "there"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), CASES)
def test_a_copy_in_lands_where_cp_puts_it(sandboxer: Command, tmp_path: Path, source: str, target: str) -> None:
    layout = "mkdir there; echo old > there/old; echo old > file; "
    model = tmp_path / "model"
    model.mkdir()
    script = f"{layout} cp -rH -- '{tmp_path}/{source}' '{target}'"
    subprocess.run(["sh", "-c", script], cwd=model, check=True, timeout=30)
    inside(sandboxer, f"rm -rf ./*; {layout}")
    answer = sandboxer("cp", source, f"box:{target}")
    assert answer.status == 0, answer.stderr
    found = inside(sandboxer, "find . -type f | sort | xargs grep ''")
    expected = subprocess.run(
        ["sh", "-c", "find . -type f | sort | xargs grep ''"], cwd=model, capture_output=True, check=True, timeout=30
    )
    assert found == expected.stdout.decode()


@pytest.mark.parametrize(("source", "target"), [case for case in CASES if "link" not in case[0]])
def test_a_copy_out_lands_where_cp_puts_it(sandboxer: Command, tmp_path: Path, source: str, target: str) -> None:
    layout = "mkdir there; echo old > there/old; echo old > file; "
    model, mine = tmp_path / "model", tmp_path / "mine"
    for place in (model, mine):
        place.mkdir()
        subprocess.run(["sh", "-c", layout], cwd=place, check=True, timeout=30)
    subprocess.run(["cp", "-r", "--", f"{tmp_path}/{source}", target], cwd=model, check=True, timeout=30)
    inside(sandboxer, "rm -rf ./*; mkdir -p src/sub; echo a > src/a; echo b > src/sub/b")
    answer = sandboxer("cp", f"box:{source}", f"mine/{target}")
    assert answer.status == 0, answer.stderr
    assert contents(mine) == contents(model)


def contents(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


def test_the_contents_of_an_empty_directory_make_an_empty_directory(sandboxer: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert sandboxer("cp", "empty/.", "box:made/").status == 0
    assert inside(sandboxer, "ls -A made; test -d made") == ""


def test_a_directory_does_not_take_the_place_of_a_file(sandboxer: Command, tmp_path: Path) -> None:
    inside(sandboxer, "echo keep > kept")
    for words in (("src", "box:kept"), ("src/.", "box:kept"), ("src/a", "box:kept/"), ("src/a", "box:kept/below")):
        answer = sandboxer("cp", *words, "--json")
        assert answer.status in (2, 7), answer
        assert answer.error["hint"]
    assert inside(sandboxer, "cat kept") == "keep\n"
    (tmp_path / "kept").write_text("keep\n")
    assert sandboxer("cp", "box:.", "kept").status == 2
    assert (tmp_path / "kept").read_text() == "keep\n"


def test_what_is_no_file_is_refused_and_not_silently_left_out(sandboxer: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused = sandboxer("cp", "pipe", "box:pipe", "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid")
    inside(sandboxer, "mkfifo pipe")
    refused = sandboxer("cp", "box:pipe", "out", "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid")


def test_what_is_left_out_of_a_tree_is_told(sandboxer: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "src" / "pipe")
    copied = sandboxer("cp", "src", "box:tree")
    assert (copied.status, copied.stdout) == (0, "")
    assert "1 left out" in copied.stderr
    inside(sandboxer, "ln -s a tree/link; ln -s /etc/passwd tree/out")
    copied = sandboxer("cp", "box:tree", "back", "--json")
    assert (copied.status, copied.document["left_out"]) == (0, 2)
    assert copied.document["left_out_said"] == ["tree/link: a symbolic link", "tree/out: a symbolic link"]
    assert contents(tmp_path / "back") == {"a": "a\n", "sub/b": "b\n"}


def test_a_copy_out_that_lacks_more_than_links_is_partial_and_says_what(sandboxer: Command, tmp_path: Path) -> None:
    inside(sandboxer, "mkdir tree; echo a > tree/a; mkfifo tree/pipe; ln -s a tree/link")
    copied = sandboxer("cp", "box:tree", "back")
    assert (copied.status, copied.stdout) == (10, "")
    assert "2 left out:" in copied.stderr
    assert "tree/pipe: a pipe" in copied.stderr
    assert "links, devices, sockets or pipes" not in copied.stderr
    copied = sandboxer("cp", "box:tree", "again", "--json")
    assert (copied.status, copied.document["left_out"]) == (10, 2)
    assert copied.document["left_out_said"] == ["tree/link: a symbolic link", "tree/pipe: a pipe"]
    assert contents(tmp_path / "again") == {"a": "a\n"}


def test_a_file_of_holes_keeps_them_inside(sandboxer: Command, tmp_path: Path) -> None:
    with (tmp_path / "src" / "holes").open("wb") as file:
        file.truncate(100 << 20)
        file.seek(50 << 20)
        file.write(b"middle")
    copied = sandboxer("cp", "src", "box:tree")
    assert (copied.status, copied.stderr) == (0, "")
    assert inside(sandboxer, "stat -c %s tree/holes").strip() == str(100 << 20)
    assert int(inside(sandboxer, "du -k tree/holes").split()[0]) < 1024
    assert inside(sandboxer, "tail -c +52428801 tree/holes | head -c 6") == "middle"


def test_a_link_to_anywhere_goes_in_as_a_link_and_nothing_is_written_through_it(
    sandboxer: Command, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "src" / "out").symlink_to(precious)
    (tmp_path / "src" / "up").symlink_to("../../../up")
    for _ in range(2):
        copied = sandboxer("cp", "src", "box:tree/")
        assert copied.status == 0, copied.stderr
    found = inside(sandboxer, "readlink tree/src/out tree/src/up; cat tree/src/a tree/src/sub/b").split()
    assert found == [str(precious), "../../../up", "a", "b"]
    (tmp_path / "src" / "out").unlink()
    (tmp_path / "src" / "out").write_text("file")
    copied = sandboxer("cp", "src", "box:tree/")
    assert copied.status == 0, copied.stderr
    assert inside(sandboxer, "test -L tree/src/out || cat tree/src/out") == "file"
    assert precious.read_text() == "precious"
    inside(sandboxer, f"rm -r tree/src/sub tree/src/out; ln -s '{tmp_path}' tree/src/sub")
    copied = sandboxer("cp", "src", "box:tree/")
    assert copied.status != 0
    assert not (tmp_path / "b").exists()


def test_a_link_that_is_asked_for_by_name_is_followed_as_cp_does_from_outside(
    sandboxer: Command, tmp_path: Path
) -> None:
    inside(sandboxer, "echo text > file; ln -s file link")
    assert sandboxer("cp", "box:link", "out").status == 0
    assert (tmp_path / "out").read_text() == "text\n"


def test_hard_links_come_out_as_one_file(sandboxer: Command, tmp_path: Path) -> None:
    inside(sandboxer, "mkdir d; echo one > d/a; ln d/a d/b; ln d/a d/c")
    assert sandboxer("cp", "box:d", "out").status == 0
    assert contents(tmp_path / "out") == {"a": "one\n", "b": "one\n", "c": "one\n"}
    assert (tmp_path / "out" / "a").stat().st_nlink == 3


@pytest.mark.parametrize("name", ["x" * 300, "src/a/below", "\udcff", "loop"])
def test_a_name_that_cannot_be_is_an_error_and_no_bug(sandboxer: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    inside(sandboxer, "ln -s loop loop; mkdir src; echo a > src/a")
    for words in ((name, "box:"), (f"box:{name}", "out")):
        answer = sandboxer("cp", *words, "--json")
        assert answer.error["code"] in ("not_found", "invalid"), answer
    if name not in ("\udcff", "loop"):  # a link inside is replaced, wherever it leads
        answer = sandboxer("cp", "src/sub/b", f"box:{name}", "--json")
        assert answer.error["code"] in ("invalid", "backend_error"), answer


def test_a_copy_out_is_bounded_by_what_it_takes_here(sandboxer: Command, tmp_path: Path) -> None:
    inside(sandboxer, "mkdir d; head -c 3000000 /dev/urandom > d/big; truncate -s 100M d/holes")
    refused = sandboxer("cp", "box:d", "made/out", "--max-size", "1M", "--json")
    assert (refused.status, refused.error["code"]) == (11, "denied")
    assert "--max-size" in refused.error["hint"]
    assert not (tmp_path / "made").exists()
    assert sandboxer("cp", "box:d", "made/out", "--max-size", "4MiB").status == 0
    assert (tmp_path / "made" / "out" / "holes").stat().st_size == 100 << 20
    assert sum(file.stat().st_blocks for file in (tmp_path / "made" / "out").iterdir()) * 512 < 4 << 20


@pytest.mark.parametrize("words", [("box:x", "y", "--max-size", "much"), ("src", "box:y", "--max-size", "1M")])
def test_a_bound_that_makes_no_sense_is_refused(sandboxer: Command, words: tuple[str, ...]) -> None:
    refused = sandboxer("cp", *words, "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid")
