"""A private dockerd."""

import json
import os
import subprocess
from pathlib import Path

from . import interfaces, mounts
from .components import SYSTEM_FOLDERS, have
from .engine import Engine, Resources, lines
from .waiting import eventually


class Docker(Engine):
    """A dockerd of our own. Its front ends: `docker compose` (version 2) and, by path, docker-compose (version 1)."""

    kind = "docker"
    program = "docker"
    default_networks = frozenset({"bridge", "host", "none"})

    def _start(self) -> None:
        self._bridge = f"tbbr{self._slot.number}"
        gateway = self.net[-256] + 1
        pool = next(self.net.subnets(new_prefix=17))
        interfaces.add_bridge(self._bridge, f"{gateway}/24")
        socket = self.root / "docker.sock"
        settings = {
            "data-root": str(self.root / "data"),
            "exec-root": str(self.root / "exec"),
            "pidfile": str(self.root / "dockerd.pid"),
            "hosts": [f"unix://{socket}"],
            "group": "root",
            "storage-driver": "overlay2" if self._overlay_works() else "vfs",
            "iptables": False,
            "ip-forward": False,
            "ip6tables": False,
            # its own: `docker0` would be taken over from another dockerd, with another address
            "bridge": self._bridge,
            "fixed-cidr": f"{self.net[-256]}/24",
            "default-address-pools": [{"base": str(pool), "size": 24}],
            "cgroup-parent": f"/{self._cgroup()}",
            # a containerd of the machine, if there is one, is shared by namespaces
            "containerd-namespace": self._cgroup(),
            "log-level": "warn",
            "shutdown-timeout": 3,
        }
        (self.root / "daemon.json").write_text(json.dumps(settings, indent=1))
        dockerd = have("dockerd")
        assert dockerd
        words = ["setpriv", "--pdeathsig", "TERM", dockerd, "--config-file", str(self.root / "daemon.json")]
        words += ["--containerd-plugins-namespace", f"{self._cgroup()}-plugins"]
        # a proxy that refuses: pulling a missing image fails at once instead of waiting for a name server
        refuse = {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
        path = {"PATH": os.pathsep.join(SYSTEM_FOLDERS)}
        log = self.root / "dockerd.log"
        with log.open("wb") as output:
            self._daemon: subprocess.Popen[bytes] | None = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **path, **refuse},
                start_new_session=True,
            )
        self._front_ends(socket)
        eventually(self._answers, within=30, every=0.05, what=f"dockerd to answer ({log})")

    def _front_ends(self, socket: Path) -> None:
        config = self.root / "client"
        (config / "cli-plugins").mkdir(parents=True)
        (config / "config.json").write_text("{}\n")
        # no buildx plugin here, and BuildKit would need it
        buildkit = {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        self.env |= {"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(config), **buildkit}
        client = have("docker")
        assert client
        self._link("docker", client)
        if plugin := have("docker compose"):
            (config / "cli-plugins" / "docker-compose").symlink_to(plugin)
            self.compose += ("docker compose",)
        if first := have("docker-compose"):
            self.compose += (self._link("docker-compose", first),)

    def _answers(self) -> bool:
        assert self._daemon
        if self._daemon.poll() is not None:
            raise RuntimeError(f"dockerd has ended: {(self.root / 'dockerd.log').read_text()[-2000:]}")
        return self.run("docker", "version", check=False).returncode == 0

    def _stop(self) -> None:
        daemon: subprocess.Popen[bytes] | None = getattr(self, "_daemon", None)
        if daemon is None or daemon.poll() is not None:
            return
        if containers := lines(self.run("docker", "ps", "-aq", check=False)):
            self.run("docker", "rm", "-f", "-v", *containers, check=False)
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def resources(self) -> Resources:
        """Containers, networks and volumes of this dockerd."""
        networks = set(lines(self.run("docker", "network", "ls", "--format", "{{.Name}}")))
        return {
            "containers": set(lines(self.run("docker", "ps", "-a", "--format", "{{.Names}}"))),
            "networks": networks - self.default_networks,
            "volumes": set(lines(self.run("docker", "volume", "ls", "--format", "{{.Name}}"))),
        }

    def interfaces(self) -> set[str]:
        """Bridges of its networks, the default one excepted."""
        return super().interfaces() - {self._bridge}

    def namespaces(self) -> set[str]:
        """What dockerd keeps in its own folder."""
        folder = f"{self.root}/exec/netns/"  # its files stay for a while after the namespace has gone
        return {path for path in mounts.mentioning([f" {folder}"]) if path != f"{folder}default"}
