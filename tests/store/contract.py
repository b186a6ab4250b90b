"""The contract suite: what every store must do. A store's own tests subclass it and give `open_store`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandboxer.errors import Conflict, Internal, Invalid
from sandboxer.models import Consumer, Handle, Request, Sandbox
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords, Store, UpdateFn, holds_name
from tests.store.neighbours import together
from tests.store.records import ID, NOON, OTHER, count, ended, event, number, put, sandbox, sandboxes, tell

OpenStore = Callable[[], Store]


class StoreContract:
    """Each test gets `open_store`: every call opens the same, at first empty, store anew, as another process would."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError("the class that tests a store says how it is opened")

    # -- whose it is ------------------------------------------------------------------------------------------

    def test_an_installation_keeps_its_id(self, open_store: OpenStore) -> None:
        """Promise 8: what is labelled with it stays ours."""
        install = open_store().install_id
        assert install.isalnum()
        assert len(install) >= 12
        store = open_store()
        store.update(ID, put(sandbox()))
        assert store.install_id == open_store().install_id == install

    # -- reading ----------------------------------------------------------------------------------------------

    def test_a_new_store_is_empty(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.get(ID) is None
        assert store.find("k3v9") == []
        assert store.list() == []
        assert store.list(ended=True) == []
        assert store.events() == []

    def test_what_was_stored_is_read_by_another(self, open_store: OpenStore) -> None:
        reader = open_store()
        assert reader.get(ID) is None
        stored = open_store().update(ID, put(sandbox(labels={"a": "b"})))
        assert stored == sandbox(labels={"a": "b"})
        assert reader.get(ID) == open_store().get(ID) == stored

    def test_any_record_comes_back_as_it_was(self, open_store: OpenStore) -> None:
        store = open_store()

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(sandboxes(ID), sandboxes(OTHER))
        def come_back(first: Sandbox, second: Sandbox) -> None:
            store.update(ID, put(first))
            store.update(OTHER, put(second))
            assert open_store().get(ID) == first
            assert open_store().get(OTHER) == second

        come_back()

    @pytest.mark.parametrize("depth", [63, 2_000, 100_000])
    def test_what_could_not_be_read_everywhere_is_refused(self, open_store: OpenStore, depth: int) -> None:
        """Promise 30: neither half a character nor a value nested without end reaches the disk."""
        nested: object = 0
        for _ in range(depth):
            nested = [nested]
        store = open_store()
        store.update(ID, put(sandbox()))
        for value in ("\udcff", nested):
            with pytest.raises(Invalid, match="cannot be stored"):
                store.update(ID, put(sandbox(inputs={"key": value})))
            with pytest.raises(Invalid, match="cannot be stored"):
                store.update(ID, tell(event("1", detail={"key": value})))
        assert store.get(ID) == sandbox()
        assert store.events() == []

    def test_large_and_deep_values_are_kept(self, open_store: OpenStore) -> None:
        nested: object = "x" * 100_000
        for _ in range(60):
            nested = [nested, {}, 2**64]
        store = open_store()
        store.update(ID, put(sandbox(inputs={"key": nested})))
        assert open_store().get(ID) == sandbox(inputs={"key": nested})

    def test_a_record_that_could_not_be_read_back_is_not_written(self, open_store: OpenStore) -> None:
        store = open_store()
        with pytest.raises(msgspec.ValidationError):
            store.update(ID, put(sandbox(created_at=float("nan"))))
        with pytest.raises(msgspec.ValidationError):
            store.update(ID, put(sandbox(host=7)))
        assert store.list(ended=True) == []

    def test_lists_show_the_live_oldest_first(self, open_store: OpenStore) -> None:
        store = open_store()
        for n, age in enumerate([30, 10, 20]):
            store.update(number(n), put(sandbox(number(n), created_at=NOON - age)))
        store.update(number(3), put(ended(number(3), created_at=NOON - 40)))
        assert [record.id for record in store.list()] == [number(0), number(2), number(1)]
        assert [record.id for record in store.list(ended=True)] == [number(3), number(0), number(2), number(1)]

    def test_lists_show_those_alone_that_are_wanted(self, open_store: OpenStore) -> None:
        store = open_store()
        for n, name in enumerate(["a", "b", "a", None]):
            store.update(number(n), put(sandbox(number(n), name=name, created_at=NOON + n, labels={"n": f"{n}"})))
        store.update(number(9), put(ended(number(9), name="a", created_at=NOON - 1)))

        def shown(**wanted: Any) -> list[str]:
            return [record.id for record in store.list(**wanted)]

        assert shown(name="a") == [number(0), number(2)]
        assert shown(name="a", ended=True) == [number(9), number(0), number(2)]
        assert shown(name="a", ended=True, limit=2) == [number(9), number(0)]
        assert shown(only=lambda record: record.labels.get("n") in ("1", "3")) == [number(1), number(3)]
        assert shown(only=lambda record: record.state == State.DESTROYED, ended=True) == [number(9)]
        assert shown(name="a", only=lambda record: record.id != number(0), limit=1) == [number(2)]
        assert shown(limit=0) == shown(name="nobody", ended=True) == []

    # -- finding ----------------------------------------------------------------------------------------------

    def test_a_record_is_found_by_id_prefix_and_name(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(name="web")))
        store.update(OTHER, put(sandbox(OTHER, name="k3v9")))
        assert [record.id for record in store.find(ID)] == [ID]
        assert {record.id for record in store.find("k3v9x2")} == {ID, OTHER}
        assert [record.id for record in store.find("web")] == [ID]
        assert {record.id for record in store.find("k3v9")} == {ID, OTHER}, "a name does not hide an id"
        assert store.find("k3v") == [], "three characters are too few"
        assert store.find("nothing") == []
        assert store.find("") == []

    def test_any_text_can_be_looked_for(self, open_store: OpenStore) -> None:
        """Promise 30: what a user types is never more than text."""
        store = open_store()
        for n in range(70):
            store.update(number(n), put(ended(number(n))))
        store.update(ID, put(sandbox(name="web")))
        tricks = [
            f'{number(1)}","request":{{"profile":"profile.native',
            f'{ID}"',
            '{"id":"',
            "\udcff\udcff",
            "a\0b",
            "\n\n\n\n",
        ]

        @settings(max_examples=100, deadline=None)
        @given(st.text(max_size=20) | st.sampled_from(tricks))
        def look(text: str) -> None:
            try:
                record, found = store.get(text), store.find(text)
            except Invalid:
                assert "\\ud" in ascii(text), "only half a character is refused"
                return
            assert record is None or record.id == text
            assert all(one.id.startswith(text) or one.name == text for one in found)

        for trick in tricks:
            look = example(trick)(look)
        look()

    def test_a_name_is_free_again_when_its_sandbox_has_ended(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(ended(ID, name="web")))
        assert store.find("web") == []

        def see(current: Sandbox | None, others: OtherRecords) -> Change:
            assert others.by_name("web") is None
            return Change(record=sandbox(OTHER, name="web"))

        store.update(OTHER, see)
        assert [record.id for record in store.find("web")] == [OTHER]

    @pytest.mark.parametrize("state", [State.FAILED, State.EXPIRED, State.DESTROYING])
    def test_a_name_is_free_when_its_sandbox_failed_and_left_nothing_also_while_that_is_removed(
        self, open_store: OpenStore, state: State
    ) -> None:
        store = open_store()
        store.update(ID, put(sandbox(name="web", state=state, clean=True)))

        def see(current: Sandbox | None, others: OtherRecords) -> Change:
            named = others.by_name("web")
            assert named is not None
            assert not holds_name(named)
            return Change(record=sandbox(OTHER, name="web"))

        store.update(OTHER, see)
        assert [record.id for record in store.find("web")] == [OTHER]
        for left in (sandbox(name="web", state=state), sandbox(name="web", state=State.PROVISIONING, clean=True)):
            assert holds_name(left)

    def test_other_fields_with_the_same_text_are_not_names_or_keys(self, open_store: OpenStore) -> None:
        store = open_store()
        decoy = {"name": "web", "idempotency_key": "key", "state": "destroyed", "id": OTHER}
        request = Request(profile="p", name="web", inputs=decoy)
        store.update(ID, put(sandbox(request=request, inputs=decoy, handle=Handle(version=1, data=decoy))))
        assert store.find("web") == []
        assert store.get(OTHER) is None

        def see(current: Sandbox | None, others: OtherRecords) -> Change:
            assert others.by_name("web") is None
            assert others.by_idempotency_key("key") is None
            assert [record.id for record in others] == [ID]
            return Change()

        store.update(OTHER, see)

    def test_each_consumers_records_and_keys_are_its_own(self, open_store: OpenStore) -> None:
        """Also where another's record holds the text of a consumer somewhere else."""
        store, ann, bob = open_store(), Consumer(actor="agt", name="ann"), Consumer(actor="agt", name="bob")
        decoy = {"consumer": {"actor": "agt", "name": "bob"}}
        store.update(ID, put(sandbox(consumer=ann, idempotency_key="key", inputs=decoy)))
        store.update(number(1), put(sandbox(number(1), consumer=bob, idempotency_key="key")))
        store.update(number(2), put(ended(number(2), consumer=bob, idempotency_key="old")))

        def see(current: Sandbox | None, others: OtherRecords) -> Change:
            assert [record.id for record in others.of_consumer(ann)] == [ID]
            assert [record.id for record in others.of_consumer(bob)] == [number(1)]
            assert list(others.of_consumer(Consumer(actor="adm", name="bob"))) == []
            by_key = {name: others.by_idempotency_key("key", consumer=who) for name, who in (("a", ann), ("b", bob))}
            assert {name: found and found.id for name, found in by_key.items()} == {"a": ID, "b": number(1)}
            assert others.by_idempotency_key("old", consumer=ann) is None
            found = others.by_idempotency_key("old", consumer=bob)
            assert found is not None
            return Change()

        store.update(OTHER, see)

    # -- updating ---------------------------------------------------------------------------------------------

    def test_an_update_sees_its_record_and_the_others(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(name="web", idempotency_key="key \u2603")))
        store.update(number(1), put(ended(number(1), idempotency_key="old")))

        def see(current: Sandbox | None, others: OtherRecords) -> Change:
            assert current is None
            assert [record.id for record in others] == [ID]
            for found in (others.by_name("web"), others.by_idempotency_key("key \u2603")):
                assert found is not None
                assert found.id == ID
            gone = others.by_idempotency_key("old")
            assert gone is not None
            assert gone.id == number(1)
            assert others.by_name("wen") is None
            assert others.by_idempotency_key("new") is None
            return Change()

        assert store.update(OTHER, see) is None

        def see_not_itself(current: Sandbox | None, others: OtherRecords) -> Change:
            assert current == sandbox(name="web", idempotency_key="key \u2603")
            assert others.by_name("web") is None
            assert others.by_idempotency_key("key \u2603") is None
            assert list(others) == []
            return Change()

        store.update(ID, see_not_itself)

    def test_a_refusing_update_changes_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(), event("1")))
        for refusal in (Conflict("taken"), KeyboardInterrupt(), OSError(28, "no space left in here")):

            def refuse(current: Sandbox | None, others: OtherRecords, refusal: BaseException = refusal) -> Change:
                raise refusal

            with pytest.raises(type(refusal)) as caught:
                store.update(ID, refuse)
            assert caught.value is refusal, "what the function raises passes through as it is"
        assert store.get(ID) == sandbox()
        assert store.events() == [event("1")]
        store.update(ID, count)

    def test_no_change_gives_the_present_record(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.update(ID, tell()) is None
        store.update(ID, put(sandbox()))
        assert store.update(ID, tell()) == sandbox()
        assert store.update(ID, tell(event("1"))) == sandbox()
        assert store.events() == [event("1")]

    def test_an_update_cannot_store_another_record(self, open_store: OpenStore) -> None:
        store = open_store()
        with pytest.raises(Internal):
            store.update(ID, put(sandbox(OTHER)))
        assert store.list() == []

    def test_must_succeed_is_an_ordinary_update_when_nothing_is_wrong(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.update(ID, put(ended(ID)), must_succeed=True) == ended(ID)
        assert open_store().get(ID) == ended(ID)

    # -- ended records ----------------------------------------------------------------------------------------

    def test_ended_records_stay_to_be_found_however_many(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox()))
        for n in range(150):
            store.update(number(n), put(ended(number(n), idempotency_key=f"key{n}", created_at=NOON + n)))
        for reader in (store, open_store()):
            assert [record.id for record in reader.list()] == [ID]
            assert [record.id for record in reader.list(ended=True)] == [number(0), ID, *map(number, range(1, 150))]
            for n in (0, 64, 65, 149):
                assert reader.get(number(n)) == ended(number(n), idempotency_key=f"key{n}", created_at=NOON + n)
                assert [record.id for record in reader.find(number(n))] == [number(n)]
            assert [record.id for record in reader.find(number(0)[:11])] == [number(n) for n in range(10)]

        def see(current: Sandbox | None, others: OtherRecords) -> Change:
            for n in (0, 149):
                found = others.by_idempotency_key(f"key{n}")
                assert found is not None
                assert found.id == number(n)
            return Change()

        store.update(OTHER, see)

    def test_an_ended_record_can_be_told_of_and_changed(self, open_store: OpenStore) -> None:
        store = open_store()
        for n in range(70):
            store.update(number(n), put(ended(number(n))))
        assert store.update(number(0), tell(event("again"))) == ended(number(0))
        changed = store.update(number(0), count)
        assert changed is not None
        assert changed.seq == 1
        for n in range(70, 140):
            store.update(number(n), put(ended(number(n))))
        assert open_store().get(number(0)) == changed
        assert open_store().list(ended=True).count(changed) == 1
        assert len(open_store().list(ended=True)) == 140

    # -- events -----------------------------------------------------------------------------------------------

    def test_events_are_kept_in_the_order_of_their_changes(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(), event("1"), event("2")))
        store.update(OTHER, put(sandbox(OTHER), event("3")))
        assert [told.event_id for told in open_store().events()] == ["1", "2", "3"]
        assert [told.event_id for told in open_store().events(limit=2)] == ["2", "3"]
        assert open_store().events(limit=0) == []

    def test_settled_events_keep_their_place(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(), *(event(str(n)) for n in range(4))))
        sent, parked = event("2", status="sent"), event("0", status="parked", note='refused: "status":"pending"')
        store.settle_events([sent, parked, event("unknown", status="sent")])
        assert open_store().events() == [parked, event("1"), sent, event("3")]
        store.settle_events([])
        assert open_store().get(ID) == sandbox()

    def test_settling_changes_nothing_but_status_and_note(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(), event("1")))
        store.settle_events([event("1", status="sent", summary="another", detail={})])
        assert store.events() == [event("1", status="sent")]

    def test_waiting_events_outlive_the_others(self, open_store: OpenStore) -> None:
        store = open_store()
        nested = {"status": "pending", "text": '"status":"pending"'}
        store.update(ID, tell(*(event(f"w{n}") for n in range(10))))
        for batch in range(4):
            ids = [f"s{batch}-{n}" for n in range(200)]
            store.update(ID, tell(*(event(text, status="sent", detail=nested) for text in ids)))
        kept = [told.event_id for told in store.events()]
        assert kept[:10] == [f"w{n}" for n in range(10)]
        assert len(kept) == 10 + 500
        assert kept[-1] == "s3-199"
        assert kept[10] == "s1-100"

    # -- many at once -----------------------------------------------------------------------------------------

    def await_company(self, store: Store, count: int) -> None:
        """Wait until `count` updates wait for the one that runs. A store that decides one at a time has no queue."""

    def together(self, store: Store, *updates: tuple[str, UpdateFn]) -> list[Sandbox | BaseException | None]:
        """What updates come to that come, in this order and each on a thread, while another one is being decided."""

        def hold(middle: Callable[[], None]) -> None:
            def nothing(current: Sandbox | None, others: OtherRecords) -> Change:
                middle()
                return Change()

            store.update(number(999), nothing)

        acts = [partial(store.update, sandbox_id, fn) for sandbox_id, fn in updates]
        return together(acts, hold=hold, gathered=partial(self.await_company, store))

    def test_each_of_many_sees_what_those_before_it_changed(self, open_store: OpenStore) -> None:
        """Promise 12: names, keys and caps hold among updates that come at once."""
        store = open_store()

        def named(sandbox_id: str, name: str) -> UpdateFn:
            def take(current: Sandbox | None, others: OtherRecords) -> Change:
                if others.by_name(name) is not None:
                    raise Conflict("taken")
                return Change(record=sandbox(sandbox_id, name=name), events=[event(sandbox_id)])

            return take

        def keyed(sandbox_id: str) -> UpdateFn:
            def once(current: Sandbox | None, others: OtherRecords) -> Change:
                if others.by_idempotency_key("key") is not None:
                    return Change()
                return Change(record=sandbox(sandbox_id, idempotency_key="key"), events=[event(sandbox_id)])

            return once

        def capped(sandbox_id: str) -> UpdateFn:
            def fit(current: Sandbox | None, others: OtherRecords) -> Change:
                if len(list(others)) >= 5:
                    raise Conflict("full")
                return Change(record=sandbox(sandbox_id), events=[event(sandbox_id)])

            return fit

        ids = [number(n) for n in range(24)]
        asked = (
            [named(one, "web") for one in ids[:8]]
            + [keyed(one) for one in ids[8:16]]
            + [capped(one) for one in ids[16:]]
        )
        found = self.together(store, *zip(ids, asked, strict=True))
        made = [answer.id for answer in found if isinstance(answer, Sandbox)]
        assert sum(one in made for one in ids[:8]) == 1
        assert sum(one in made for one in ids[8:16]) == 1
        assert sum(one in made for one in ids[16:]) == 3
        assert sum(isinstance(answer, Conflict) for answer in found) == 7 + 5
        assert sorted(record.id for record in open_store().list()) == sorted(made)
        assert sorted(told.event_id for told in open_store().events()) == sorted(made)

    def test_an_update_that_refuses_concerns_nobody_else(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox(seq=0)))
        refusals = [Conflict("no"), KeyboardInterrupt(), OSError(28, "no space in here"), SystemExit(3)]

        def refuse(refusal: BaseException) -> UpdateFn:
            def fn(current: Sandbox | None, others: OtherRecords) -> Change:
                raise refusal

            return fn

        updates: list[tuple[str, UpdateFn]] = []
        for refusal in refusals:
            updates += [(ID, count), (ID, refuse(refusal)), (OTHER, tell(event(f"{refusal!r}")))]
        updates += [
            (ID, put(sandbox(OTHER))),
            (ID, put(sandbox(created_at=float("nan")))),
            (ID, put(sandbox(inputs={"key": "\udcff"}))),
            (ID, put(sandbox(seq=99), event("1", detail={"key": "\udcff"}))),
            (ID, count),
        ]
        found = self.together(store, *updates)
        assert found[1:12:3] == refusals, "each gets its own, as it is"
        assert [type(one) for one in found[-5:]] == [Internal, msgspec.ValidationError, Invalid, Invalid, Sandbox]
        assert store.get(ID) == open_store().get(ID) == sandbox(seq=5)
        assert store.get(OTHER) is None
        assert sorted(told.event_id for told in store.events()) == sorted(f"{refusal!r}" for refusal in refusals)

    def test_many_that_want_no_change_write_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox()))
        assert self.together(store, *[(ID, tell()), (OTHER, tell())] * 4) == [sandbox(), None] * 4

    def test_threads_lose_no_update(self, open_store: OpenStore) -> None:
        """Promise 12, within one process: threads that share a store, and threads with one each."""
        shared = open_store()
        shared.update(ID, put(sandbox()))

        def work(n: int) -> None:
            store = shared if n % 2 else open_store()
            for _ in range(10):
                store.update(ID, count)
                record = store.get(ID)
                assert record is not None

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        record = open_store().get(ID)
        assert record is not None
        assert record.seq == 80

    def test_a_reader_is_not_held_up_by_an_update(self, open_store: OpenStore) -> None:
        store = open_store()
        store.update(ID, put(sandbox()))
        inside, go_on = threading.Event(), threading.Event()

        def slow(current: Sandbox | None, others: OtherRecords) -> Change:
            inside.set()
            assert go_on.wait(30)
            return Change(record=sandbox(state=State.DESTROYING))

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(store.update, ID, slow)
            assert inside.wait(30)
            assert open_store().get(ID) == sandbox()
            assert store.list() == [sandbox()]
            go_on.set()
            writing.result(30)
        assert store.get(ID) == sandbox(state=State.DESTROYING)
