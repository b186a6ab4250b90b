"""What every test runs under, however the run itself was started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Commands ignore what was ignored when they were started (`nohup`); the ones of the tests shall not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
