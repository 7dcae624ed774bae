# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many modules a rotation executes on a host: not more for more secrets, files or hosts."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fleet import Fleet


def test_thirty_secrets_in_three_files_need_no_more_executions_than_one(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "one", 1, 3, 10, served=False)
    fleet.rotate(fleet.names[:1])
    of_one = fleet.executions()
    fleet = Fleet(tmp_path / "all", 1, 3, 10, served=False)
    before = fleet.values("h01")
    fleet.rotate()
    after = fleet.values("h01")
    assert len(before) == len(after) == 30
    assert [name for name in before if before[name] == after[name]] == []
    assert fleet.executions() == of_one


def test_a_host_with_files_executes_few_modules(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", 3, 1, 2, served=True)
    fleet.rotate()
    state_host, *others = (fleet.executions()[host] for host in fleet.hosts)
    assert others == [10, 10]
    assert state_host <= 24
    assert fleet.values("h01") == fleet.values("h02") == fleet.values("h03")
