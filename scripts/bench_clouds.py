"""The figures of routes and clouds, each on a fake that is a process of its own (scripts/bench)."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from measuring import clean, process, ratio, sandboxer, seconds
from tests.installations import FAKE_MANIFEST, environment, lay_out

from sandboxer.bootstrap import install
from sandboxer.models import Request

Figures = Iterator[tuple[str, float, float, str]]
ROUNDS = 7
CYCLES = 10


@contextmanager
def fake(provider: str, *, latency: float = 0.0) -> Iterator[dict[str, str]]:
    """A fake cloud as a process; the environment that leads to it."""
    words = [sys.executable, "-m", "tests.fakes", provider, "--latency", str(latency)]
    served = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert served.stdout is not None
    try:
        found: dict[str, str] = {}
        for line in served.stdout:
            if line == "\n":
                break  # nothing more is said
            name, _, value = line.removeprefix("export ").partition("=")
            found[name] = shlex.split(value)[0]
        yield found
    finally:
        served.terminate()
        served.wait(30)


class Worker:
    """`bench_cycles.py` as a process."""

    def __init__(self, who: str, provider: str, env: dict[str, str]) -> None:
        words = [sys.executable, str(Path(__file__).with_name("bench_cycles.py")), who, provider]
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rounds(self, count: int) -> dict[str, float]:
        """Seconds and processor seconds for that many rounds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        took: dict[str, float] = json.loads(self.process.stdout.readline())
        return took

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def sdks(_: Path) -> Figures:
    """Our adapters over the providers' own SDKs: create, exec, destroy on the same fake, in turn."""
    for provider in ("e2b", "daytona", "modal"):
        with fake(provider) as there:
            env = {**os.environ, **there}
            workers = Worker("ours", provider, env), Worker("sdk", provider, env)
            for worker in workers:
                worker.rounds(3)
            pairs = [(workers[0].rounds(CYCLES), workers[1].rounds(CYCLES)) for _ in range(ROUNDS)]
            for worker in workers:
                worker.close()
        for kind in ("wall", "cpu"):
            middle = statistics.median(one[kind] / other[kind] for one, other in pairs)
            mine, its = (statistics.median(pair[side][kind] for pair in pairs) * 1000 / CYCLES for side in (0, 1))
            yield f"{provider}: create, exec, destroy / its SDK, {kind}", 1.0, middle, f"{mine:.1f} ms / {its:.1f} ms"


def burst(root: Path) -> Figures:
    """A whole `create` at E2B over a whole `get`."""
    lay_out(root)
    with fake("e2b") as there:
        env = environment(root, **there)
        funded(env)
        here = install(env, relay_in_background=False)
        first = here.manager.create(here.manager.plan(Request(profile="profile.e2b-burst")))
        create = process(*sandboxer("create", "--profile", "profile.e2b-burst", "--json"), env=env)
        get = process(*sandboxer("get", first.id, "--json"), env=env)
        yield "create at E2B, process / get", 3, *ratio(create, get)
        clean(here)


def crowd(root: Path) -> Figures:
    """200 creates at E2B from 50 threads over 200 in turn, each answer 20 ms away."""
    lay_out(root)
    with fake("e2b", latency=0.02) as there:
        env = environment(root, **there)
        funded(env)
        here = install(env, relay_in_background=False)
        request = Request(profile="profile.e2b-burst")

        def create(_: int) -> None:
            here.manager.create(here.manager.plan(request))

        create(0)
        alone = seconds(lambda: [create(number) for number in range(200)])
        clean(here)

        def together() -> None:
            with ThreadPoolExecutor(50) as pool:
                list(pool.map(create, range(200)))

        at_once = seconds(together)
        clean(here)
    yield "200 creates from 50 threads / in turn", 0.15, at_once / alone, f"{at_once:.2f} s / {alone:.2f} s"


def routes(root: Path) -> Figures:
    """What a create decides before it begins, with 50 candidates in its route over with one."""
    lay_out(root)
    for number in range(50):
        text = FAKE_MANIFEST.replace("ext.fake", f"ext.number-{number}")
        (root / "config" / "extensions" / f"ext.number-{number}.yaml").write_text(text)
    for name, count in (("many", 50), ("one", 1)):
        candidates = ", ".join(f"ext.number-{number}" for number in range(count))
        route = f"route: {{strategy: lowest-cost, candidates: [{candidates}]}}"
        text = f"id: profile.{name}\nversion: 1.0.0\ntitle: A route\n{route}\nttl: {{default: 1h}}\n"
        (root / "config" / "profiles" / f"profile.{name}.yaml").write_text(text)
    here = install(environment(root), relay_in_background=False)
    many, one = (Request(profile=f"profile.{name}") for name in ("many", "one"))
    assert len(here.manager.plan(many).candidates) == 50
    middle, text = ratio(lambda: here.manager.plan(many), lambda: here.manager.plan(one), rounds=21)
    yield "route decision, 50 candidates / 1", 20, middle, text


def funded(env: dict[str, str]) -> None:
    """Put money in."""
    words = [sys.executable, "-m", "sandboxer", "credits", "add", "100000"]
    subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


PARTS = {"sdks": sdks, "burst": burst, "crowd": crowd, "routes": routes}
