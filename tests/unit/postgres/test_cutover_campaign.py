# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forty cut-overs under traffic, killed and frozen at chance moments: nothing is lost, whichever way it goes.

``KEYTURN_SEED`` sets which; ``python -m tests.bench.cutover`` runs as many as asked.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cutover_campaign import WAYS, run_round

_SEED = int(os.environ.get("KEYTURN_SEED", "20"))
_ROUNDS = 40
_SHARES = [(way, quiesce, share) for way, quiesce in WAYS for share in range(2)]


@pytest.mark.parametrize(("way", "quiesce", "share"), _SHARES, ids=[f"{w}-{q}-{s}" for w, q, s in _SHARES])
def test_nothing_is_lost_in_a_cut_over(dsn: str, tmp_path: Path, way: str, quiesce: str, share: int) -> None:
    own = _SHARES.index((way, quiesce, share))
    numbers = range(own, _ROUNDS, len(_SHARES))
    assert numbers
    for number in numbers:
        report = run_round(dsn, tmp_path / str(number), way, quiesce, _SEED + number)
        assert report.faults == {}, (number, report)
        assert report.counts["writes"] > 0
        assert report.counts["reads"] > 0
