"""Who uses a sandbox right now: one small file a lease, below `<data>/leases/<sandbox-id>/`.

A *held* lease ends with its process: its file is under a flock that the kernel drops. A *granted* one (HTTP) ends at
the time in its file. A guard keeps the two sides apart: shared while a lease is made and the record is looked at once
more, exclusive while somebody decides that the sandbox ends. So never both happen. Nothing here is synced to disk:
after a power loss no holder lives, and a granted lease may have to be asked for again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from sandboxer.errors import Conflict, Invalid, NotFound, OverQuota, Unavailable
from sandboxer.locks.byte_locks import GUARD, LockFile
from sandboxer.locks.lease_files import NEW, Lease, is_held, is_lease_id, names, new_lease_id, read, write_new
from sandboxer.names import ID
from sandboxer.store import private_files
from sandboxer.timing import Deadline

DIRECTORY = "leases"
_ACTIVITY = ".active"  # its modification time is the last activity
MAX_GRANTED = 128
"""How many granted leases one sandbox has at once: each is a file that every list of the sandbox reads."""
_GUARD_WAIT = 10.0  # seconds; whoever has the guard needs it for one look or one commit
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.01

T = TypeVar("T")


class Leases:
    """The leases of one data directory. From any thread and process.

    Every method raises Invalid for what is no sandbox id, and Unavailable when the data directory refuses."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = directory / DIRECTORY
        self._locks = LockFile(directory)
        self._clock = clock

    @contextmanager
    def hold(self, sandbox_id: str, *, holder: str, check: Callable[[], T]) -> Iterator[T]:
        """Use a sandbox for the length of a `with` block; gives what `check` returned.

        `check` reads the record again and raises when it is not usable; then there is no lease. Once it has returned,
        nobody who decides under `guard` overlooks this lease. Raises Conflict when the guard is not free for 10 s.
        """
        lease, fd, answer = self._make(sandbox_id, holder=holder, seconds=None, check=check)
        try:
            yield answer
        finally:
            # what was done under the lease is done; a file that is left over has no holder any more. Activity first:
            # without the lease and with an old time of activity, the sandbox would look idle
            with suppress(OSError):
                self._touch(sandbox_id, self._clock())
            with suppress(OSError):
                (self._path(sandbox_id) / lease.lease_id).unlink(missing_ok=True)
            os.close(fd)

    def grant(self, sandbox_id: str, *, holder: str, seconds: float, check: Callable[[], object]) -> Lease:
        """A lease for a time, for a consumer that is no process of ours. `check` as in `hold`. Raises OverQuota when
        the sandbox has as many as it may."""
        lease, fd, _ = self._make(sandbox_id, holder=holder, seconds=seconds, check=check)
        os.close(fd)
        return lease

    def renew(self, sandbox_id: str, lease_id: str, seconds: float) -> Lease:
        """Let a granted lease end `seconds` from now. Raises NotFound when it has ended."""
        with self.guard(sandbox_id):
            now = self._clock()
            renewed = msgspec.structs.replace(self._granted(sandbox_id, lease_id), expires_at=now + seconds)
            with self._refusals():
                os.close(write_new(self._path(sandbox_id), renewed))
                self._publish(renewed)
                self._touch(sandbox_id, now)
        return renewed

    def release(self, sandbox_id: str, lease_id: str) -> None:
        """End a granted lease. Raises NotFound when it has ended."""
        with self.guard(sandbox_id):
            self._granted(sandbox_id, lease_id)
            with self._refusals():
                self._touch(sandbox_id, self._clock())
                (self._path(sandbox_id) / lease_id).unlink(missing_ok=True)

    def active(self, sandbox_id: str) -> Sequence[Lease]:
        """The leases that live, oldest first. To decide on the answer, ask inside `guard`."""
        living, dead = self._look(sandbox_id)
        if dead:
            self._tidy(sandbox_id)
        return living

    def last_active(self, sandbox_id: str) -> float | None:
        """When the sandbox was last known to be in use, in unix seconds; None when it never was. The end of a holder
        that was killed is the moment at which it was noticed: activity is never understated."""
        with self._refusals():
            try:
                return (self._path(sandbox_id) / _ACTIVITY).stat().st_mtime
            except FileNotFoundError:
                return None

    def known(self) -> frozenset[str]:
        """The sandboxes that had a lease, ever since the last `forget`: one look for a list of thousands."""
        with self._refusals():
            try:
                return frozenset(name for name in os.listdir(self._root) if ID.fullmatch(name))  # noqa: PTH208
            except FileNotFoundError:
                return frozenset()

    @contextmanager
    def guard(self, sandbox_id: str) -> Iterator[None]:
        """Decide, and commit, that a sandbox ends: while this is held no lease begins, and `active` is the truth.

        Needs no disk space. Raises Conflict when it is not free for 10 s. Not to be nested, nor held over anything
        slow."""
        fd = self._enter(sandbox_id)
        try:
            self._sweep(sandbox_id)
            yield
        finally:
            os.close(fd)

    def forget(self, sandbox_id: str) -> None:
        """Remove what is left of an ended sandbox's leases. A file that is not ours stays, with the directory."""
        path = self._path(sandbox_id)
        if not path.is_dir():
            return
        with self.guard(sandbox_id), self._refusals():
            for name in names(path):
                if name == _ACTIVITY or is_lease_id(name):
                    (path / name).unlink(missing_ok=True)
            with suppress(OSError):
                path.rmdir()

    # -- making one -----------------------------------------------------------------------------------------------

    def _make(
        self, sandbox_id: str, *, holder: str, seconds: float | None, check: Callable[[], T]
    ) -> tuple[Lease, int, T]:
        """A lease that `check` agreed to, the descriptor that holds it, and the answer of `check`."""
        path, now = self._path(sandbox_id), self._clock()
        lease = Lease(
            lease_id=new_lease_id(),
            sandbox_id=sandbox_id,
            holder=holder,
            acquired_at=now,
            expires_at=None if seconds is None else now + seconds,
        )
        # those that are granted are counted, so they come one by one
        guard = self._enter(sandbox_id, shared=seconds is None)
        try:
            if seconds is not None:
                self._check_room(sandbox_id, now)
            with self._refusals():
                fd = write_new(path, lease)
            try:
                with self._refusals():
                    self._publish(lease)
                answer = check()
                with self._refusals():
                    self._touch(sandbox_id, now)
            except BaseException:
                with suppress(OSError):
                    (path / lease.lease_id).unlink(missing_ok=True)
                os.close(fd)
                raise
        except BaseException:
            os.close(guard)
            self._tidy(sandbox_id)
            raise
        os.close(guard)
        return lease, fd, answer

    def _check_room(self, sandbox_id: str, now: float) -> None:
        ends = [lease.expires_at for lease in self._look(sandbox_id)[0] if lease.expires_at is not None]
        if len(ends) >= MAX_GRANTED:
            raise OverQuota(
                f"sandbox {sandbox_id} has {MAX_GRANTED} leases, and no more at once",
                retry_after=min(ends) - now,
                hint="renew one, or release those that are not needed",
            )

    def _publish(self, lease: Lease) -> None:
        path = self._path(lease.sandbox_id)
        (path / (NEW + lease.lease_id)).rename(path / lease.lease_id)

    def _touch(self, sandbox_id: str, instant: float) -> None:
        """Note activity at `instant`."""
        path = self._path(sandbox_id) / _ACTIVITY
        try:
            os.utime(path, (instant, instant), follow_symlinks=False)
        except FileNotFoundError:
            os.close(private_files.open_private(path, os.O_WRONLY))
            os.utime(path, (instant, instant), follow_symlinks=False)

    def _granted(self, sandbox_id: str, lease_id: str) -> Lease:
        with self._refusals():
            lease = read(self._path(sandbox_id), lease_id) if is_lease_id(lease_id) else None
        if lease is None or lease.expires_at is None or lease.expires_at <= self._clock():
            raise NotFound(
                f"sandbox {sandbox_id} has no granted lease {lease_id[:80]!r}",
                hint="it may have run out; ask for a new one",
                sandbox_id=sandbox_id,
            )
        return lease

    # -- looking --------------------------------------------------------------------------------------------------

    def _look(self, sandbox_id: str) -> tuple[list[Lease], list[Lease]]:
        """The living and the dead. What cannot be read for a reason of the system raises: it may be a living one."""
        path, now = self._path(sandbox_id), self._clock()
        living: list[Lease] = []
        dead: list[Lease] = []
        with self._refusals():
            for name in filter(is_lease_id, names(path)):
                lease = read(path, name)
                if lease is None:
                    continue
                ends = lease.expires_at
                lives = is_held(path / name) if ends is None else now < ends
                (living if lives else dead).append(lease)
        return sorted(living, key=lambda lease: (lease.acquired_at, lease.lease_id)), dead

    def _tidy(self, sandbox_id: str) -> None:
        """Remove what is dead, if nobody else is at it: without the guard, a renewal could be removed instead."""
        with suppress(Unavailable):
            fd = self._locks.try_take(sandbox_id, first=GUARD)
            if fd is None:
                return
            try:
                self._sweep(sandbox_id)
                with suppress(OSError):
                    self._path(sandbox_id).rmdir()  # only when there was never a lease
            finally:
                os.close(fd)

    def _sweep(self, sandbox_id: str) -> None:
        """Under the exclusive guard: remove the dead, and whatever has a temporary name (a death left it there)."""
        path = self._path(sandbox_id)
        with self._refusals():
            for name in names(path):
                if name.startswith(NEW):
                    (path / name).unlink(missing_ok=True)
        for lease in self._look(sandbox_id)[1]:
            ended = self._clock() if lease.expires_at is None else lease.expires_at
            with suppress(OSError):  # a full disk: it stays, and counts as dead all the same
                if ended > (self.last_active(sandbox_id) or 0.0):
                    self._touch(sandbox_id, ended)
                (path / lease.lease_id).unlink(missing_ok=True)

    # -- the guard ------------------------------------------------------------------------------------------------

    def _enter(self, sandbox_id: str, *, shared: bool = False) -> int:
        """A descriptor that holds the guard; closing it leaves."""
        deadline, pause = Deadline(_GUARD_WAIT), _FIRST_PAUSE
        while True:
            fd = self._locks.try_take(sandbox_id, first=GUARD, shared=shared)
            if fd is not None:
                return fd
            if deadline.passed:
                raise Conflict(
                    f"the leases of sandbox {sandbox_id} are being decided on by another command",
                    hint="try again; if it stays so, look for a stopped `sandboxer` process",
                    retryable=True,
                    sandbox_id=sandbox_id,
                )
            time.sleep(deadline.seconds(pause))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _path(self, sandbox_id: str) -> Path:
        if not ID.fullmatch(sandbox_id):
            raise Invalid(f"{sandbox_id[:80]!r} is not a sandbox id", hint="run `sandboxer list` to see the ids")
        return self._root / sandbox_id

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """The disk's refusals as Unavailable."""
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"the leases in {self._root} cannot be kept: {error.strerror}",
                hint="check that the data directory is writable and its disk is not full",
            ) from error
