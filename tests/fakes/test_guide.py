"""The programs of docs/extension-sdk.md on calls and fakes do what the page says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sandboxer.errors import Unavailable
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline
from tests.docs.pages import ROOT, blocks
from tests.fakes import Fault, Reply


def _block(word: str) -> str:
    (found,) = [block for block in blocks((ROOT / "docs" / "extension-sdk.md").read_text(), "python") if word in block]
    return found


@pytest.fixture
def guide() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(_block("class FakeExample"), names)  # noqa: S102 - the page's own program
    return names


def test_the_calls_and_the_fake_of_the_guide_fit_each_other(guide: dict[str, Any]) -> None:
    cloud: Any = guide["FakeExample"]()
    cloud.route("GET", r"/sandboxes/(?P<id>[^/]+)", lambda request: Reply(json={"state": "running"}))
    with cloud:
        names: dict[str, Any] = {
            "ctx": SimpleNamespace(
                endpoints={"api": cloud.url}, secrets={"EXAMPLE_KEY": Secret("k")}, deadline=Deadline(10)
            ),
            "spec": SimpleNamespace(resource="sbx-abcdefghijkl"),
        }
        exec(_block("segment(made"), names)  # noqa: S102
        assert names["shown"] == {"state": "running"}
        assert {asked.headers["x-key"] for asked in cloud.requests} == {"k"}
        api, deadline = names["api"], Deadline(20)
        ran = api.call("POST", "/sandboxes/sbx-abcdefghijkl/run", deadline, json={"argv": ["echo", "hi"]}).json()
        assert ran == {"code": 0, "output": "hi\n"}
        cloud.script.add(Fault(match="POST /sandboxes", kind="lost-answer"))
        with pytest.raises(Unavailable) as caught:
            api.call("POST", "/sandboxes", deadline, json={"name": "other"})
        assert caught.value.outcome == "unknown"
        assert "other" in cloud.sandboxes, "it was made, although nobody was told"
