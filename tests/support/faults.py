# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a database, each a block in which it is there, and what must hold whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from psycopg import sql

from tests.support.killable import Killable
from tests.support.postgres import EmbeddedPostgres
from tests.support.reencryption import Rig, opens

__all__ = [
    "OWNER",
    "ROWS",
    "ROW_LOCK",
    "STATES",
    "TABLE_LOCK",
    "Bed",
    "KilledError",
    "Link",
    "Run",
    "check_truth",
    "connection_cut",
    "deadlock",
    "killed",
    "lock_held",
    "named_instead",
    "read_only_replica",
    "role_limited",
    "role_settings",
    "rotate",
    "sessions_of_ours",
    "trigger",
    "workers_killed",
]

ROWS = 30
STATES = {
    "in_place": ("in_place", "swept"),
    "rows": ("prepared", "cut_over", "swept"),
    "columns": ("prepared", "cut_over", "swept"),
}
_OURS = "FROM pg_stat_activity WHERE application_name = 'keyturn' AND datname = current_database()"

Link = psycopg.Connection[tuple[Any, ...]]
#: Makes one state.
Run = Callable[[str], object]


class Bed(NamedTuple):
    """What a fault can take hold of."""

    rig: Rig
    server: EmbeddedPostgres
    way: str
    cells: frozenset[str]

    def other(self, stack: ExitStack) -> Link:
        """Another session."""
        return stack.enter_context(psycopg.connect(self.server.dsn("app"), autocommit=True))

    def as_role(self, stack: ExitStack, rights: str, *statements: str) -> None:
        """Let the rotator log in as a role of its own."""
        link = self.other(stack)
        _drop_role(link)
        link.execute(sql.SQL("CREATE ROLE rotator LOGIN {}").format(sql.SQL(rights)))
        stack.callback(_drop_role, link)
        for statement in statements:
            link.execute(statement)
        stack.callback(setattr, self.rig, "dsn", self.rig.dsn)
        self.rig.dsn = self.rig.dsn.replace("user=postgres", "user=rotator")

    def meanwhile(self, stack: ExitStack, work: Callable[[], object]) -> None:
        """Do this beside the rotation; it must have ended by the end of the fault."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except psycopg.Error as error:
                failed.append(error)

        def join() -> None:
            thread.join(60)
            assert not thread.is_alive()
            assert failed == []

        thread = threading.Thread(target=run, daemon=True)
        stack.callback(join)
        thread.start()


def _drop_role(link: Link) -> None:
    if link.execute("SELECT 1 FROM pg_roles WHERE rolname = 'rotator'").fetchone():
        link.execute("REASSIGN OWNED BY rotator TO postgres")
        link.execute("DROP OWNED BY rotator")
        link.execute("DROP ROLE rotator")


def _wait_for(link: Link, what: str) -> list[int]:
    """The pids of our sessions that meet a condition on ``pg_stat_activity``, as soon as there are any."""
    query = sql.SQL("SELECT pid {} AND {}").format(sql.SQL(_OURS), sql.SQL(what))
    while True:
        if found := link.execute(query).fetchall():
            return [row[0] for row in found]


def rotate(bed: Bed, run: Run | None = None, states: Sequence[str] = ()) -> str:
    """``success``, ``killed``, or the code of the error; that names a place and what to do, and no value."""
    try:
        for state in states or STATES[bed.way]:
            (run or bed.rig.run)(state)
    except KilledError:
        return "killed"
    except KeyturnError as error:
        is_clear = bool(error.where and error.hint) and not [cell for cell in bed.cells if cell in str(error)]
        return error.code if is_clear else f"unclear: {error}"
    return "success"


def check_truth(rig: Rig) -> None:
    """Each row still says what it said, under exactly one key, and coverage counts it there."""
    for table, told in zip(("creds", "more"), rig.info()["coverage"]):
        cells = rig.cells(table)
        read = {key: {row: opens(key, cell) for row, cell in cells.items()} for key in ("old", "new")}
        counted = {key: sum(text is not None for text in texts.values()) for key, texts in read.items()}
        assert {row: text or read["new"][row] for row, text in read["old"].items()} == {
            row: f"{row}:0".encode() for row in range(1, ROWS + 1)
        }
        assert {key: told[key] for key in counted} == counted
        assert (told["total"], told["unknown"]) == (ROWS, 0)


def _slow_row(link: Link, stack: ExitStack, seconds: float) -> None:
    """Writes to one row take so long."""
    slow = "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {} RETURN NEW; END'"
    link.execute(slow.format(f"PERFORM pg_sleep({seconds});"))
    link.execute("CREATE TRIGGER slow BEFORE UPDATE ON creds FOR EACH ROW WHEN (OLD.id = 20) EXECUTE FUNCTION slow()")
    stack.callback(link.execute, slow.format(""))  # the trigger itself may be locked


class KilledError(Exception):
    """The process was killed."""


@contextlib.contextmanager
def killed(bed: Bed, slowness: float) -> Iterator[Run]:
    """SIGKILL in the middle of a batch; its session stays in the database, with its locks.

    With several workers only the process that has started them is killed.

    :param slowness: seconds that the batch takes.
    """
    with ExitStack() as stack:
        link = bed.other(stack)
        _slow_row(bed.other(stack), stack, slowness)
        killable = stack.enter_context(contextlib.closing(Killable()))

        def run(state: str) -> None:
            writes_creds = "cut_over" if bed.way == "rows" else STATES[bed.way][0]
            asleep = partial(_wait_for, link, "wait_event = 'PgSleep'") if state == writes_creds else None
            if killable.run(bed.rig.params(state), asleep) == "killed":
                raise KilledError

        yield run


def _children() -> set[int]:
    """The processes that this one has started."""
    found = Path("/proc").glob("[0-9]*/stat")
    with contextlib.suppress(OSError):
        parents = {int(path.parent.name): path.read_text().rpartition(")")[2].split()[1] for path in found}
        return {process for process, parent in parents.items() if int(parent) == os.getpid()}
    return _children()  # one of all processes ended meanwhile


@contextlib.contextmanager
def workers_killed(bed: Bed, most: int) -> Iterator[None]:
    """SIGKILL of so many of several workers, once, while one of them writes a batch; by rows, whatever they do."""
    with ExitStack() as stack:
        link, before = bed.other(stack), _children()
        _slow_row(bed.other(stack), stack, 1)

        def kill() -> None:
            if bed.way != "rows":
                _wait_for(link, "wait_event = 'PgSleep'")
            workers: set[int] = set()
            while not workers:
                workers = _children() - before
            for worker in sorted(workers)[:most]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

        bed.meanwhile(stack, kill)
        yield


def sessions_of_ours(link: Link) -> list[int]:
    """The server's processes that work, or hold a lock, for a rotator."""
    return [row[0] for row in link.execute(f"SELECT pid {_OURS}").fetchall()]


@contextlib.contextmanager
def connection_cut(bed: Bed) -> Iterator[None]:
    """pg_terminate_backend in the middle of the statement that writes a batch."""
    with ExitStack() as stack:
        link = bed.other(stack)
        _slow_row(bed.other(stack), stack, 60)

        def end() -> None:
            for pid in _wait_for(link, "wait_event = 'PgSleep'"):
                link.execute("SELECT pg_terminate_backend(%s)", (pid,))

        bed.meanwhile(stack, end)
        yield


@contextlib.contextmanager
def deadlock(bed: Bed) -> Iterator[None]:
    """Two sessions that wait for each other: for rows in place, for tables at the swap and where columns are added."""
    rig, way = bed.rig, bed.way
    with ExitStack() as stack:
        stack.callback(rig.defaults.update, {"lock_timeout_ms": 50})
        rig.defaults["lock_timeout_ms"] = 10_000
        bed.as_role(stack, "SUPERUSER", "ALTER ROLE rotator SET deadlock_timeout = '1s'")
        link, watcher = bed.other(stack), bed.other(stack)
        link.execute("SET deadlock_timeout = '2s'")
        link.execute("BEGIN")
        first = sql.Identifier("creds" if way == "in_place" else "more")
        link.execute(sql.SQL("UPDATE {} SET ver = 7 WHERE id = 20").format(first))

        def meet() -> None:
            _wait_for(watcher, "wait_event_type = 'Lock'")
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                link.execute("UPDATE creds SET ver = 8 WHERE id <> 20")
            link.execute("ROLLBACK")

        bed.meanwhile(stack, meet)
        yield
        count = "SELECT pg_stat_force_next_flush(), deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert watcher.execute(count).fetchall()[0][1] > 0


def lock_held(statement: str, is_released: bool) -> Callable[[Bed], AbstractContextManager[None]]:
    """Somebody holds a lock: until the rotator has waited for it a few times, or for good."""

    @contextlib.contextmanager
    def held(bed: Bed) -> Iterator[None]:
        with ExitStack() as stack:
            link, watcher = bed.other(stack), bed.other(stack)
            link.execute("BEGIN")
            link.execute(statement)
            if is_released:

                def let_go() -> None:
                    for _time in range(3):
                        _wait_for(watcher, "wait_event_type = 'Lock'")
                        while watcher.execute(f"SELECT 1 {_OURS} AND wait_event_type = 'Lock'").fetchone():
                            pass
                    link.execute("ROLLBACK")

                bed.meanwhile(stack, let_go)
            else:
                stack.callback(bed.rig.defaults.update, {"max_wait_s": 20})
                bed.rig.defaults["max_wait_s"] = 1
            yield
            link.execute("ROLLBACK")

    return held


ROW_LOCK = "SELECT 1 FROM creds WHERE id = 20 FOR UPDATE"
TABLE_LOCK = "LOCK TABLE creds IN ACCESS EXCLUSIVE MODE"


def role_settings(*settings: str) -> Callable[[Bed], AbstractContextManager[None]]:
    """Settings of the role, and a row that takes 0.3 s to write."""

    @contextlib.contextmanager
    def set_for_role(bed: Bed) -> Iterator[None]:
        with ExitStack() as stack:
            bed.as_role(stack, "SUPERUSER", *[f"ALTER ROLE rotator SET {setting}" for setting in settings])
            _slow_row(bed.other(stack), stack, 0.3)
            yield

    return set_for_role


@contextlib.contextmanager
def read_only_replica(bed: Bed) -> Iterator[None]:
    """The connection string leads to a standby."""
    with bed.server.standby() as standby, ExitStack() as stack:
        stack.callback(setattr, bed.rig, "dsn", bed.rig.dsn)
        bed.rig.dsn = standby.dsn("app")
        yield
        assert bed.rig.info()["coverage"][0]["old"] == ROWS


def role_limited(*statements: str) -> Callable[[Bed], AbstractContextManager[None]]:
    """A role that may do this and no more."""

    @contextlib.contextmanager
    def limited(bed: Bed) -> Iterator[None]:
        with ExitStack() as stack:
            bed.as_role(stack, "", *statements)
            yield

    return limited


OWNER = "ALTER TABLE creds OWNER TO rotator"


def trigger(body: str, when: str = "BEFORE UPDATE") -> Callable[[Bed], AbstractContextManager[None]]:
    """A trigger of the service."""

    @contextlib.contextmanager
    def there(bed: Bed) -> Iterator[None]:
        with ExitStack() as stack:
            link = bed.other(stack)
            link.execute(f"CREATE FUNCTION changing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
            link.execute(f"CREATE TRIGGER changing {when} ON creds FOR EACH ROW EXECUTE FUNCTION changing()")
            stack.callback(link.execute, "DROP FUNCTION changing CASCADE")
            stack.callback(bed.rig.defaults.update, {"max_wait_s": 20})
            bed.rig.defaults["max_wait_s"] = 1
            yield

    return there


def named_instead(statement: str, undo: str, **column: Any) -> Callable[[Bed], AbstractContextManager[None]]:
    """The catalog names something else than the column."""

    @contextlib.contextmanager
    def instead(bed: Bed) -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(setattr, bed.rig, "columns", bed.rig.columns)
            link = bed.other(stack)
            link.execute(statement)
            stack.callback(link.execute, undo)
            bed.rig.columns = [{**bed.rig.columns[0], **column}]
            yield

    return instead
