"""How the opt-in suite on real providers is wired, proved on the stub, which needs no credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.extensions.saas_stub import SaasStubExtension
from sandboxer.testing.conformance import make, remove
from tests.extensions.live import LIVE, asked_for, live_bench


def test_a_bench_has_what_the_core_would_give(tmp_path: Path) -> None:
    bench = live_bench("ext.saas-stub", tmp_path)
    host = bench.hosts()
    sandbox = make(bench, host)
    assert sandbox.run("cat", "/dev/null")[0] == 0
    remove(bench, host, sandbox.sandbox_id)
    assert (bench.extension, bench.census()) == (SaasStubExtension, [])


def test_without_credentials_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    with pytest.raises(pytest.skip.Exception, match="E2B_API_KEY"):
        live_bench("ext.e2b", tmp_path)


@LIVE
class TestOnlyWhenAskedFor:
    def test_it_was_asked_for(self) -> None:
        assert asked_for()


def test_a_class_is_marked_and_skipped_unless_asked_for() -> None:
    names = {mark.name for mark in TestOnlyWhenAskedFor.pytestmark}  # type: ignore[attr-defined]  # the marks of pytest
    assert names == {"live", "skipif"}
