"""Quotas and budgets hold, however many ask at once and by whichever door (promise 33)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.errors import InsufficientCredits, OverQuota
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.locks import Slots
from sandboxer.manager import SandboxManager
from sandboxer.manager.access import Principal
from sandboxer.models import Grant
from sandboxer.payments.ledger import TokenBudget
from sandboxer.store.create_rates import CreateRates
from sandboxer.testing.fake import Faults
from tests.api.serving import serving
from tests.api.tokens import bearing, made, token
from tests.cli.running import Command
from tests.installations import create, installed, lay_out
from tests.manager.metered import Bank
from tests.testbed.waiting import eventually

MANY = 50


def with_quotas(root: Path, text: str) -> Installation:
    lay_out(root, config=f"hosts:\n  local: {{work_dir: {root}/work}}\nquotas: {text}\n")
    return installed(root)


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """`count` calls that are made at once."""
    start = threading.Barrier(count)

    def one(number: int) -> Any:
        start.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def ignore(_chunk: bytes) -> None:
    """Output that nobody reads."""


def posted(client: Client, **body: Any) -> Any:
    return client.post("/v1/sandboxes", json={"profile": "profile.fake", **body})


def test_fifty_creates_at_once_make_as_many_as_the_quota_allows(tmp_path: Path) -> None:
    here = with_quotas(tmp_path, "{'agt:ann': {live: 3}, '*': {live: 5}}")
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann").token) as ann,
        bearing(server, token(here, "use", "agt:bob").token) as bob,
    ):
        answers = together(MANY, lambda n: posted(ann if n % 2 else bob))
        codes = Counter(answer.status_code for answer in answers)
        assert codes == {202: 8, 429: MANY - 8}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "unavailable"
        assert refused.json()["retryable"] is True
        assert int(refused.headers["retry-after"]) >= 1
        owners = Counter(record.consumer.name for record in here.store.list())
        assert owners == {"ann": 3, "bob": 5}
        # what is gone makes room; what failed and left nothing takes none
        mine = ann.get("/v1/sandboxes").json()["sandboxes"][0]["id"]
        assert ann.delete(f"/v1/sandboxes/{mine}?wait=true").status_code == 200
        assert posted(ann).status_code == 202
        assert posted(ann).status_code == 429


def test_no_more_begin_in_a_minute_than_the_quota_allows_by_whichever_door(tmp_path: Path) -> None:
    here = with_quotas(tmp_path, "{'*': {creates_per_minute: 4}}")
    another = installed(tmp_path)  # as another process: the command, or a second server
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        for_ann = another.manager.acting(Principal(grant=Grant(role="use", consumer="agt:ann")))

        def ask(number: int) -> int:
            if number % 2:
                return int(posted(ann).status_code)
            try:
                begun(for_ann)
            except OverQuota as error:
                return error.http_status
            return 202

        codes = Counter(together(20, ask))
        assert codes == {202: 4, 429: 16}
        # what has ended counts too: it was begun within the minute
        for one in ann.get("/v1/sandboxes").json()["sandboxes"]:
            ann.delete(f"/v1/sandboxes/{one['id']}?wait=true")
        late = posted(ann)
        assert late.status_code == 429
        assert 1 <= int(late.headers["retry-after"]) <= 60


def begun(manager: SandboxManager) -> Any:
    from sandboxer.models import Request

    return manager.create(manager.plan(Request(profile="profile.fake")))


def test_what_an_idempotency_key_gave_before_takes_nothing_of_a_quota(tmp_path: Path) -> None:
    here = with_quotas(tmp_path, "{'*': {creates_per_minute: 2, live: 2}}")
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        ids = set()
        for _ in range(5):
            answer = ann.post(
                "/v1/sandboxes?wait=true", json={"profile": "profile.fake"}, headers={"Idempotency-Key": "one"}
            )
            assert answer.status_code == 201
            ids.add(answer.json()["id"])
        assert len(ids) == 1
        assert posted(ann).status_code == 202
        assert posted(ann).status_code == 429


def test_the_minute_is_counted_exactly_and_survives_a_clock_that_is_set_back(tmp_path: Path) -> None:
    recent = CreateRates(tmp_path)
    assert [recent.take("agt:a", 2, at=1000.0 + n) for n in (0, 10, 20)] == [None, None, 40.0]
    assert CreateRates(tmp_path).wait("agt:a", 2, at=1059.0) == 1.0
    assert recent.take("agt:a", 2, at=1060.5) is None
    assert recent.take("agt:b", 2, at=1061.0) is None
    assert recent.take("agt:a", 2, at=500.0) is None
    assert recent.take("agt:a", 0, at=500.0) == 60.0


def test_a_recreate_that_the_quota_would_refuse_destroys_nothing(tmp_path: Path) -> None:
    here = with_quotas(tmp_path, "{'*': {creates_per_minute: 1}}")
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        old = made(ann)["id"]
        assert ann.post(f"/v1/sandboxes/{old}/recreate").status_code == 429
        assert ann.get(f"/v1/sandboxes/{old}").json()["state"] == "ready"


def test_a_sandbox_that_is_replaced_leaves_its_place(tmp_path: Path) -> None:
    here = with_quotas(tmp_path, "{'*': {live: 1}}")
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        old = made(ann)["id"]
        assert ann.post(f"/v1/sandboxes/{old}/recreate?wait=true").status_code == 201


def test_the_command_keeps_to_a_quota_too(tmp_path: Path) -> None:
    with_quotas(tmp_path, "{'adm:tester': {live: 0}}")
    refused = Command(tmp_path)("create", "--profile", "profile.native", "--json")
    assert refused.status == 8
    assert refused.error["code"] == "unavailable"
    noted = Command(tmp_path)("audit", "list", "--json").document["audit"]
    assert [(one["action"], one["outcome"], one["from"]) for one in noted] == [("create", "unavailable", "cli")]


def test_a_consumers_commands_run_as_many_at_once_as_the_quota_allows(tmp_path: Path) -> None:
    here = with_quotas(tmp_path, "{'*': {execs: 2}}")
    another = installed(tmp_path)
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        box = made(ann)["id"]
        marks, stop = [tmp_path / f"mark{n}" for n in range(2)], tmp_path / "stop"

        def hold(mark: Path) -> int:
            script = f"touch {mark}; while ! test -e {stop}; do sleep 0.2; done"
            body = {"argv": ["sh", "-c", script], "timeout": "120s"}
            return int(ann.post(f"/v1/sandboxes/{box}/exec", json=body, timeout=150).status_code)

        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(hold, mark) for mark in marks]
            try:
                eventually(lambda: all(mark.exists() for mark in marks), within=60, what="both commands run")
                refused = ann.post(f"/v1/sandboxes/{box}/exec", json={"argv": ["true"]})
                assert refused.status_code == 429
                assert "retry-after" in refused.headers
                with pytest.raises(OverQuota):  # the command line is no way around
                    another.manager.exec(box, Exec(argv=("true",)), Streams(stdout=ignore, stderr=ignore))
            finally:
                stop.touch()
            assert [one.result(150) for one in held] == [200, 200]
        assert ann.post(f"/v1/sandboxes/{box}/exec", json={"argv": ["true"]}).status_code == 200


def test_slots_are_each_names_own_and_come_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    first, second = slots.try_take("agt:a", 2), Slots(tmp_path).try_take("agt:a", 2)
    assert first is not None
    assert second is not None
    assert slots.try_take("agt:a", 2) is None
    assert slots.try_take("agt:b", 1) is not None
    first.close()
    third = slots.try_take("agt:a", 2)
    assert third is not None
    assert slots.try_take("agt:a", 0) is None


def test_one_caller_cannot_hold_all_the_slots_for_commands(tmp_path: Path) -> None:
    """Without any quota: a hundred commands that do not end, and another caller's is answered at once."""
    here = installed(tmp_path)
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann").token) as ann,
        bearing(server, token(here, "use", "agt:bob").token) as bob,
    ):
        hers, his = made(ann)["id"], made(bob)["id"]
        codes: list[int] = []
        stop = tmp_path / "stop"
        script = f"while ! test -e {stop}; do sleep 0.3; done"

        def hold(_number: int) -> None:
            with bearing(server, ann.headers["authorization"].removeprefix("Bearer ")) as own:
                answer = own.post(f"/v1/sandboxes/{hers}/exec", json={"argv": ["sh", "-c", script], "timeout": "120s"})
                codes.append(answer.status_code)

        with ThreadPoolExecutor(100) as pool:
            work = [pool.submit(hold, number) for number in range(100)]
            try:
                # with a share taken, what is more is refused; then it is known that the rest runs or waits
                eventually(lambda: len(codes) >= 100 - 64, within=60, what="the excess is refused")
                answer = bob.post(f"/v1/sandboxes/{his}/exec", json={"argv": ["echo", "there"]}, timeout=30)
                assert answer.json()["stdout"] == "there\n"
            finally:
                stop.touch()
            for one in work:
                one.result(120)
        assert Counter(codes) == {200: 64, 429: 36}


class SlowRenewals(Faults):
    """A backend that does not answer a renewal until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def at(self, point: str) -> None:
        super().at(point)
        if point == "renew":
            self.go.wait(120)


def test_one_caller_cannot_hold_all_the_slots_for_calls_to_hosts(tmp_path: Path) -> None:
    """Ten renewals that a slow host does not answer, and the operator's sweep is answered at once."""
    slow = SlowRenewals()
    here = installed(tmp_path, slow)
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann").token) as ann,
        bearing(server, token(here, "admin").token) as root,
    ):
        hers = [made(ann)["id"] for _ in range(10)]
        with ThreadPoolExecutor(10) as pool:
            work = [
                pool.submit(ann.post, f"/v1/sandboxes/{one}/extend-ttl", json={"duration": "1m"}, timeout=150)
                for one in hers
            ]
            try:
                eventually(lambda: slow.seen.count("renew") >= 4, within=60, what="renewals are under way")
                assert root.post("/v1/expire", timeout=30).status_code == 200
                assert slow.seen.count("renew") == 4
            finally:
                slow.go.set()
            assert [one.result(120).status_code for one in work] == [200] * 10


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_fifty_creates_at_once_spend_no_more_than_the_tokens_budget(tmp_path: Path) -> None:
    """Each costs one dollar; the token has 5, its consumer 8."""
    bank = Bank(tmp_path, config="budgets: {'agt:ann': {usd: '8'}}")
    here = bank.here
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann", budget="5").token) as small,
        bearing(server, token(here, "use", "agt:ann", budget="50").token) as large,
    ):
        codes = Counter(answer.status_code for answer in together(MANY, lambda _n: posted(small)))
        assert codes == {202: 5, 402: MANY - 5}
        # the consumer's own budget holds for all its tokens together
        codes = Counter(answer.status_code for answer in together(10, lambda _n: posted(large)))
        assert codes == {202: 3, 402: 7}
        shown = small.get("/v1/credits").json()
        assert shown["available_usd"] == "0"
        assert shown["reserved_usd"] == "8"


def test_extending_stays_within_the_budget_of_the_token_that_made_it(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    by_token = bank.manager.acting(Principal(grant=Grant(role="use", consumer="agt:ann", token="tok-x", budget="1.5")))
    record = begun(by_token)
    by_token.extend_ttl(record.id, 400)
    for manager in (by_token, bank.manager):
        with pytest.raises(InsufficientCredits, match="token"):
            manager.extend_ttl(record.id, 400)


def test_what_a_token_has_spent_stays_spent(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    by_token = bank.manager.acting(Principal(grant=Grant(role="use", consumer="agt:ann", token="tok-x", budget="1.5")))
    record = begun(by_token)
    bank.now += 900
    by_token.destroy(record.id)
    with pytest.raises(InsufficientCredits):
        begun(by_token)
    purse = bank.manager.services.credits
    assert str(purse.spare("agt:ann", token=TokenBudget(token="tok-x", usd="1.5"))) == "0.6"
    assert str(purse.spare("agt:ann", token=TokenBudget(token="tok-y", usd="1.5"))) == "1.5"


def test_a_book_from_before_there_were_tokens_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    create_ = bank.create()
    text = (tmp_path / "data" / "credits.json").read_text()
    assert "spent_by_token" not in text
    assert '"token"' not in text
    assert msgspec.json.decode(text)["reservations"][0]["sandbox_id"] == create_.id


def test_a_free_sandbox_costs_a_token_nothing(tmp_path: Path) -> None:
    here = installed(tmp_path)
    manager = here.manager.acting(Principal(grant=Grant(role="use", consumer="agt:ann", token="tok-x", budget="0.01")))
    assert begun(manager).state == "ready"
    assert create(here).state == "ready"
