# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells of a cipher that is not authenticated: some open under both keys by chance, and the column decides."""

from __future__ import annotations

from functools import partial

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import classes

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


# -- a cell that would open under both, were it written ----------------------------------------------------------------


def _seal_with_that_iv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance takes the initialisation vector of the cell that both keys open."""
    iv = bytes.fromhex(BOTH_OPEN.split(b":", maxsplit=1)[0].decode())

    def chance(size: int) -> bytes:
        return iv * (size // len(iv))

    monkeypatch.setattr(classes, "Envelope", partial(Envelope, randbytes=chance))


def _fill_with_text(rig: Rig, key: str) -> bytes:
    """Rows under the old key; the first says what :data:`BOTH_OPEN` says under this key."""
    _fill(rig, ["old"] * 9)
    text = _text(key)
    assert text is not None
    cell = Envelope(_SPEC, CBC_KEYS["old"]).seal(text)
    assert cell != BOTH_OPEN
    rig.sql.execute("UPDATE creds SET secret = %s WHERE id = 1", (cell.decode(),))
    return text


@pytest.mark.parametrize("cut_over", ["in_place", "rows", "columns"])
def test_a_cell_that_would_open_under_both_is_never_written_and_the_same_run_again_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cut_over: str
) -> None:
    text = _fill_with_text(rig, "new")
    rig.defaults.update(cut_over="rows" if cut_over == "in_place" else cut_over, batch_rows=100)
    way = _WAYS["in_place" if cut_over == "in_place" else "shadow"]
    before = rig.cells()
    with monkeypatch.context() as patched:
        _seal_with_that_iv(patched)
        with pytest.raises(KeyturnError) as refused:
            rig.run(way[0])
    assert (refused.value.code, refused.value.where) == ("seal-ambiguous", "public.creds.secret")
    assert "another new key" in str(refused.value)
    assert rig.cells()[1] == before[1]
    assert cut_over == "in_place" or rig.cells() == before
    assert rig.info()["coverage"][0]["unknown"] == 0
    for state in way:
        result = rig.run(state)
    assert (result["coverage"][0]["new"], _opened(rig, "new")) == (10, text)


def test_going_back_is_not_stopped_by_it_and_its_column_says_what_it_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _fill_with_text(rig, "old")
    rig.run("in_place")
    _seal_with_that_iv(monkeypatch)
    for state in ("rolled_back", "swept", "cleaned"):
        result = rig.run(state)
    assert rig.cells()[1].encode() == BOTH_OPEN
    assert (result["coverage"][0]["old"], _opened(rig, "old")) == (10, text)
