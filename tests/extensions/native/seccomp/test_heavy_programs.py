"""The heavier half of a day's work under the filter: Java, Go, Rust, a browser. Only in `make soak` (conftest.py)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.extensions.native.seccomp import MACHINES
from tests.extensions.native.sandboxes import Bench
from tests.extensions.native.seccomp.filtered import MACHINE, Desk
from tests.testbed.components import need

pytestmark = pytest.mark.skipif(MACHINE not in MACHINES, reason=f"no filter for {MACHINE}")


@pytest.fixture(scope="module")
def desk(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """With a JDK at /opt/jdk that is whole: Debian's keeps half of itself in /etc, which the inside does not have."""
    need("/usr/bin/javac")
    jdk = tmp_path_factory.mktemp("jdk") / "jdk"
    unused = shutil.ignore_patterns("src.zip", "jmods", "demo", "man", "cacerts", "blacklisted.certs")
    shutil.copytree(Path("/usr/bin/javac").resolve().parents[1], jdk, ignore=unused, ignore_dangling_symlinks=True)
    with bench.box(python=True, ro_binds={"/opt/jdk": str(jdk)}) as box:
        yield Desk(box)


JAVA = """\
import java.util.concurrent.*;
import java.util.stream.*;

public class Sum {
    public static void main(String[] words) throws Exception {
        var pool = Executors.newFixedThreadPool(4);
        long sum = pool.submit(() -> IntStream.range(0, 100000).parallel().asLongStream().sum()).get();
        pool.shutdown();
        var child = new ProcessBuilder("echo", "child").start();
        System.out.println(sum + " " + new String(child.getInputStream().readAllBytes()).trim());
    }
}
"""


def test_java_compiles_and_runs_its_threads_and_children(desk: Desk) -> None:
    desk.write("Sum.java", JAVA)
    desk.run("/opt/jdk/bin/javac", "Sum.java")
    for collector in ("Serial", "Parallel", "G1"):
        assert "4999950000 child" in desk.run("/opt/jdk/bin/java", f"-XX:+Use{collector}GC", "-Xmx256m", "Sum")


GO = """\
package main

import (
	"fmt"
	"net"
	"os/exec"
	"sync"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connection.Write([]byte("x"))
			connection.Close()
		}
	}()
	var group sync.WaitGroup
	results := make(chan int, 50)
	for n := 0; n < 50; n++ {
		group.Add(1)
		go func() {
			defer group.Done()
			connection, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				panic(err)
			}
			one := make([]byte, 1)
			n, _ := connection.Read(one)
			results <- n
		}()
	}
	group.Wait()
	child, err := exec.Command("echo", "child").Output()
	fmt.Printf("%d %s", len(results), child)
	if err != nil {
		panic(err)
	}
}
"""


def test_go_builds_and_runs_its_routines_and_children(desk: Desk) -> None:
    need("/usr/bin/go")
    desk.write("many.go", GO)
    desk.sh("GOCACHE=/tmp/go GOFLAGS=-mod=mod GO111MODULE=off go build -o many many.go")
    assert desk.run("./many") == "50 child\n"


RUST = """\
fn main() {
    let threads: Vec<_> = (0..8u64).map(|n| std::thread::spawn(move || n * n)).collect();
    let sum: u64 = threads.into_iter().map(|each| each.join().unwrap()).sum();
    let child = std::process::Command::new("echo").arg("child").output().unwrap();
    print!("{sum} {}", String::from_utf8(child.stdout).unwrap());
}
"""


def test_cargo_builds_tests_and_runs(desk: Desk) -> None:
    need("/usr/bin/cargo", "cc")
    desk.write("crate/Cargo.toml", '[package]\nname = "demo"\nversion = "1.0.0"\nedition = "2021"\n')
    desk.write("crate/src/main.rs", RUST + "#[test]\nfn adds() { assert_eq!(1 + 1, 2); }\n")
    said = desk.sh("cd crate && CARGO_HOME=/tmp/cargo cargo test --offline -q && cargo run --offline -q")
    assert "1 passed" in said
    assert "140 child" in said


CHROMIUM = "/usr/lib/chromium/chromium"
PAGE = "<body><script>document.body.append('six times seven is ' + 6 * 7)</script></body>\n"


def test_a_headless_browser_renders_a_page(desk: Desk) -> None:
    """As in Docker, it needs --no-sandbox: its own sandbox wants a user namespace. Debian's wrapper reads /etc."""
    need(CHROMIUM)
    desk.write("page.html", PAGE)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=/tmp/profile", "--dump-dom"]
    assert "six times seven is 42" in desk.run(CHROMIUM, *words, "file:///workspace/page.html")
