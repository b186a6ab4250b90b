"""Records that many threads read at once, for the first time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from sandboxer.models.prepared import prepare

CROWD = """
import sys, threading, types
import msgspec
from sandboxer.models.prepared import prepare

sys.setswitchinterval(1e-6)
SOURCE = '''
from __future__ import annotations
import msgspec
class Part(msgspec.Struct):
    a: dict[str, int] = {}
    b: list[str] = []
class Whole(msgspec.Struct):
    x: Part
    y: list[Part] = []
'''
for number in range(150):
    module = types.ModuleType(f"made{number}")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    start = threading.Barrier(8)
    prepare(module.__name__)

    def read() -> None:
        start.wait()
        msgspec.json.decode(b'{"x": {"a": {"k": 1}, "b": ["q"]}, "y": [{"b": ["e"]}]}', type=module.Whole)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
MODULES = """
import importlib, pathlib, pkgutil, sys
import msgspec
import sandboxer
import sandboxer.api.app
from sandboxer.api.server_context import ServerContext
from sandboxer.models import prepared
from tests.installations import installed

ServerContext(lambda: installed(pathlib.Path(sys.argv[1]))).start()
for module in pkgutil.walk_packages(sandboxer.__path__, "sandboxer."):
    if not module.name.startswith(("sandboxer.testing", "sandboxer.__main__")):
        importlib.import_module(module.name)
late = {kind.__module__ for kind in prepared._below(msgspec.Struct) if kind not in prepared._ready}
print(sorted(name for name in late if not name.startswith(("sandboxer.cli", "sandboxer.doctor"))))
"""


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    argv = [sys.executable, "-c", program, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=root)


def test_types_that_are_prepared_are_read_by_many_threads_at_once() -> None:
    """Without it msgspec 0.22 takes the process down: so a server died of its first fifty creates."""
    done = run(CROWD)
    assert done.returncode == 0, done.stderr


def test_a_server_has_made_ready_all_that_it_may_read(tmp_path: Path) -> None:
    """Before it answers anybody, also what is imported later."""
    done = run(MODULES, str(tmp_path))
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_type_that_cannot_be_made_ready_does_no_harm() -> None:
    odd = msgspec.defstruct("Odd", [("what", "Absent")], module=__name__)
    prepare(__name__)
    prepare()
    assert odd.__struct_fields__ == ("what",)
