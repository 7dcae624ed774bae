# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""New signing keys for many tenants, against the bare making of as many keys and against one process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.bench.report import Figure, Report
from tests.bench.tables import timed
from tests.support.postgres import EmbeddedPostgres
from tests.support.signing import EC, Keys

__all__ = ["tenant_keys"]

_CALL = Path(__file__).resolve().parent / "call.py"
_ON_ONE_PROCESSOR = ("taskset", "--cpu-list", "0")
_RSA = {"type": "rsa", "bits": 2048, "alg": "RS256"}


def _bare(count: int) -> None:
    for _number in range(count):
        rsa.generate_private_key(65537, 2048)


def _bare_on_all(count: int) -> None:
    """As many keys by the library alone, on all processors, in small portions: some take ten times others."""
    workers = len(os.sched_getaffinity(0))
    portions = [8] * (count // 8) + [count % 8]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_bare, portions))


def _call(keys: Keys, within: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    arguments = json.dumps(keys.params("staged", **more))
    ran = subprocess.run(
        [*within, sys.executable, str(_CALL), "signing_keys.job"],
        input=arguments,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def tenant_keys(report: Report, server: EmbeddedPostgres, folder: Path, tenants: int = 1000, repeats: int = 3) -> None:
    """RSA keys of 2048 bits, made and published: the speed-up of all processors, and the price over bare keys.

    The memory is that of the largest process, for this table and for one with ten times the tenants.
    """
    with server.database("signing") as dsn:
        keys = Keys(dsn, folder / "signing", "newest")
        keys.fill(tenants)
        speed_ups, prices, sizes = [], [], []
        for number in range(repeats):
            one = _call(keys, _ON_ONE_PROCESSOR, generate=_RSA, workers=1, rotation_id=f"one{number}")
            keys.run("rolled_back", rotation_id=f"one{number}")
            many = _call(keys, generate=_RSA, workers=0, rotation_id=f"all{number}")
            keys.run("rolled_back", rotation_id=f"all{number}")
            bare = timed(partial(_bare_on_all, tenants))
            speed_ups.append(one["seconds"] / many["seconds"])
            prices.append(many["seconds"] / bare)
            sizes.append(many["rss_mb"])
        quick = _call(keys, generate=EC, workers=0, rotation_id="quick")["rss_mb"]
        keys.sql.close()
    with server.database("signing10") as dsn:
        keys = Keys(dsn, folder / "signing10", "newest")
        keys.fill(10 * tenants)
        large = _call(keys, generate=EC, workers=0)["rss_mb"]
        keys.sql.close()
    against = "one process on one processor: speed-up"
    report.add(Figure("tenant_keys", statistics.median(speed_ups), against, repeats, max(sizes)))
    report.add(Figure("tenant_keys_price", statistics.median(prices), "bare keys on all processors", repeats))
    report.add(Figure("tenant_keys_memory", large / quick, "a tenth of the tenants", 1, large))
