"""From nothing to ready to nothing, and every way in which that may break off."""

from __future__ import annotations

import time

import msgspec
import pytest

from sandboxer.errors import Conflict, SandboxerError, Timeout
from sandboxer.extensions.base import CanRenew, Found
from sandboxer.hosts.base import Host
from sandboxer.models import Handle
from sandboxer.names import LABEL_PROFILE, new_id
from sandboxer.testing.conformance.bench import INSTALL, Bench, Conformance, Made, make, remove


class LifecycleConformance(Conformance):
    """How sandboxes come and go."""

    def test_check_passes_where_the_suite_runs(self, bench: Bench, host: Host) -> None:
        bench.extension().check(bench.context(host))

    def test_from_nothing_to_ready_to_nothing(self, bench: Bench, host: Host) -> None:
        before = set(bench.census())
        sandbox_id, extension = new_id(), bench.extension()
        assert extension.find(sandbox_id, bench.context(host)) is None
        saved: list[Handle] = []
        handle = extension.provision(bench.spec(sandbox_id), bench.context(host, save=saved.append))
        assert saved, "the handle is saved as soon as there is something to remember"
        extension.wait_ready(handle, bench.context(host))
        assert extension.status(handle, bench.context(host)).presence == "running"
        extension.teardown(handle, bench.context(host))
        assert extension.status(handle, bench.context(host)).presence == "absent"
        assert extension.find(sandbox_id, bench.context(host)) is None
        assert set(bench.census()) <= before

    def test_a_handle_survives_json_and_a_new_process(self, made: Made) -> None:
        handle = msgspec.json.decode(msgspec.json.encode(made.handle), type=Handle)
        assert handle == made.handle
        host = made.bench.hosts()
        try:
            status = made.bench.extension().status(handle, made.bench.context(host))
        finally:
            host.close()
        assert status.presence == "running"

    def test_it_is_found_by_id(self, made: Made) -> None:
        context = made.bench.context(made.host)
        found = made.bench.extension().find(made.sandbox_id, context)
        assert found is not None
        assert made.bench.extension().status(found, context).presence == "running"

    def test_the_inventory_shows_it_with_its_labels(self, made: Made) -> None:
        (found,) = self._listed(made, INSTALL)
        assert found.created_at is not None
        assert abs(found.created_at - time.time()) < 3600
        assert found.expires_at is not None
        assert found.labels[LABEL_PROFILE] == "profile.conformance"

    def test_the_inventory_of_another_installation_does_not_show_it(self, made: Made) -> None:
        assert self._listed(made, "someoneelse") == []

    def _listed(self, made: Made, install: str) -> list[Found]:
        context = made.bench.context(made.host, install=install)
        return [f for f in made.bench.extension().inventory(context) if f.sandbox_id == made.sandbox_id]

    def test_a_renewal_shows_in_the_inventory(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanRenew):
            pytest.skip("has no renew")
        until = float(int(time.time()) + 9000)
        extension.renew(made.handle, until, made.bench.context(made.host))
        (found,) = self._listed(made, INSTALL)
        assert found.expires_at is not None
        assert until <= found.expires_at <= until + 61, "a provider may count whole minutes, rounded up"

    def test_tearing_down_twice_is_success(self, bench: Bench, host: Host) -> None:
        sandbox = make(bench, host)
        extension = bench.extension()
        extension.teardown(sandbox.handle, bench.context(host))
        extension.teardown(sandbox.handle, bench.context(host))
        assert extension.status(sandbox.handle, bench.context(host)).presence == "absent"

    def test_a_creator_that_dies_when_it_saves_leaves_what_find_and_teardown_remove(
        self, bench: Bench, host: Host
    ) -> None:
        before = set(bench.census())
        sandbox_id = new_id()

        def die(_handle: Handle) -> None:
            raise Conflict("the sandbox is not wanted any more")

        with pytest.raises(Conflict):
            bench.extension().provision(bench.spec(sandbox_id), bench.context(host, save=die))
        remove(bench, host, sandbox_id)
        assert set(bench.census()) <= before

    def test_a_failed_establishment_leaves_nothing_after_teardown(self, bench: Bench, host: Host) -> None:
        if bench.broken is None:
            pytest.skip("nothing can be broken by inputs or options")
        before = set(bench.census())
        sandbox_id, extension = new_id(), bench.extension()
        with pytest.raises(SandboxerError) as caught:
            extension.wait_ready(
                extension.provision(bench.spec(sandbox_id, broken=True), bench.context(host)), bench.context(host)
            )
        assert caught.value.hint, "an error says what to do next"
        remove(bench, host, sandbox_id)
        assert set(bench.census()) <= before

    def test_a_deadline_that_passes_is_a_timeout_and_can_be_cleaned_up(self, bench: Bench, host: Host) -> None:
        before = set(bench.census())
        sandbox_id, extension = new_id(), bench.extension()
        with pytest.raises(Timeout):
            extension.provision(bench.spec(sandbox_id), bench.context(host, seconds=0.0))
        remove(bench, host, sandbox_id)
        assert set(bench.census()) <= before

    def test_two_sandboxes_do_not_see_each_other(self, made: Made, host: Host) -> None:
        other = make(made.bench, host)
        try:
            assert made.run("sh", "-c", "echo secret > /tmp/of-the-first; sleep 60 & exit 0")[0] == 0
            code, out, _ = other.run("sh", "-c", "cat /tmp/of-the-first; ls /tmp")
            assert b"secret" not in out
            assert b"of-the-first" not in out
            assert code == 0
        finally:
            remove(made.bench, host, other.sandbox_id)

    def test_ready_tells_how_it_is_reached_and_isolated(self, made: Made) -> None:
        assert made.ready.reachability.kind in ("local", "ssh", "api")
        assert made.ready.reachability.remote_dir or made.ready.reachability.provider_id
        assert made.ready.isolation.class_
