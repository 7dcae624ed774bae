# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells of a cipher that is not authenticated: some open under both keys by chance, and the column decides."""

from __future__ import annotations

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.reencryption import Rig

CBC_KEYS = {"old": b"o" * 32, "new": b"n" * 32}
_SPEC = load_spec("calcom")
_WAYS = {"in_place": ["in_place"], "shadow": ["prepared", "cut_over", "swept"]}


#: One block that both keys open, each to a text of its own: found by trying blocks, about one in ten million.
BOTH_OPEN = b"8c8483b828ecf9fc2c1e0a6e3b4db28c:a7da062ea94d33aebb12b997ad2825de"


def _text(key: str) -> bytes | None:
    return Envelope(_SPEC, CBC_KEYS[key]).open(BOTH_OPEN)


def _fill(rig: Rig, keys: list[str]) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text)")
    cells = [Envelope(_SPEC, CBC_KEYS[key]).seal(b"a value that is longer than that") for key in keys]
    for number, cell in enumerate([BOTH_OPEN, *cells], 1):
        rig.sql.execute("INSERT INTO creds VALUES (%s, %s)", (number, cell.decode()))
    rig.columns = [rig.column("creds", "secret", envelope="calcom")]
    rig.defaults = {"keys": {version: {"value": key.decode()} for version, key in CBC_KEYS.items()}}


def _opened(rig: Rig, key: str) -> bytes | None:
    return Envelope(_SPEC, CBC_KEYS[key]).open(rig.cells()[1].encode())


def test_the_cell_does_open_under_both() -> None:
    texts = [_text("old"), _text("new")]
    assert None not in texts
    assert texts[0] != texts[1]


@pytest.mark.parametrize("way", _WAYS)
def test_a_cell_that_opens_under_both_is_old_while_its_column_is(rig: Rig, way: str) -> None:
    _fill(rig, ["old"] * 9)
    assert rig.info()["coverage"][0]["old"] == 10
    for state in _WAYS[way]:
        result = rig.run(state)
    assert (result["coverage"][0]["new"], _opened(rig, "new")) == (10, _text("old"))
    for state in ("rolled_back", "swept", "cleaned"):
        result = rig.run(state)
    assert (result["coverage"][0]["old"], _opened(rig, "old")) == (10, _text("old"))


def test_it_is_new_where_its_column_is_and_stays(rig: Rig) -> None:
    _fill(rig, ["new"] * 9)
    before = rig.cells()
    result = rig.run("in_place")
    assert (result["coverage"][0]["new"], result["rows_written"], rig.cells()) == (10, 0, before)


def test_it_is_unknown_where_the_column_holds_cells_of_each(rig: Rig) -> None:
    _fill(rig, ["old", "new"] * 4)
    before = rig.cells()
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert (refused.value.code, "under both" in refused.value.message) == ("rows-unknown", True)
    assert rig.cells() == before
