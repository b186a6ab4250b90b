"""Compare ways to keep a second snapshot of a tree that has changed a little (decision 0034).

    python scripts/bench_snapshot_stores.py [--mib 64] [--restic PATH] [--borg PATH]

Makes a tree of small files and one large one, packs it by tar, changes it (fifty files in five thousand, a hundredth
of the large file in one place), and packs it again; then once more with scattered pages of 8 KiB. For each way: bytes
kept for the first, the second and the scattered one as a share of the first, and seconds of each. Needs zstandard,
pyfastcdc and fastcdc; restic and borg are measured where they are given.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WORDS = [hashlib.sha256(str(n).encode()).hexdigest()[: 3 + n % 9].encode() for n in range(4000)]


def text(rng: random.Random, size: int) -> bytes:
    """Words and numbers: zstd makes about two fifths of it, as of sources and of rows."""
    out = bytearray()
    while len(out) < size:
        out += b" ".join(rng.choices(WORDS, k=4000)) + rng.randbytes(2000)
    return bytes(out[:size])


def make(root: Path, mib: int) -> int:
    """The tree; how many small files it has."""
    rng = random.Random(1)  # noqa: S311 - data, no secret
    count = 5 * mib
    for number in range(count):
        path = root / f"d{number % 37}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text(rng, rng.randrange(2 << 10, 200 << 10)))
    with (root / "large").open("wb") as large:
        for _ in range(mib // 2):
            large.write(text(rng, 1 << 20))
    return count


def change(root: Path, count: int, mib: int) -> None:
    rng = random.Random(2)  # noqa: S311 - data, no secret
    for number in rng.sample(range(count), max(1, count // 100)):
        path = root / f"d{number % 37}" / f"file{number}"
        data = path.read_bytes()
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + b"changed" + data[at + 3 :])
    (root / "d0" / "added").write_bytes(text(rng, 5000))  # moves everything behind it
    with (root / "large").open("r+b") as large:
        large.seek(rng.randrange(mib << 18))
        large.write(text(rng, mib * 5 << 10))


def scatter(root: Path, mib: int) -> None:
    rng = random.Random(3)  # noqa: S311 - data, no secret
    with (root / "large").open("r+b") as large:
        for _ in range(640 * mib // 1024):
            large.seek(rng.randrange(mib << 6) << 13)
            large.write(text(rng, 8 << 10))


def ours(root: Path, cut: Callable[[object], Iterator[memoryview | bytes]], level: int) -> Callable[[], int]:
    """Chunks by their SHA-256, each compressed, in a file that is flushed; what a call adds."""
    import zstandard

    known: dict[bytes, int] = {}
    packer = zstandard.ZstdCompressor(level=level)

    def snapshot() -> int:
        added = 0
        with (
            subprocess.Popen(["tar", "-C", root, "-S", "-cf", "-", "."], stdout=subprocess.PIPE) as tar,
            tempfile.TemporaryFile() as pack,
        ):
            for data in cut(tar.stdout):
                name = hashlib.sha256(data).digest()
                if name not in known:
                    kept = packer.compress(data)
                    known[name] = len(kept)
                    pack.write(kept)
                    added += len(kept)
            pack.flush()
            os.fsync(pack.fileno())
        return added

    return snapshot


def fastcdc_whole(average: int) -> Callable[[object], Iterator[bytes]]:
    from fastcdc import fastcdc_cy

    def cut(stream: object) -> Iterator[bytes]:
        data = stream.read()  # it takes a whole buffer only
        for chunk in fastcdc_cy.fastcdc_cy(data, avg_size=average, fat=True):
            yield chunk.data

    return cut


def pyfastcdc(average: int) -> Callable[[object], Iterator[memoryview]]:
    from pyfastcdc import FastCDC

    return lambda stream: (chunk.data for chunk in FastCDC(average).cut_stream(stream))


def fixed(size: int) -> Callable[[object], Iterator[bytes]]:
    return lambda stream: iter(lambda: stream.read(size), b"")


def archive(root: Path) -> Callable[[], int]:
    def snapshot() -> int:
        tar = subprocess.Popen(["tar", "-C", root, "-S", "-cf", "-", "."], stdout=subprocess.PIPE)
        with tempfile.TemporaryFile() as out:
            subprocess.run(["zstd", "-3", "-T0", "-q", "-c"], stdin=tar.stdout, stdout=out, check=True)
            tar.wait()
            os.fsync(out.fileno())
            return os.fstat(out.fileno()).st_size

    return snapshot


def program(root: Path, repository: Path, init: list[str], add: Callable[[], list[str]]) -> Callable[[], int]:
    environment = {**os.environ, "RESTIC_PASSWORD": "x", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "HOME": str(repository.parent)}  # fmt: skip
    subprocess.run(init, env=environment, check=True, stdout=subprocess.DEVNULL)

    def used() -> int:
        return sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())

    def snapshot() -> int:
        before = used()
        subprocess.run(add(), env=environment, cwd=root, check=True, stdout=subprocess.DEVNULL)
        return used() - before

    return snapshot


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a measurement's output


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--mib", type=int, default=64)
    asked.add_argument("--restic")
    asked.add_argument("--borg")
    args = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "tree")
        root.mkdir()
        count = make(root, args.mib)
        ways = {"tar | zstd -3 -T0": archive(root), "pieces of 64 KiB, zstd 3": ours(root, fixed(64 << 10), 3)}
        for average in (16, 32, 64, 128, 1024):
            ways[f"pyfastcdc {average} KiB, zstd 3"] = ours(root, pyfastcdc(average << 10), 3)
        ways["pyfastcdc 64 KiB, zstd 1"] = ours(root, pyfastcdc(64 << 10), 1)
        ways["fastcdc 64 KiB, zstd 3"] = ours(root, fastcdc_whole(64 << 10), 3)
        if args.restic:
            repository = Path(scratch, "restic")
            base = [args.restic, "-q", "--no-cache", "-r", str(repository)]
            ways["restic"] = program(root, repository, [*base, "init"], lambda: [*base, "backup", "."])
        if args.borg:
            where, names = Path(scratch, "borg"), iter("abc")
            ways["borg, zstd 3"] = program(
                root, where, [args.borg, "init", "-e", "none", str(where)],
                lambda: [args.borg, "create", "-C", "zstd,3", f"{where}::{next(names)}", "."],
            )  # fmt: skip
        rows: dict[str, list[float]] = {name: [] for name in ways}
        for step in (lambda: None, lambda: change(root, count, args.mib), lambda: scatter(root, args.mib)):
            step()
            subprocess.run(["tar", "-C", root, "-cf", os.devnull, "."], check=True)  # into the page cache
            for name, way in ways.items():
                began = time.perf_counter()
                rows[name] += [way(), time.perf_counter() - began]
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        say(f"{size / 2**20:.0f} MiB in {count + 1} files; first MiB, s | second share, s | scattered share, s")
        for name, (first, one, second, two, third, three) in rows.items():
            say(f"{name:28} {first / 2**20:7.1f} {one:5.2f} | {second / first:6.4f} {two:5.2f} | "
                f"{third / first:6.4f} {three:5.2f}")  # fmt: skip
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
