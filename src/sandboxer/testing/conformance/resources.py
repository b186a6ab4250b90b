"""What a sandbox is allotted: required, estimated, shown."""

from __future__ import annotations

from contextlib import suppress

import pytest

from sandboxer.errors import SandboxerError, Unsupported
from sandboxer.extensions.base import CanMeter
from sandboxer.hosts.base import Host
from sandboxer.models import Requirements, Resources
from sandboxer.names import new_id
from sandboxer.testing.conformance.bench import Bench, Conformance, Made, remove

_TOO_MUCH = (
    Requirements(gpu="NO-SUCH-MODEL:64"),
    Requirements(vcpu=100_000),
    Requirements(memory_gib=1_000_000),
    Requirements(disk_gib=100_000_000),
)


class ResourceConformance(Conformance):
    """What is required is met exactly or refused; what is said of an allotment is true."""

    def test_no_requirement_changes_nothing(self, bench: Bench) -> None:
        options = bench.spec(new_id()).options
        assert bench.extension().fit(options, Requirements()) == options

    def test_what_cannot_be_met_is_refused_before_anything_starts(self, bench: Bench) -> None:
        options = bench.spec(new_id()).options
        for require in (*_TOO_MUCH, *bench.unmet):
            with pytest.raises(Unsupported) as caught:
                bench.extension().fit(options, require)
            assert caught.value.hint

    def test_fitting_twice_is_fitting_once(self, bench: Bench) -> None:
        options = bench.spec(new_id()).options
        for require, _ in bench.met:
            fitted = bench.extension().fit(options, require)
            assert bench.extension().fit(fitted, require) == fitted

    def test_what_is_required_is_there(self, bench: Bench, host: Host) -> None:
        if not bench.met:
            pytest.skip("no requirement is listed as met")
        for require, proof in bench.met:
            sandbox_id, extension = new_id(), bench.extension()
            try:
                handle = extension.provision(bench.spec(sandbox_id, require=require), bench.context(host))
                ready = extension.wait_ready(handle, bench.context(host))
                sandbox = Made(bench=bench, host=host, sandbox_id=sandbox_id, handle=handle, ready=ready)
                if ready.resources is not None:
                    _enough(ready.resources, require)
                if proof:
                    code, out, err = sandbox.run(*proof)
                    assert code == 0, (require, out, err)
            finally:
                remove(bench, host, sandbox_id)

    def test_the_estimate_is_of_what_is_required(self, bench: Bench) -> None:
        extension, options = bench.extension(), bench.spec(new_id()).options
        if not isinstance(extension, CanMeter):
            pytest.skip("is not metered")
        plain = extension.estimate_cost(options)
        assert plain == bench.extension().estimate_cost(options)  # type: ignore[attr-defined]  # looked at above
        assert min(plain.vcpu, plain.memory_gib, plain.disk_gib, plain.gpus) >= 0
        for require, _ in bench.met:
            _enough(extension.estimate_cost(bench.extension().fit(options, require)), require)

    def test_what_the_backend_meters_is_what_it_showed_when_ready(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanMeter):
            pytest.skip("is not metered")
        shown = extension.meter_actual(made.handle, made.bench.context(made.host))
        if shown is None:
            assert made.ready.resources is None
            return
        assert min(shown.vcpu, shown.memory_gib, shown.disk_gib, shown.gpus) >= 0
        assert made.ready.resources in (None, shown)

    def test_nothing_is_metered_of_what_is_gone(self, bench: Bench, host: Host) -> None:
        extension = bench.extension()
        if not isinstance(extension, CanMeter):
            pytest.skip("is not metered")
        sandbox_id = new_id()
        handle = extension.provision(bench.spec(sandbox_id), bench.context(host))
        extension.teardown(handle, bench.context(host))
        with suppress(SandboxerError):
            assert extension.meter_actual(handle, bench.context(host)) is None


def _enough(there: Resources, require: Requirements) -> None:
    assert there.vcpu >= (require.vcpu or 0)
    assert there.memory_gib >= (require.memory_gib or 0)
    assert there.disk_gib >= (require.disk_gib or 0)
    if require.gpu is not None:
        model, _, count = require.gpu.partition(":")
        assert (there.gpu or "").lower() == model.lower()
        assert there.gpus >= int(count or 1)
