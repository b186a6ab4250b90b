"""What is sent of a repository."""

from pathlib import Path

import pytest

from sandboxer.extensions.compose_ssh.create import sync_excludes
from sandboxer.extensions.compose_ssh.options import ComposeOptions
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline


def test_git_s_own_directory_stays_unless_asked_for() -> None:
    assert sync_excludes(Path("/r"), ComposeOptions(), work_dir=None) == ["/.sandboxer.json", "/.git"]
    assert sync_excludes(Path("/r"), ComposeOptions(include_git=True), work_dir=None) == ["/.sandboxer.json"]


@pytest.mark.parametrize("inside", ["work", "a b/c", "w*[x]/\\y", "b\\c", "."])
@pytest.mark.parametrize("gitignore", [False, True])
def test_a_repository_that_holds_the_work_directory_is_not_copied_into_itself(
    tmp_path: Path, inside: str, gitignore: bool
) -> None:
    repo = tmp_path / "repo"
    for name in (f"{inside}/sbx-other/theirs", f"{inside}/.sandboxer/sbx-other/handle.json", "own/file"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text("x")
    target = tmp_path / "target"
    exclude = sync_excludes(repo, ComposeOptions(), work_dir=str(repo / inside))
    LocalHost("local", HostSettings()).sync(repo, str(target), Deadline(30), exclude=exclude, gitignore=gitignore)
    assert {path.name for path in target.rglob("*") if path.is_file()} == {"file"}


def test_a_work_directory_elsewhere_leaves_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    usual = sync_excludes(tmp_path / "repo", ComposeOptions(), work_dir=None)
    for elsewhere in ("work", "repo-2", "..x"):
        assert sync_excludes(tmp_path / "repo", ComposeOptions(), work_dir=str(tmp_path / elsewhere)) == usual
