# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several processes side by side, each with a connection of its own: the database and the crypto use all cores.

Parts are handed out by a token that goes round in a pipe: who reads it takes the next part and passes it on. Parts must
be such that doing one twice does no harm: those of a worker that died are done again by others. Results are built of
plain types, since they go through a pipe.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import selectors
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable, Generic, TypeVar

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import processors

__all__ = ["Crew"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_ATTEMPTS = 3
_ERROR = ("code", "message", "where", "hint")
_LENGTH = struct.Struct("!q")


class Crew:
    """Workers for the parts of one job.

    :param first: the connection that is there already; with one worker all work is done on it, in this process.
    :param open_link: opens another one, in each worker.
    :param workers: how many; 0 for as many as there are processors.
    """

    def __init__(self, first: Link, open_link: Callable[[], Link], workers: int) -> None:
        self.first = first
        self._asked = workers
        self.workers = workers or processors()
        self.idle: Callable[[], None] = lambda: None  # called about once a second while workers work
        self._open_link = open_link

    def stay_alone(self) -> None:
        """Work in this process only, unless a number of workers was asked for.

        For cells with keys of their own that take long to derive: threads derive on all processors, and what one pass
        has derived serves the next, which processes would not know of.
        """
        if not self._asked:
            self.workers = 1

    def each(
        self,
        work: Callable[[Link, Item], Result],
        items: Sequence[Item],
        within: Callable[[Link], AbstractContextManager[object]] | None = None,
    ) -> Iterator[Result]:
        """The result of ``work`` for each item, as they come.

        :param within: what surrounds all work of a worker of its own, such as a transaction.
        :raises KeyturnError: what a worker raised; ``worker-lost`` when workers keep dying and get no further.
        """
        workers = min(self.workers, len(items))
        if workers < 2:
            for item in items:
                with _no_collection():
                    done = work(self.first, item)
                yield done
            return
        left = dict(enumerate(items))
        idle = self._staying_awake()
        deaths = 0
        while deaths < _ATTEMPTS:
            before = len(left)
            with _Shift(self._open_link, work, list(left.items()), within, min(workers, len(left))) as shift:
                for number, result in shift.results(idle):
                    del left[number]
                    yield result
            if not left:
                return
            deaths = 1 if len(left) < before else deaths + 1
        raise KeyturnError(
            "worker-lost",
            f"workers died {_ATTEMPTS} times and finished nothing in between",
            where="",
            hint="Look whether this host runs out of memory, then run again: it goes on where it stopped",
        )

    def _staying_awake(self) -> Callable[[], None]:
        """Also keeps the first connection from being idle: what it has exported lasts as long as it does."""
        last = time.monotonic()

        def idle() -> None:
            nonlocal last
            self.idle()
            if time.monotonic() - last >= 1:
                last = time.monotonic()
                self.first.execute("SELECT 1")

        return idle


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small tuples and no cycles: looking for some takes a sixth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Shift(Generic[Item, Result]):
    """Workers from their start to their end."""

    def __init__(
        self,
        open_link: Callable[[], Link],
        work: Callable[[Link, Item], Result],
        items: list[tuple[int, Item]],
        within: Callable[[Link], AbstractContextManager[object]] | None,
        workers: int,
    ) -> None:
        self._open_link, self._work, self._items, self._within = open_link, work, items, within
        self._token = os.pipe()
        self._workers: dict[int, int] = {}  # reading end of each worker's pipe to its process
        os.write(self._token[1], _LENGTH.pack(0))
        for _number in range(workers):
            self._start()

    def __enter__(self) -> _Shift[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for pipe, process in self._workers.items():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
            os.close(pipe)
        for end in self._token:
            os.close(end)

    def _start(self) -> None:
        reading, writing = os.pipe()
        parent = os.getpid()
        process = os.fork()
        if process:
            os.close(writing)
            self._workers[reading] = process
            return
        try:  # nothing of the parent's may be closed or flushed here, so the process ends without any cleaning up
            os.close(reading)
            with _no_collection():
                self._toil(writing, parent)
        finally:
            os._exit(0)

    def _toil(self, writing: int, parent: int) -> None:
        def send(message: Any) -> None:
            data = marshal.dumps(message)
            data = _LENGTH.pack(len(data)) + data
            while data:
                data = data[os.write(writing, data) :]

        try:
            link = self._open_link()
            with contextlib.ExitStack() as stack:
                if self._within is not None:
                    stack.enter_context(self._within(link))
                while os.getppid() == parent:
                    (at,) = _LENGTH.unpack(os.read(self._token[0], _LENGTH.size))
                    os.write(self._token[1], _LENGTH.pack(at + 1))
                    if at >= len(self._items):
                        break
                    number, item = self._items[at]
                    send((number, self._work(link, item)))
            link.close()
            send(None)
        except KeyturnError as error:
            send((error.code, error.message, error.where, error.hint))
        except BaseException as error:  # its text may hold a value: the type only
            send(("internal", f"internal error {type(error).__name__} in a worker", "", ""))

    def results(self, idle: Callable[[], None]) -> Iterator[tuple[int, Result]]:
        """Number and result of each item that was finished; ends early when a worker died."""
        with selectors.DefaultSelector() as selector:
            received = {pipe: bytearray() for pipe in self._workers}
            for pipe in self._workers:
                selector.register(pipe, selectors.EVENT_READ)
            working = set(self._workers)
            while working:
                ready = selector.select(1.0)
                idle()
                for key, _events in ready:
                    pipe = key.fd
                    chunk = os.read(pipe, 1 << 20)
                    if not chunk:
                        return
                    received[pipe] += chunk
                    for message in _messages(received[pipe]):
                        if message is None:
                            working.discard(pipe)
                            selector.unregister(pipe)
                        elif len(message) == len(_ERROR):
                            raise KeyturnError(*message[:2], **dict(zip(_ERROR[2:], message[2:])))
                        else:
                            yield message


def _messages(received: bytearray) -> Iterator[Any]:
    """Take the whole messages off the front."""
    while len(received) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(received)
        end = _LENGTH.size + length
        if len(received) < end:
            return
        message = marshal.loads(bytes(received[_LENGTH.size : end]))
        del received[:end]
        yield message
