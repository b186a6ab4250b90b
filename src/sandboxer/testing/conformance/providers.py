"""What holds for a provider's cloud: keys that are refused, and addresses where nobody is."""

from __future__ import annotations

import msgspec
import pytest

from sandboxer.errors import Denied, NotConfigured, SandboxerError
from sandboxer.extensions.base import Context, SandboxExtension
from sandboxer.hosts.base import Host
from sandboxer.names import new_id
from sandboxer.secrets import Secret
from sandboxer.testing.conformance.bench import Bench, Conformance, Made

_WRONG = "wrong-key-of-the-conformance-suite"
_NOWHERE = "http://127.0.0.1:1"


class ProviderConformance(Conformance):
    """Skipped where the extension has no secrets, or no endpoints."""

    def test_without_a_key_it_is_not_configured(self, bench: Bench, host: Host) -> None:
        if not bench.secrets:
            pytest.skip("needs no key")
        with pytest.raises(NotConfigured) as caught:
            bench.extension().check(_with(bench.context(host), secrets={}))
        assert caught.value.hint

    def test_a_wrong_key_is_refused_and_nothing_is_made(self, bench: Bench, host: Host) -> None:
        if not bench.secrets:
            pytest.skip("needs no key")
        before = set(bench.census())
        wrong = _with(bench.context(host), secrets={name: Secret(_WRONG) for name in bench.secrets})
        with pytest.raises((Denied, NotConfigured)) as caught:
            bench.extension().provision(bench.spec(new_id()), wrong)
        assert _WRONG not in f"{caught.value!r} {caught.value.document()}"
        assert caught.value.outcome == "failed"
        assert set(bench.census()) <= before

    def test_with_another_key_it_is_not_said_to_be_absent(self, made: Made) -> None:
        if not made.bench.secrets:
            pytest.skip("needs no key")
        wrong = _with(made.bench.context(made.host), secrets={name: Secret(_WRONG) for name in made.bench.secrets})
        _sees_nothing(made.bench.extension(), made, wrong)

    def test_where_nobody_answers_it_is_not_said_to_be_absent(self, made: Made) -> None:
        if not made.bench.endpoints:
            pytest.skip("has no endpoints")
        nowhere = _with(
            made.bench.context(made.host, seconds=5), endpoints=dict.fromkeys(made.bench.endpoints, _NOWHERE)
        )
        _sees_nothing(made.bench.extension(), made, nowhere)

    def test_a_key_is_nowhere_in_what_is_remembered(self, made: Made) -> None:
        for secret in made.bench.secrets.values():
            assert secret.reveal() not in msgspec.json.encode([made.handle, made.ready]).decode()


def _sees_nothing(extension: SandboxExtension, made: Made, ctx: Context) -> None:
    assert extension.status(made.handle, ctx).presence == "unknown"
    with pytest.raises(SandboxerError):
        extension.find(made.sandbox_id, ctx)
    with pytest.raises(SandboxerError):
        extension.inventory(ctx)
    with pytest.raises(SandboxerError):
        extension.teardown(made.handle, ctx)


def _with(ctx: Context, **changed: object) -> Context:
    return msgspec.structs.replace(ctx, **changed)
