"""A small fuzzer: seeds that are changed at random, and what said something new is a seed from then on.

A target is a module of this package with `run(data)`, which raises nothing but SandboxerError, and SEEDS; it may have
TOKENS (what its language is made of), INPUTS (how many are tried in `make check`) and FAULTS (other `run`s, each with a
fault, by name: the fuzzer has to find them).
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from sandboxer.errors import SandboxerError

SECONDS_PER_INPUT = 10.0
"""Of a processor, for one input: what takes longer grows with something else than its length."""
MOST_BYTES = 1 << 16
_COMMON = (
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\\",
    b"\xff",
    b"\xc3\xa9",
    b"-1",
    b"9" * 30,
    b"{",
    b"[",
    b'"',
    b":",
)

Run = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """What is fuzzed."""

    name: str
    run: Run
    seeds: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    inputs: int = 500
    faults: Mapping[str, Run] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """An input that a target did not bear, and what became of it."""

    data: bytes
    error: BaseException

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}\n  for {self.data!r}"


def targets() -> Iterator[Target]:
    """Every module of this package that is one."""
    package = importlib.import_module(__package__ or "")
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("test_"):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            if hasattr(module, "run") and hasattr(module, "SEEDS"):
                yield _target(info.name, module)


def _target(name: str, module: ModuleType) -> Target:
    return Target(
        name,
        module.run,
        module.SEEDS,
        getattr(module, "TOKENS", ()),
        getattr(module, "INPUTS", 500),
        getattr(module, "FAULTS", {}),
    )


def fuzz(target: Target, *, seed: int, inputs: int | None = None, seconds: float | None = None) -> Found | None:
    """Try so many inputs, or for so long; the first that is not borne, made shorter."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable sequence, nothing secret
    corpus = list(target.seeds)
    heard: set[str] = set()
    end = None if seconds is None else time.monotonic() + seconds
    tried = 0
    while (inputs is None or tried < inputs) and (end is None or time.monotonic() < end):
        data = corpus[tried] if tried < len(target.seeds) else changed(chance, corpus, target.tokens)
        tried += 1
        said, error = attempt(target.run, data)
        if error is not None:
            return shortened(target.run, Found(data, error))
        if said not in heard:
            heard.add(said)
            corpus.append(data)
            if len(corpus) > 2000:
                del corpus[len(target.seeds)]
    return None


def attempt(run: Run, data: bytes) -> tuple[str, BaseException | None]:
    """What a target says to an input, without its figures; and what it should not have raised."""
    begun = time.process_time()
    try:
        said = repr(run(data))[:200]
    except SandboxerError as error:
        said = re.sub(r"'[^']*'|\"[^\"]*\"|[0-9]+", "_", f"{type(error).__name__} {error.message}")[:200]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return "", error
    taken = time.process_time() - begun
    if taken > SECONDS_PER_INPUT:
        return "", TimeoutError(f"it took {taken:.1f} s of a processor")
    return said, None


def changed(chance: random.Random, corpus: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the corpus, changed in a few places."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
        at = chance.choice((0, len(data), *(chance.randint(0, len(data)) for _ in range(4))))
        upto = min(len(data), at + chance.choice((0, 1, 1, 2, 4, 16, 64)))
        match chance.randrange(8):
            case 0:
                del data[at:upto]
            case 1:
                data[at:upto] = chance.choice(tokens or _COMMON)
            case 2:
                data[at:at] = chance.choice(tokens or _COMMON)
            case 3:
                data[at:upto] = chance.choice(_COMMON)
            case 4:
                data[at:at] = data[at:upto] * chance.choice((1, 2, 10, 100))
            case 5:
                other = chance.choice(corpus)
                start = chance.randint(0, len(other))
                data[at:upto] = other[start : start + chance.choice((4, 32, 256, 4096))]
            case 6:
                data[at:at] = chance.choice(tokens or _COMMON) * chance.choice((2, 15, 70, 1000))
            case _:
                if at < len(data):
                    data[at] = chance.randrange(256)
        del data[MOST_BYTES:]
    return bytes(data)


def shortened(run: Run, found: Found, *, tries: int = 300) -> Found:
    """The same failure by a shorter input, for whoever reads it."""
    size = len(found.data) // 2
    while size and tries:
        at = 0
        while at < len(found.data) and tries and not isinstance(found.error, TimeoutError):
            tries -= 1
            data = found.data[:at] + found.data[at + size :]
            _, error = attempt(run, data)
            if error is not None and type(error) is type(found.error):
                found = Found(data, error)
            else:
                at += size
        if isinstance(found.error, TimeoutError):
            break
        size //= 2
    return found
