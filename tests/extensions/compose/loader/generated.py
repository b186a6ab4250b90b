"""Random repositories of compose files, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

SERVICE: dict[str, Sequence[str]] = {
    "annotations": ["{a: b}", "[c=d]"],
    "blkio_config": ["{weight: 300, device_read_bps: [{path: /dev/sda, rate: '12mb'}]}", "{weight: 10}"],
    "build": [
        ".",
        "./app",
        "{context: app, dockerfile: Dockerfile.dev, args: [A=1, V, NOPE], target: prod}",
        "{args: {A: 2, B: '${V}'}, labels: {x: 1}, shm_size: 64m}",
        "{context: 'https://example.org/a.git#main', network: none}",
        "{dockerfile_inline: FROM scratch, extra_hosts: ['a:1.1.1.1'], tags: [t1, t2]}",
        "{additional_contexts: [base=docker-image://a, lib=./lib], cache_from: [a], no_cache: true, pull: 'true'}",
        "{ssh: [default], ulimits: {nofile: 3}, platforms: [linux/amd64]}",
    ],
    "cap_add": ["[NET_ADMIN]", "[NET_ADMIN, SYS_TIME]"],
    "cap_drop": ["[ALL]", "[ALL, CHOWN]"],
    "command": ["echo a b", "[x, y]", "'echo \"q r\" $$HOME ${V}'", "sh -c 'a; b'", "a && b", "[]", "", "''"],
    "configs": ["[c1]", "[{source: c1, target: /c, mode: 0440}]", "[{source: c2, uid: '5'}]"],
    "container_name": ["one-${V}"],
    "cpu_shares": ["10", "'20'"],
    "cpus": ["0.5", "'1.25'", "2"],
    "devices": ["[/dev/a]", "['/dev/a:/dev/b:r']", "['/dev/c:/dev/b']"],
    "depends_on": [
        "[b]",
        "{b: {condition: service_healthy}}",
        "[b, c]",
        "{c: {condition: service_completed_successfully, restart: true}}",
        "{zz: {condition: service_started, required: false}}",
    ],
    "deploy": [
        "{replicas: 2}",
        "{resources: {limits: {cpus: '0.5', memory: 50M}, reservations: {memory: 1gb}}}",
        "{restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}}",
        "{labels: [a=b], placement: {constraints: [node.role==x]}, update_config: {parallelism: 2, delay: 10s}}",
        "{resources: {reservations: {devices: [{driver: x, count: all, capabilities: [gpu]}]}}}",
    ],
    "dns": ["1.1.1.1", "[1.1.1.1, 8.8.8.8]"],
    "dns_search": ["a.example", "[a.example, b.example]"],
    "entrypoint": ["/run.sh --x", "[/bin/sh, -c]", ""],
    "env_file": [
        "vars.env",
        "[vars.env, more.env]",
        "[{path: gone.env, required: false}, {path: more.env}]",
        "[{path: vars.env}]",
    ],
    "environment": [
        "{A: 1, B: yes, C: 0o17, D: 1.50, E: true, F: null, G: ''}",
        "[A=2, V, NOPE, 'H=x=$$y', 'I=${V:-d}']",
        "{A: '${NOPE:-${V}}', J: 1e3, K: 08, L: 1_000, M: 22:22, N: '~'}",
        "{A: '${V:+x}${NOPE+y}${NOPE-z}', O: a$, P: $1}",
        "[E=, F]",
    ],
    "expose": ["[80]", "['80', 443]", "['90-92']"],
    "extra_hosts": ["['a:1.1.1.1', b=::1]", "{a: 1.1.1.1, h: host-gateway}"],
    "group_add": ["[1000]", "[adm]"],
    "healthcheck": [
        "{test: curl -f http://localhost, interval: 1m30s, timeout: 10s, retries: 3, start_period: 40s}",
        "{test: [CMD, a, b], interval: 500ms}",
        "{disable: true}",
        "{test: [NONE]}",
        "{retries: '5', start_interval: 1.5s}",
    ],
    "hostname": ["h-$V", "h2"],
    "image": ["img:${TAG:-latest}", "$V/img", "other@sha256:abc"],
    "init": ["true", "'false'"],
    "ipc": ["private", "shareable"],
    "labels": ["{a: 1, b: true, c: , d: x}", "[a=2, e, f=g=h]", "{'x.${V}': '${V}'}"],
    "logging": ["{driver: json-file, options: {max-size: 10m, max-file: 3}}", "{driver: local}", "{options: {tag: x}}"],
    "mem_limit": ["1g", "512", "'1.5gb'"],
    "mem_swappiness": ["10"],
    "network_mode": ["none", "bridge"],
    "networks": [
        "[n1]",
        "{n1: {aliases: [x, y]}, n2: }",
        "[default, n2]",
        "{n1: {ipv4_address: 10.1.0.5, priority: 3}}",
    ],
    "oom_score_adj": ["-5", "'7'"],
    "pids_limit": ["100"],
    "platform": ["linux/amd64"],
    "ports": [
        "['8080:80']",
        "[80, '443']",
        "['127.0.0.1:9000-9002:9000-9002/udp', '[::1]:1:2']",
        "[{target: 80, published: 90, protocol: udp, mode: host}, {target: '81', published: '91-92'}]",
        "['${PORT:-7000}:7', '8000-8005:81', '127.0.0.1::5']",
        "['8080:80', '8081:80/tcp']",
    ],
    "privileged": ["true", "'false'"],
    "profiles": ["[p1]", "[p1, p2]"],
    "pull_policy": ["always", "if_not_present"],
    "read_only": ["true", "no"],
    "restart": ["always", "no", "on-failure:3"],
    "secrets": ["[s1]", "[{source: s1, target: db, mode: 0400}]", "[{source: s2, target: /x}, s1]"],
    "security_opt": ["['no-new-privileges:true']"],
    "shm_size": ["64m", "1024"],
    "stdin_open": ["true"],
    "stop_grace_period": ["1m30s", "1h", "100ms"],
    "stop_signal": ["SIGINT"],
    "storage_opt": ["{size: 1G}"],
    "sysctls": ["{net.core.somaxconn: 1024}", "[net.ipv4.x=0, net.core.somaxconn=5]"],
    "tmpfs": ["/run", "[/run, '/tmp:size=64m,mode=1777']"],
    "tty": ["true", "${T:-yes}"],
    "ulimits": ["{nofile: 65535, nproc: {soft: 1, hard: 2}}", "{nofile: {soft: '10', hard: 20}}"],
    "user": ["'1000:1000'", "root"],
    "volumes": [
        "['./src:/src', 'data:/data:ro']",
        "[/anon, '../up:/up:rw,z', '.:/all:cached']",
        "[{type: bind, source: ./src, target: /src, read_only: true, bind: {propagation: rslave}}]",
        "[{type: tmpfs, target: /data, tmpfs: {size: 10m, mode: 01777}}, {type: volume, source: cache, target: /c}]",
        "['/abs/path:/src/', 'cache:/c:nocopy']",
        "[{type: volume, target: /anon, volume: {nocopy: true, subpath: x}}]",
    ],
    "working_dir": ["/app"],
    "x-note": ["{a: [1, 2]}"],
}
"""Keys of a service, each with values in the forms that people write."""

TOP = {
    "networks": ["n1: {driver: bridge, labels: [a=b]}", "n1: ", "n1: {ipam: {config: [{subnet: 10.1.0.0/24}]}}"],
    "n2": ["n2: {external: true}", "n2: {name: 'net-${V}', internal: true}", "n2: {driver_opts: {a: 1}}"],
    "volumes": ["data: ", "data: {driver: local, driver_opts: {o: bind, type: none, device: ./data}}"],
    "cache": ["cache: {external: true, name: shared}", "cache: {labels: {a: 1}}", "cache: {name: $V}"],
    "secrets": ["s1: {file: ./s1.txt}", "s1: {file: ../s1}"],
    "s2": ["s2: {environment: V}", "s2: {external: true}"],
    "configs": ["c1: {file: c1.txt}", "c1: {content: 'a $V b'}"],
    "c2": ["c2: {environment: V}", "c2: {external: true, name: 'c-$V'}"],
}
_EXCLUSIVE = (("network_mode", "networks"), ("mem_limit", "deploy"), ("cpus", "deploy"), ("pids_limit", "deploy"),
              ("container_name", "deploy"))  # fmt: skip


class Trees:
    """Makes repositories."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable sequence, nothing secret

    def tree(self) -> dict[str, str]:
        """A repository whose project docker compose should take."""
        chance = self._random.random
        files = {
            ".env": "V=val\nTAG='1.2'\nexport W=\"x ${V}\" # c\n",
            "vars.env": "V1=1\nV2=${V1}-${V}-${W}\nA=from file\nQ='it''s'\n".replace("''s", "s"),
            "more.env": 'V2="two\\nlines"\nF=file\n# c\nV3=a # b\n',
            "sub/vars.env": "SUB=1\nA=sub $V\n",
            "sub/more.env": "MORE=1\n",
            "sub/.env": "V=subval\nONLY=sub\n",
        }
        common = self._common()
        top = self._top(common)
        anchors = "x-base: &base\n  restart: always\n  environment: &env {A: 9, Z: z}\n" if chance() < 0.5 else ""
        names = ["a", "b", "c"]
        main = anchors + "services:\n"
        for name in names:
            keys = self._keys(5, without=("depends_on",) if name != "a" else ())
            if name in ("b", "c"):
                keys = [key for key in keys if key != "profiles"]
            extra = ""
            if anchors and chance() < 0.5:
                keys = [key for key in keys if key != "restart"]
                extra = "    <<: *base\n"
            if chance() < 0.3:
                extra += self._extends(name, files)
            main += self._service(name, keys, extra)
        main += top
        if chance() < 0.4:
            files["sub/inc.yaml"] = self._included()
            main += self._choose(
                [
                    "include: [sub/inc.yaml]\n",
                    "include:\n  - path: sub/inc.yaml\n    env_file: vars.env\n",
                    "include:\n  - {path: [sub/inc.yaml], project_directory: .}\n",
                ]
            )
        files["compose.yaml"] = main
        if chance() < 0.6:
            files["compose.override.yaml"] = self._override(names)
        return files

    def _choose(self, options: Sequence[str]) -> str:
        return self._random.choice(options)

    def _common(self) -> list[str]:
        return ["networks", "volumes", "secrets", "configs"]

    def _top(self, sections: Sequence[str]) -> str:
        more = {"networks": "n2", "volumes": "cache", "secrets": "s2", "configs": "c2"}
        text = ""
        for section in sections:
            text += f"{section}:\n  {self._choose(TOP[section])}\n  {self._choose(TOP[more[section]])}\n"
        return text

    def _keys(self, most: int, *, without: Sequence[str] = ()) -> list[str]:
        keys = self._random.sample(sorted(set(SERVICE) - set(without)), self._random.randint(1, most))
        return self._compatible(keys)

    def _compatible(self, keys: list[str]) -> list[str]:
        for one, other in _EXCLUSIVE:
            if one in keys and other in keys:
                keys.remove(one)
        return keys

    def _service(self, name: str, keys: Sequence[str], extra: str = "", *, image: bool = True) -> str:
        text = f"  {name}:\n" + extra
        if image and "image" not in keys:
            text += f"    image: {name}\n"
        for key in keys:
            text += f"    {key}: {self._value(key)}\n"
        return text

    def _value(self, key: str) -> str:
        return self._choose(SERVICE[key])

    def _extends(self, name: str, files: dict[str, str]) -> str:
        quiet = ("depends_on", "profiles", *(key for pair in _EXCLUSIVE for key in pair))
        if self._random.random() < 0.5:
            keys = self._keys(4, without=quiet)
            files["lib/base.yaml"] = files.get("lib/base.yaml", "services:\n") + self._service(f"base-{name}", keys)
            files["lib/vars.env"] = "LIB=1\n"
            files["lib/more.env"] = "LIB=2\n"
            return f"    extends: {{file: lib/base.yaml, service: base-{name}}}\n"
        other = {"a": "b", "b": "c"}.get(name)
        return f"    extends: {other}\n" if other else ""

    def _included(self) -> str:
        quiet = ("depends_on", "profiles", "networks", "volumes", "secrets", "configs")
        return (
            "services:\n"
            + self._service("i", self._keys(5, without=quiet))
            + (
                "  j: {image: 'j-${V}-${ONLY:-no}', volumes: ['idata:/d', './here:/h'], networks: [inet]}\n"
                "volumes: {idata: }\nnetworks: {inet: {driver: bridge}}\n"
            )
        )

    def _override(self, names: Sequence[str]) -> str:
        quiet = ("profiles", "depends_on", *(key for pair in _EXCLUSIVE for key in pair))
        text = "services:\n"
        for name in names:
            keys = self._keys(6, without=quiet)
            text += f"  {name}:\n"
            for key in keys:
                tag = self._random.random()
                value = self._value(key)
                if tag < 0.1:
                    value = "!reset null"
                elif tag < 0.2 and value[:1] in "[{":
                    value = f"!override {value}"
                text += f"    {key}: {value}\n"
        text += "  extra: {image: extra}\n"
        return text + "volumes:\n  data: {labels: {o: 1}}\n" if self._random.random() < 0.3 else text
