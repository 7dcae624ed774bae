# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents signed again, against the bare signing of as many by one process, and by all processors at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.keyturn.rotation.plugins.module_utils.processes import processors
from psycopg.types.json import Jsonb

from tests.bench.report import Figure, Report
from tests.bench.tables import timed
from tests.support.documents import ACCOUNT, NEW, OLD, PolicyRig, policy, signer
from tests.support.postgres import EmbeddedPostgres

__all__ = ["resign"]

_CALL = Path(__file__).resolve().parent / "call.py"
_ALIKE = 200  # so many different policies; their signatures are over what they say, whichever row they are in
_BUNDLE = {
    "metadata": {"name": "pebble island"},
    "policies": [{"role": f"r{n}", "allow": ["db:read"]} for n in range(8)],
}


def resign(report: Report, server: EmbeddedPostgres, folder: Path, rows: int, repeats: int) -> None:
    """The whole job (count, sign, check, write, count), and its memory against that for a tenth of the rows."""
    to_one, to_all, sizes = [], [], []
    for repeat in range(repeats):
        one, all_of_them = _bare(rows, 1), _bare(rows, processors())
        answer = _job(server, folder, f"resign_{repeat}", rows)
        to_one.append(answer["seconds"] / one)
        to_all.append(answer["seconds"] / all_of_them)
        sizes.append(answer["rss_mb"])
    small = _job(server, folder, "resign_small", max(1, rows // 10))["rss_mb"]
    against = f"bare signing of {rows} documents"
    report.add(Figure("resign", statistics.median(to_one), f"{against} by one process", repeats, max(sizes)))
    report.add(Figure("resign_all", statistics.median(to_all), f"{against} by all processors", repeats))
    report.add(Figure("resign_memory", max(sizes) / small, "a tenth of the rows", repeats, small))


def _bare(rows: int, count: int) -> float:
    """Seconds in which so many processes sign as many payloads, and do nothing else."""
    with ProcessPoolExecutor(count) as pool:
        list(pool.map(_sign, [1] * count))  # each has its key by then
        return timed(lambda: list(pool.map(_sign, [rows // count] * count)))


def _sign(count: int) -> int:
    key, signed = signer(NEW), json.dumps(_BUNDLE).encode()
    for _number in range(count):
        key.sign(signed)
    return count


def _job(server: EmbeddedPostgres, folder: Path, name: str, rows: int) -> dict[str, Any]:
    place = folder / name
    place.mkdir()
    with server.database(name) as dsn:
        rig = PolicyRig(dsn, place)
        _fill(rig.sql, rows)
        arguments = rig.params("resigned", rotation_id=name, workers=0, batch_rows=500)
        rig.sql.close()
        return _call(arguments)


def _fill(link: psycopg.Connection[tuple[Any, ...]], rows: int) -> None:
    texts = [policy(OLD, {**_BUNDLE, "n": number}) for number in range(min(rows, _ALIKE))]
    dumped = Jsonb(_BUNDLE)
    with link.cursor().copy(
        "COPY policies (account_id, app_name, version, bundle, jws, signed_with_kid) FROM STDIN"
    ) as copy:
        for number in range(rows):
            copy.write_row((ACCOUNT, f"app-{number}", 1, dumped, texts[number % len(texts)], OLD))
    link.execute("VACUUM ANALYZE policies")


def _call(arguments: dict[str, Any]) -> dict[str, Any]:
    """One call in a process of its own: ``seconds``, ``rss_mb`` and ``result``."""
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    done = run([sys.executable, str(_CALL), "documents.job"], input=json.dumps(arguments))
    if done.returncode:
        raise RuntimeError(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
