# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rounds of a cut-over under traffic: the rotator is killed and frozen at chance moments, resumed or turned back.

Counted from outside: what the writers know they wrote against what the table holds at the end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import job

from tests.support.cutover_writers import KEY_NAMES, MOVED, MOVING, ROWS, WRITERS, Shared, Writers
from tests.support.reencryption import Rig, opens, seal

__all__ = ["WAYS", "Report", "run_round"]

#: Ways to cut over, with what the service does meanwhile.
WAYS = (
    ("rows", "stop"),
    ("rows", "none"),
    ("rows", "writes"),
    ("columns", "stop"),
    ("columns", "none"),
    ("columns", "writes"),
)

_OLD, _NEW = 0, 1
_ZOMBIE_FAULTS = ("unexpected", "hung", "sql-failed")  # all else is a clear refusal
_LONGEST = {"prepared": 0.3, "cut_over": 0.12, "rolled_back": 0.15, "swept": 0.15, "cleaned": 0.08}

#: A statement of a rotator that does not have the fence is written down.
_AUDIT = """
    CREATE TABLE strayed (at timestamptz DEFAULT clock_timestamp(), pid int);
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF current_setting('application_name') = 'keyturn' THEN
        IF NOT EXISTS (SELECT FROM keyturn.fence WHERE pid = pg_backend_pid()) THEN
          INSERT INTO strayed (pid) VALUES (pg_backend_pid());
        END IF;
      END IF;
      RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON creds FOR EACH STATEMENT EXECUTE FUNCTION audit()"""


@dataclass
class Report:
    """What one round did, and what it found wrong.

    :param faults: every count that should be zero and is not.
    """

    way: str
    quiesce: str
    final: str = ""
    kills: int = 0
    freezes: int = 0
    held_ms: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)


def _rotate(params: dict[str, Any], answer: int) -> None:
    """One call of the module in this process, which ends with it."""
    random.seed()
    try:
        result = job.run(params, False)
        os.write(answer, f"ok {result['held_ms']}".encode())
    except KeyturnError as error:
        os.write(answer, error.code.encode())
    except BaseException as error:
        os.write(answer, f"unexpected {type(error).__name__}".encode())
        raise
    finally:
        os._exit(0)


class _Call:
    """A call of the module that can be killed and frozen."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._answer, writing = os.pipe()
        context = multiprocessing.get_context("fork")
        self.process: BaseProcess = context.Process(target=_rotate, args=(params, writing), daemon=True)
        self.process.start()
        os.close(writing)

    def signal(self, number: int) -> bool:
        """Send it, while it runs."""
        if self.process.exitcode is not None or self.process.pid is None:
            return False
        os.kill(self.process.pid, number)
        return True

    def wait(self) -> str:
        """``ok <held ms>``, ``killed`` or the code of the error."""
        self.process.join(240)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            return "hung"
        with os.fdopen(self._answer, "rb") as pipe:
            return pipe.read().decode() or "killed"


class _Round:
    def __init__(self, rig: Rig, way: str, quiesce: str, seed: int) -> None:
        self._rig = rig
        self._folder = rig.state_dir
        self._choose = random.Random(seed)
        self._report = Report(way, quiesce)
        self._defaults = {"cut_over": way, "quiesce": quiesce, "rotation_id": f"c{seed}", "batch_rows": 15}
        self._epoch = 0
        self._zombies: list[_Call] = []
        self._shared = Shared()
        self._make_table()
        self._writers = Writers(rig.dsn, self._shared, self._choose.randrange(10**6))

    def _make_table(self) -> None:
        self._rig.sql.execute("DROP SCHEMA IF EXISTS keyturn CASCADE; DROP TABLE IF EXISTS creds, strayed")
        self._rig.sql.execute("DROP FUNCTION IF EXISTS audit()")
        self._rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text NOT NULL, ver int, note text)")
        rows = [(row, seal("old", b"%d:0" % row).decode()) for row in range(ROWS)]
        self._rig.insert(rows)
        self._rig.sql.execute("UPDATE creds SET ver = 0")
        self._rig.sql.execute(_AUDIT)
        for row in range(ROWS):
            self._shared.versions[row] = 0

    # -- calls ---------------------------------------------------------------------------------------------------

    def _reach(self, state: str, may_give_up: bool = False) -> bool:
        """Call until it succeeds; killed or frozen now and then. False when it was given up after that."""
        for attempt in range(40):
            self._epoch += 1
            self._rig.state_dir = self._folder / str(self._epoch)  # another controller each time
            params = self._rig.params(state, epoch=self._epoch, max_wait_s=120, **self._defaults)
            call = _Call(params)
            if attempt < 4 and self._choose.random() < 0.45:
                call.process.join(self._choose.random() * _LONGEST[state])
                is_frozen = self._choose.random() < 0.3
                if call.signal(signal.SIGSTOP if is_frozen else signal.SIGKILL):
                    if is_frozen:
                        self._zombies.append(call)
                        self._report.freezes += 1
                    else:
                        call.wait()
                        self._report.kills += 1
                    if may_give_up and self._choose.random() < 0.35:
                        return False
                    if self._choose.random() < 0.5:
                        self._wake()
                    continue
            answer = call.wait()
            if answer.startswith("ok"):
                self._report.held_ms = max(self._report.held_ms, float(answer.split()[1]))
                return True
            self._report.faults[f"{state} {attempt}"] = answer
            return True
        raise RuntimeError(f"{state} is never reached")

    def _wake(self) -> None:
        """Those that were frozen go on, and must find that they were overtaken."""
        for call in self._zombies:
            call.signal(signal.SIGCONT)
            answer = call.wait().split()[0]
            if answer in _ZOMBIE_FAULTS:
                self._report.faults["woken"] = answer
        self._zombies = []

    # -- a move and its restarts ---------------------------------------------------------------------------------

    def _turn(self, state: str, key: int, may_give_up: bool = False) -> bool:
        shared, writers = self._shared, self._writers
        order = self._choose.sample(range(WRITERS), WRITERS)
        if self._report.quiesce == "stop":
            for number in order:
                writers.stop(number)
        shared.move[0] = MOVING
        if not self._reach(state, may_give_up):
            return False
        shared.store[0] = key
        if self._choose.random() < 0.3:
            self._wake()
        for number in order:
            if self._report.quiesce != "stop":
                self._pause(0.04)
                writers.stop(number)
                self._pause(0.01)
            writers.start(number)
        shared.target[0] = key
        shared.move[0] = MOVED
        return self._reach("swept")

    def _pause(self, longest: float) -> None:
        time.sleep(self._choose.random() * longest)

    def run(self) -> Report:
        """The round."""
        report = self._report
        goes_back = self._choose.random() < 0.5
        try:
            self._pause(0.05)
            is_forward = self._reach("prepared", may_give_up=True) and self._turn("cut_over", _NEW, may_give_up=True)
            self._pause(0.05)
            if not is_forward or goes_back:
                self._turn("rolled_back", _OLD)
            report.final = KEY_NAMES[_OLD if not is_forward or goes_back else _NEW]
            self._reach("cleaned")
            self._wake()
            self._pause(0.03)
        finally:
            for call in self._zombies:
                call.signal(signal.SIGKILL)
                call.wait()
            if not self._writers.end():
                report.faults["writers"] = "did not end"
        self._judge()
        return report

    # -- the end -------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        report, counts = self._report, self._shared.total()
        report.counts = counts
        found = {
            row: (version, cell) for row, version, cell in self._rig.sql.execute("SELECT id, ver, secret FROM creds")
        }
        known = {row: version for row, version in enumerate(self._shared.versions) if version >= 0}
        both = found.keys() & known.keys()
        opened = {row: {key: opens(key, found[row][1]) for key in KEY_NAMES} for row in both}
        other = next(key for key in KEY_NAMES if key != report.final)
        strayed = self._rig.sql.execute("SELECT count(*) FROM strayed").fetchone()
        columns = self._rig.sql.execute(
            "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'creds'::regclass AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attname"
        ).fetchall()
        zero = {
            "rows lost": len(known.keys() - found.keys()),
            "rows extra": len(found.keys() - known.keys()),
            "under neither key": sum(not any(opened[row].values()) for row in both),
            "on the wrong key": sum(opened[row][other] is not None for row in both),
            "updates lost": sum(found[row][0] != known[row] for row in both),
            "wrong plaintext": sum(b"%d:%d" % (row, known[row]) not in opened[row].values() for row in both),
            "writes after a take-over": strayed[0] if strayed else -1,
            "left behind": len(self._rig.shadows()) + len(self._rig.left_behind()),
            "columns": columns != [("id", True), ("note", False), ("secret", True), ("ver", False)],
            **{
                name: counts[name]
                for name in ("failed_before_swap", "nulls", "neither", "wrong_plaintext", "missed", "errors")
            },
        }
        if report.quiesce == "stop":
            zero["failed_between"] = counts["failed_between"]
        if report.quiesce in ("stop", "writes"):
            zero["failed_unswept"] = counts["failed_unswept"]
        report.faults.update({name: count for name, count in zero.items() if count})


def run_round(dsn: str, folder: Path, way: str, quiesce: str, seed: int) -> Report:
    """One round in a database of its own."""
    rig = Rig(dsn, folder)
    with contextlib.closing(rig.sql):
        return _Round(rig, way, quiesce, seed).run()
