"""Which networks and services an isolated process has before it, and which of them answer.

Runs inside the sandbox: standard library only, and what is slow to import where it is used.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

CONNECT_SECONDS = 0.25
"""How long connections are waited for, all together; a refusal or a missing route answers at once."""
MAX_TARGETS = 64


def interfaces() -> list[str]:
    """The network interfaces that are up; a new namespace may hold tunnels that are down, and lead nowhere."""
    import fcntl
    import socket
    import struct

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("16sh14x", name.encode(), 0)
            flags = struct.unpack("16sh14x", fcntl.ioctl(sock, 0x8913, request))[1]  # SIOCGIFFLAGS
            if flags & 1:
                found.append(name)
    return found


def default_route() -> bool:
    """Whether packets for the wide world have somewhere to go."""
    with open("/proc/net/route", encoding="ascii") as file:
        if any(line.split()[1:8:6] == ["00000000", "00000000"] for line in file.readlines()[1:]):
            return True
    try:
        with open("/proc/net/ipv6_route", encoding="ascii") as file:
            routes = [line.split() for line in file]
    except OSError:
        return False  # the kernel has no IPv6
    return any(r[0] == "0" * 32 and r[1] == "00" and r[9] != "lo" for r in routes if len(r) > 9)


def connect_all(targets: list[list[Any]], nonce: str) -> list[list[Any]]:
    """Try all the addresses at once. An address answers by a connection, and by a refusal too: also that came from
    there. Only our own addresses refuse without leaving; for them a connection alone counts."""
    import select
    import socket

    waiting: dict[socket.socket, list[Any]] = {}
    reached: list[list[Any]] = []
    for address, port in targets[:MAX_TARGETS]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        waiting[sock] = [address, port]
        code = sock.connect_ex((address, port))
        if code != errno.EINPROGRESS:
            _note(sock, code, waiting.pop(sock), reached, nonce)
    limit = CONNECT_SECONDS
    while waiting and limit > 0:
        _, ready, _ = select.select([], list(waiting), [], limit)
        if not ready:
            break
        for sock in ready:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            _note(sock, code, waiting.pop(sock), reached, nonce)
        limit -= 0.01  # an end, however the answers trickle in
    for sock in waiting:
        sock.close()
    return reached


def _note(sock: socket.socket, code: int, target: list[Any], reached: list[list[Any]], nonce: str) -> None:
    with sock:
        if code == 0:
            reached.append([*target, "connected"])
            try:
                sock.send(nonce.encode())
            except OSError:
                return  # it was reached all the same
        elif code == errno.ECONNREFUSED and not _is_ours(target[0]):
            reached.append([*target, "refused"])


def _is_ours(address: str) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def connects(path: str) -> bool:
    """Whether a service listens at this socket, and takes our call."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_SECONDS)
        try:
            sock.connect(path)
        except OSError:
            return False
    return True
