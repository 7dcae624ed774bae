# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large table of wide cells gives the room of replaced ones back while it is re-encrypted."""

from __future__ import annotations

import os

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import tidy

from tests.support.reencryption import Rig, seal

_SIZE = "SELECT pg_total_relation_size('creds')"


def _size(rig: Rig) -> int:
    with psycopg.connect(rig.dsn) as link:
        row = link.execute(_SIZE).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("least", [2**40, 2**16], ids=["never", "often"])
def test_wide_cells_in_place(rig: Rig, monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """Without tidying the table doubles, which shows that it is the tidying that keeps it small."""
    monkeypatch.setattr(tidy, "_LEAST", least)
    rig.fill(0)
    rig.insert([(number, seal("old", os.urandom(4500)).decode()) for number in range(1500)])
    before = _size(rig)
    rig.run("in_place", batch_rows=50)
    assert rig.info()["coverage"][0]["new"] == 1500
    grown = _size(rig) / before - 1
    assert (grown > 0.7) if least > 2**30 else (grown < 0.5)
