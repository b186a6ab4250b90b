"""When the SDK is imported, what it reads then, and what happens without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.modal import FakeModal
from tests.installations import environment, lay_out

WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('modal', 'modal_proto', 'grpclib'):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
from sandboxer.cli.main import main
sys.argv = ['sandboxer', 'create', '--profile', 'profile.modal-gpu', '--json']
raise SystemExit(main())
"""


def python(code: str, root: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an installation of its own."""
    if not (root / "config").exists():
        lay_out(root)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(root, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "what",
    [
        "import sandboxer.cli.main",
        "import sandboxer.extensions.modal as m; m.ModalExtension(); m.ModalExtension.Options()",
        "import tests.fakes.modal as m; m.FakeModal()",
        "from sandboxer.cli.main import main; sys.argv = ['sandboxer', 'extensions', 'show', 'ext.modal']\n"
        "try: main()\nexcept SystemExit: pass",
    ],
)
def test_nothing_of_the_sdk_is_imported_before_it_is_needed(tmp_path: Path, what: str) -> None:
    done = python(f"import sys\n{what}\nprint([n for n in sys.modules if n.startswith(('modal', 'grpc'))])", tmp_path)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    python(
        "import sys\nfrom sandboxer.cli.main import main\nsys.argv = ['sandboxer', 'credits', 'add', '9']\nmain()",
        tmp_path,
    )
    done = python(WITHOUT, tmp_path, MODAL_TOKEN_ID="ak-x", MODAL_TOKEN_SECRET="as-x")
    assert done.returncode == 6, done.stderr
    assert "pip install 'sand-boxer[modal]'" in done.stdout


@pytest.mark.parametrize("theirs", [None, "/some/where.toml"])
def test_the_users_own_modal_settings_are_neither_read_nor_changed(
    cloud: FakeModal, tmp_path: Path, theirs: str | None
) -> None:
    lay_out(tmp_path)
    (tmp_path / "home" / ".modal.toml").write_text("this is [ no TOML")
    told = {name: value for name, value in cloud.environment().items() if name != "MODAL_CONFIG_PATH"}
    more = {**told, **({} if theirs is None else {"MODAL_CONFIG_PATH": theirs})}
    code = (
        "import os\nfrom sandboxer.extensions.modal import client\nclient.load()\n"
        "print(os.environ.get('MODAL_CONFIG_PATH'), os.environ['MODAL_MAX_THROTTLE_WAIT'])"
    )
    done = python(code, tmp_path, **more)
    assert done.stdout.split() == [str(theirs), "20"], done.stderr
    assert (tmp_path / "home" / ".modal.toml").read_text() == "this is [ no TOML"


def test_a_limit_that_the_user_has_set_stays(tmp_path: Path) -> None:
    code = "import os\nfrom sandboxer.extensions.modal import client\nclient.load()\n"
    code += "print(os.environ['MODAL_MAX_THROTTLE_WAIT'])"
    assert python(code, tmp_path, MODAL_MAX_THROTTLE_WAIT="3").stdout == "3\n"
