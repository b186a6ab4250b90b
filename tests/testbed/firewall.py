"""The iptables rules that netavark (podman's network program) leaves behind, and removing them."""

import re
import subprocess
from ipaddress import IPv4Address, IPv4Network

from .components import have

TABLES = ("nat", "filter")
_ADDRESS = re.compile(r"\b(\d+\.\d+\.\d+\.\d+)\b")
_OWN_CHAIN = re.compile(r"NETAVARK-(?:DN-)?[0-9A-F]{6,}$")


def rules(table: str) -> list[str]:
    """The table as `iptables-save` prints it."""
    program = have("iptables")
    return [] if program is None else _run(f"{program}-save", "-t", table).splitlines()


def forget(net: IPv4Network) -> None:
    """Remove the rules and netavark's chains that speak of addresses in `net`: those of containers that were killed."""
    for table in TABLES:
        lines = [line for line in rules(table) if line.startswith("-A ")]
        ours = [line for line in lines if _speaks_of(line, net)]
        chains = {line.split()[1] for line in ours if _OWN_CHAIN.match(line.split()[1])}
        chains |= {line.split()[-1] for line in ours if _OWN_CHAIN.match(line.split()[-1])}
        for line in lines:
            if (line in ours or chains & set(line.split())) and line.split()[1] not in chains:
                _delete(table, line)
        for verb in ("-F", "-X"):
            for chain in chains:
                _iptables("-t", table, verb, chain)


def forget_skeleton() -> None:
    """Remove the chains that netavark makes once for all networks, if no network uses them.

    It makes them again when it needs them.
    """
    saved = {table: rules(table) for table in TABLES}
    text = "\n".join(line for lines in saved.values() for line in lines)
    if any(_OWN_CHAIN.match(word) for word in text.split()) or "-A NETAVARK_FORWARD" in text:
        return
    for table, lines in saved.items():
        chains = [line.split()[0][1:] for line in lines if line.startswith(":NETAVARK")]
        for line in lines:
            if line.startswith("-A ") and line.split()[1] not in chains and "NETAVARK" in line.split()[-1]:
                _delete(table, line)
        for verb in ("-F", "-X"):
            for chain in chains:
                _iptables("-t", table, verb, chain)


def _speaks_of(rule: str, net: IPv4Network) -> bool:
    return any(IPv4Address(address) in net for address in _ADDRESS.findall(rule))


def _delete(table: str, rule: str) -> None:
    words = re.findall(r'"[^"]*"|\S+', rule)
    _iptables("-t", table, "-D", *(word.strip('"') for word in words[1:]))


def _iptables(*words: str) -> None:
    program = have("iptables")
    if program:
        _run(program, "-w", "10", *words)


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout
