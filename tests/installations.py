"""An installation in a temporary directory, with the fake backend as `profile.fake`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sandboxer.bootstrap import Installation, install
from sandboxer.models import Request, Sandbox
from sandboxer.testing.fake import FakeExtension, Faults

MOVED_PYTHON = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH")
FAKE_MANIFEST = """\
id: ext.fake
version: 1.0.0
class: sandboxer.testing.fake:FakeExtension
title: Plain directories, for tests
isolation: {class: none, notes: [isolates nothing]}
"""
FAKE_PROFILE = """\
id: profile.fake
version: 1.2.3
title: Plain directories, for tests
extension: ext.fake
ttl: {default: 1h, max: 4h, failed: 30m}
inputs:
  greeting: {type: string}
  token: {type: string, secret: true}
  tree: {type: path}
"""


def environment(root: Path, **more: str) -> dict[str, str]:
    """The environment of an installation below `root`; nothing of ours is in it, but what leads a Python that lies
    elsewhere than it was built for to its own files."""
    moved = MOVED_PYTHON if "PYTHONHOME" in os.environ else ()
    return {
        **{name: os.environ[name] for name in moved if name in os.environ},
        "HOME": str(root / "home"),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER": "tester",
        "SANDBOXER_DATA_DIR": str(root / "data"),
        "SANDBOXER_CONFIG_DIR": str(root / "config"),
        **more,
    }


def lay_out(root: Path, *, config: str = "") -> None:
    """Directories, the fake's profile and manifest, and config.yaml with a work directory below `root`."""
    (root / "home").mkdir(parents=True, exist_ok=True)
    for kind, text in {"extensions/ext.fake.yaml": FAKE_MANIFEST, "profiles/profile.fake.yaml": FAKE_PROFILE}.items():
        file = root / "config" / kind
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    hosts = f"hosts:\n  local: {{work_dir: {root}/work}}\n"
    (root / "config" / "config.yaml").write_text(config or hosts)


def installed(root: Path, faults: Faults | None = None, **more: str) -> Installation:
    """A wired installation below `root`; `faults` strike in its fake backend."""
    if not (root / "config").exists():
        lay_out(root)
    here = install(environment(root, **more), relay_in_background=False)
    here.manager.services.extensions.add("ext.fake", lambda: FakeExtension(faults))
    return here


def create(here: Installation, *, key: str | None = None, **asked: object) -> Sandbox:
    """Create a sandbox of the fake profile."""
    fields: Mapping[str, object] = {"profile": "profile.fake", **asked}
    plan = here.manager.plan(Request(**fields), idempotency_key=key)  # type: ignore[arg-type]  # tests pass any field
    return here.manager.create(plan)


def left_over(root: Path) -> list[str]:
    """What the fake still holds: the census of these tests."""
    return sorted(str(path.relative_to(root)) for path in (root / "work" / "fake").glob("*sbx-*"))
