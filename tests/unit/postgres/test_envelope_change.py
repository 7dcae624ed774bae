# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another envelope under the new key: layouts, and associated data that names the row."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.reencryption import KEYS, Rig, seal

_WAYS = {"in_place": ["in_place"], "shadow": ["prepared", "cut_over", "swept"]}
_BACK = ["rolled_back", "swept", "cleaned"]
_BOUND = {"preset": "aes256gcm-b64", "associated_data": "{table}|{column}|{pk}"}
_CHANGES: dict[str, Any] = {
    "prefix": {"preset": "aes256gcm-b64", "prefix": "enc:v2:"},
    "fernet": "fernet",
    "bound to the row": _BOUND,
}
#: Not authenticated: nothing but padding and form tell whether a cell opens.
_CBC: dict[str, Any] = {
    "cipher": "aes-cbc",
    "text": {"encoding": "hex", "separator": ":"},
    "parts": ["iv:16", "ciphertext"],
    "key": "base64",
    "check": "utf8",
}


def _opened(rig: Rig, envelope: Any, key: str) -> list[bytes | None]:
    opener = Envelope(load_spec(envelope), KEYS[key])
    rows = rig.sql.execute("SELECT id, secret FROM creds ORDER BY id").fetchall()
    if not opener.spec.needs_context:
        return opener.open_many([row[1].encode() for row in rows])
    contexts = [f"creds|secret|{row[0]}".encode() for row in rows]
    return opener.open_many([row[1].encode() for row in rows], contexts)


@pytest.mark.parametrize("name", _CHANGES)
@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("new", ["new", "old"])
def test_the_envelope_changes_with_the_key_or_without_it(rig: Rig, name: str, way: str, new: str) -> None:
    rig.fill(20)
    wanted = [b"%d:0" % number for number in range(1, 21)]
    rig.new = new
    rig.columns = [rig.column("creds", "secret", new_envelope=_CHANGES[name])]
    for state in _WAYS[way]:
        result = rig.run(state)
    assert result["coverage"][0]["new"] == 20
    assert _opened(rig, _CHANGES[name], new) == wanted
    assert rig.run(_WAYS[way][-1])["changed"] is False
    for state in _BACK:
        result = rig.run(state)
    assert result["coverage"][0]["old"] == 20
    assert _opened(rig, "aes256gcm-b64", "old") == wanted


def _cell(envelope: Any, key: str, number: int, text: str) -> str:
    sealer = Envelope(load_spec(envelope), KEYS[key])
    context = f"creds|secret|{number}".encode() if sealer.spec.needs_context else None
    return sealer.seal(f"a value of the service: {text}".encode(), context).decode()


@pytest.mark.parametrize("cut_over", ["in_place", "rows", "columns"])
@pytest.mark.parametrize("new", ["new", "old"])
def test_cbc_becomes_gcm_bound_to_the_row_and_comes_back(rig: Rig, cut_over: str, new: str) -> None:
    """Also what the service writes meanwhile, under either envelope."""
    way = _WAYS["in_place" if cut_over == "in_place" else "shadow"]
    wanted = {number: f"{number}:0" for number in range(1, 21)}

    def texts() -> list[bytes | None]:
        return [f"a value of the service: {text}".encode() for _number, text in sorted(wanted.items())]

    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL)")
    rig.insert([(number, _cell(_CBC, "old", number, text)) for number, text in wanted.items()])
    rig.new = new
    rig.defaults["cut_over"] = "rows" if cut_over == "in_place" else cut_over
    rig.columns = [rig.column("creds", "secret", envelope=_CBC, new_envelope=_BOUND)]
    write = "UPDATE creds SET secret = %s WHERE id = %s"
    for state in way:
        rig.run(state)
    if cut_over != "in_place":
        wanted[3] = "3:late"
        rig.sql.execute(write, (_cell(_CBC, "old", 3, wanted[3]), 3))
        rig.run("swept")
    assert rig.info()["coverage"][0]["new"] == 20
    assert _opened(rig, _BOUND, new) == texts()
    assert _opened(rig, _CBC, "old") == [None] * 20
    assert rig.run(way[-1])["changed"] is False

    wanted[4] = "4:new"
    rig.sql.execute(write, (_cell(_BOUND, new, 4, wanted[4]), 4))
    for state in _BACK:
        result = rig.run(state)
    assert result["coverage"][0]["old"] == 20
    assert _opened(rig, _CBC, "old") == texts()
    assert (rig.shadows(), rig.left_behind()) == ([], [])


def test_a_cell_of_another_row_is_none_of_ours_after_the_change_to_gcm(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id bigint PRIMARY KEY, secret text NOT NULL)")
    rig.insert([(number, _cell(_CBC, "old", number, "same")) for number in (1, 2)])
    rig.columns = [rig.column("creds", "secret", envelope=_CBC, new_envelope=_BOUND)]
    rig.run("in_place")
    rig.sql.execute("UPDATE creds SET secret = (SELECT secret FROM creds WHERE id = 2) WHERE id = 1")
    assert rig.info()["unknown"][0]["keys"] == ["1"]


@pytest.mark.parametrize("way", _WAYS)
def test_cells_bound_to_their_row_turn_under_both_keys(rig: Rig, way: str) -> None:
    rig.fill(20)
    rig.columns = [rig.column("creds", "secret", new_envelope=_BOUND)]
    rig.run("in_place", rotation_id="r0")
    rig.run("cleaned", rotation_id="r0")
    rig.old, rig.new = "new", "third"
    rig.columns = [rig.column("creds", "secret", envelope=_BOUND)]
    for state in _WAYS[way]:
        rig.run(state)
    assert _opened(rig, _BOUND, "third") == [b"%d:0" % number for number in range(1, 21)]
    rig.sql.execute("UPDATE creds SET secret = (SELECT secret FROM creds WHERE id = 2) WHERE id = 1")
    assert rig.info()["unknown"][0]["keys"] == ["1"]


def test_parts_bound_to_their_row(rig: Rig) -> None:
    rig.sql.execute("CREATE TABLE creds (id int PRIMARY KEY, secret text[])")
    for number in range(1, 6):
        cells = [seal("old", b"a").decode(), seal("old", b"b").decode()]
        rig.sql.execute("INSERT INTO creds VALUES (%s, %s)", (number, cells))
    rig.columns = [rig.column("creds", "secret", new_envelope=_BOUND)]
    for state in ("prepared", "cut_over", "swept"):
        result = rig.run(state)
    assert result["coverage"][0]["new"] == 5
    opener = Envelope(load_spec(_BOUND), KEYS["new"])
    cells = [cell.encode() for cell in rig.cells()[3]]
    assert opener.open_many(cells, [b"creds|secret|3"] * 2) == [b"a", b"b"]


def test_two_envelopes_that_read_each_other_are_refused_under_one_key(rig: Rig) -> None:
    rig.fill(3)
    rig.new = "old"
    rig.columns = [rig.column("creds", "secret", new_envelope={"preset": "aes256gcm-b64", "text": "base64"})]
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert (refused.value.code, refused.value.where) == ("envelopes-alike", "public.creds.secret")


def test_an_unknown_new_envelope_is_refused(rig: Rig) -> None:
    rig.fill(3)
    rig.columns = [rig.column("creds", "secret", new_envelope="fernett")]
    with pytest.raises(KeyturnError) as refused:
        rig.run("in_place")
    assert (refused.value.code, "fernet" in refused.value.hint) == ("envelope-unknown", True)
