"""Nothing of a normal day's work breaks under the filter: what people run inside, run inside a native sandbox."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path

import pytest

from sandboxer.extensions.native.seccomp import MACHINES
from tests.extensions.native.seccomp.filtered import MACHINE, Desk
from tests.testbed.components import need

pytestmark = pytest.mark.skipif(MACHINE not in MACHINES, reason=f"no filter for {MACHINE}")


PROGRAM = """\
#include <pthread.h>
#include <stdio.h>
static int total;
static void *add(void *by) { __sync_fetch_and_add(&total, *(int *)by); return 0; }
int main(void) {
    pthread_t threads[8];
    int one = 1;
    for (int n = 0; n < 8; n++) if (pthread_create(&threads[n], 0, add, &one)) return 1;
    for (int n = 0; n < 8; n++) pthread_join(threads[n], 0);
    printf("total %d\\n", total);
    return 0;
}
"""


def test_a_program_runs_under_the_filter_and_without_new_privileges(desk: Desk) -> None:
    status = desk.run("cat", "/proc/self/status")
    assert "\nSeccomp:\t2\n" in status
    assert "\nNoNewPrivs:\t1\n" in status


def test_a_c_program_is_made_by_make_and_runs_its_threads(desk: Desk) -> None:
    need("cc", "make")
    desk.write("total.c", PROGRAM)
    desk.write("Makefile", "all: total again\n%: total.c\n\tcc -g -O0 -pthread -o $@ total.c\n")
    desk.run("make", "-j", "2")
    assert desk.run("./total") == "total 8\n"


def test_gdb_stops_a_program_of_ones_own_and_looks_into_it(desk: Desk) -> None:
    need("cc", "gdb")
    desk.write("stop.c", "int twice(int n) { return n * 2; }\nint main(void) { return twice(21) != 42; }\n")
    desk.run("cc", "-g", "-O0", "-o", "stop", "stop.c")
    commands = ["break twice", "run", "print n", "backtrace", "continue"]
    said = desk.run("gdb", "-nx", "-batch", *(word for each in commands for word in ("-ex", each)), "./stop")
    assert "$1 = 21" in said
    assert "main ()" in said
    assert "exited normally" in said


def test_strace_follows_ones_own_children(desk: Desk) -> None:
    need("strace")
    said = desk.sh("strace -f -e trace=execve,exit_group sh -c 'cat </dev/null; true' 2>&1")
    assert said.count("execve(") >= 2
    assert "exit_group(0)" in said


THREADS = """\
import asyncio, concurrent.futures, multiprocessing, os, socket, subprocess, sys, threading

def square(n):
    return n * n

async def talk():
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    said = await reader.read()
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    server.close()
    return said + out

if __name__ == "__main__":
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(square, range(100))) == 328350
    for how in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(how).Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert asyncio.run(talk()) == b"HELLO\\nchild\\n"
    assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"
    print("all well")
"""


def test_pythons_threads_processes_and_loops_work(desk: Desk) -> None:
    desk.write("threads.py", THREADS)
    assert desk.run("python3", "threads.py").endswith("all well\n")


SQL = """\
import sqlite3
base = sqlite3.connect("numbers.db")
assert base.execute("pragma journal_mode=wal").fetchone() == ("wal",)
base.execute("pragma mmap_size=1048576")
with base:
    base.execute("create table if not exists numbers (n integer)")
    base.executemany("insert into numbers values (?)", [(n,) for n in range(1000)])
print(sqlite3.connect("numbers.db").execute("select sum(n) from numbers").fetchone()[0])
"""


def test_sqlite_keeps_a_table(desk: Desk) -> None:
    assert desk.run("python3", "-c", SQL) == "499500\n"


NODE = """\
const { execFileSync } = require("child_process"), fs = require("fs"), http = require("http");
const { Worker } = require("worker_threads");
fs.writeFileSync("note", "written");
const server = http.createServer((_, answer) => answer.end(fs.readFileSync("note"))).listen(0, "127.0.0.1", () =>
  http.get({ port: server.address().port, host: "127.0.0.1" }, (answer) =>
    answer.on("data", (text) => {
      server.close();
      new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).on("message", (n) =>
        console.log(`${text} ${n} ${execFileSync("echo", ["child"])}`.trim()));
    })));
"""


def test_node_serves_works_and_starts_programs(desk: Desk) -> None:
    need("node")
    assert desk.run("node", "-e", NODE) == "written 42 child\n"


def test_git_makes_clones_and_commits(desk: Desk) -> None:
    need("git")
    who = "-c user.name=me -c user.email=me@example.org -c init.defaultBranch=main"
    said = desk.sh(
        f"git {who} init -q there && cd there && echo one >file && git add file && git {who} commit -qm one && cd .. &&"
        f"git clone -q there here && cd here && echo two >>file && git {who} commit -qam two && git gc -q && "
        "git log --oneline | wc -l && git -C ../there pull -q ../here main && cat ../there/file"
    )
    assert said.split() == ["2", "one", "two"]


def wheel() -> bytes:
    """A package of one module, as a file to install."""
    packed = io.BytesIO()
    about = "demo_of_the_day-1.0.dist-info"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("demo_of_the_day.py", "word = 'installed'\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: demo-of-the-day\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{about}/RECORD", f"demo_of_the_day.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
        )
    return packed.getvalue()


def test_pip_installs_a_wheel(desk: Desk) -> None:
    # ours: a Debian without python3-pip has none below /usr
    ours = importlib.util.find_spec("pip")
    assert ours is not None
    assert ours.origin is not None
    desk.copy(Path(ours.origin).parent)
    name = "demo_of_the_day-1.0-py3-none-any.whl"
    desk.write(name, wheel())
    desk.run(
        "python3", "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-cache-dir", "--target", "site", name
    )
    said = desk.run("python3", "-c", "import sys; sys.path[:0] = ['site']; import demo_of_the_day as d; print(d.word)")
    assert said == "installed\n"


def test_archives_are_packed_and_unpacked_and_names_and_times_are_set(desk: Desk) -> None:
    said = desk.sh(
        "mkdir -p tree/sub && seq 1000 >tree/sub/numbers && ln -sf sub/numbers tree/link "
        "&& touch -d @1000000000 tree/sub/numbers && tar czf tree.tgz tree && rm -r tree && tar xzf tree.tgz "
        "&& gzip -t tree.tgz && stat -c %Y tree/sub/numbers "
        "&& cp -a tree copy && find copy -type l && sort -rn copy/link | head -n 1"
    )
    assert said.split() == ["1000000000", "copy/link", "1000"]
