# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of new data keys away from the hosts that use them (the module ``secret_escrow``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import escrow, filecrypt
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import age

from tests.support.hosts import GENERATE, Host

_VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "vectors/file_encryption.json").read_text(encoding="utf-8")
)
_RECIPIENTS: list[str] = _VECTORS["age"][2]["recipients"]


def _call(host: Host, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
    session = {"state_dir": str(host.state_dir), "rotation_id": host.session.rotation_id, "epoch": 1}
    defaults = {name: option.get("default") for name, option in escrow.ESCROW_OPTIONS.items()}
    return escrow.run({**session, **defaults, "state": state, "secrets": ["KEY"], **more}, check)


def _code(work: Callable[[], object]) -> str:
    with pytest.raises(KeyturnError) as caught:
        work()
    return caught.value.code


def _staged(folder: Path, rotation_id: str = "r1") -> Host:
    host = Host(folder, rotation_id)
    path = folder / ".env"
    if not path.exists():
        host.write(".env", b"KEY=first\n")
    host.turn(
        "staged",
        {"name": "KEY", "origin": True, "generate": GENERATE, "stores": [{"type": "env_file", "path": str(path)}]},
    )
    return host


def test_a_copy_is_stored_once_and_opens_for_each_recipient(tmp_path: Path) -> None:
    host, elsewhere = _staged(tmp_path / "api"), Host(tmp_path / "box")
    new = host.version("KEY", "new")
    assert new is not None
    copies = _call(host, "sealed", recipients=_RECIPIENTS)["copies"]
    assert new not in json.dumps(copies).encode()
    place = {"directory": str(tmp_path / "box/escrow"), "copies": copies}
    assert _call(elsewhere, "stored", check=True, **place)["changed"]
    assert not (tmp_path / "box/escrow").exists()
    stored = _call(elsewhere, "stored", **place)
    path = tmp_path / "box/escrow/KEY/r1.age"
    assert (stored["changed"], stored["paths"]) == (True, [str(path)])
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for identity in _VECTORS["identities"]:
        assert age.decrypt(path.read_bytes(), identity) == new
    for check in (True, False):
        again = _call(elsewhere, "stored", check=check, **place)
        assert (again["changed"], again["paths"]) == (False, [str(path)])


def test_what_was_not_staged_or_did_not_come_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert _code(lambda: _call(host, "sealed", recipients=_RECIPIENTS)) == "not-staged"
    assert _code(lambda: _call(host, "stored", directory=str(tmp_path / "e"))) == "copy-missing"
    assert _code(lambda: _call(host, "stored", directory=str(tmp_path / "e"), secrets=["../x"])) == "name-invalid"
    staged = _staged(tmp_path)
    assert _code(lambda: _call(staged, "sealed", recipients=[])) == "recipient-invalid"


def test_copies_of_other_rotations_go_only_where_this_one_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "escrow"
    (folder / "KEY").mkdir(parents=True)
    whole = filecrypt.seal_for(b"key", _RECIPIENTS)
    for name in ("r1.age", "r2.age", "notes"):
        (folder / "KEY" / name).write_bytes(whole)
    third = Host(tmp_path / "box", "r3")
    lost = _call(third, "removed", directory=str(folder))
    assert (lost["changed"], lost["damaged"]) == (False, [str(folder / "KEY/r3.age")])
    second = Host(tmp_path / "box", "r2")
    assert _call(second, "removed", check=True, directory=str(folder))["removed"] == [str(folder / "KEY/r1.age")]
    assert _call(second, "kept", directory=str(folder))["left"] == {"KEY": ["r1", "r2"]}
    assert _call(second, "removed", directory=str(folder))["left"] == {"KEY": ["r2"]}
    assert _call(second, "removed", directory=str(folder))["changed"] is False
    assert sorted(path.name for path in (folder / "KEY").iterdir()) == ["notes", "r2.age"]


@pytest.mark.parametrize("left", [b"", b"age-encryption.org/v1\n", "half"])
def test_a_copy_that_is_not_whole_is_made_again_and_takes_no_other_away(tmp_path: Path, left: bytes | str) -> None:
    """It may be the only thing that opens the data once the copies of before are gone."""
    host, elsewhere = _staged(tmp_path / "api"), Host(tmp_path / "box")
    place = {"directory": str(tmp_path / "escrow"), "copies": _call(host, "sealed", recipients=_RECIPIENTS)["copies"]}
    (path,) = map(Path, _call(elsewhere, "stored", **place)["paths"])
    whole = path.read_bytes()
    earlier = path.with_name("r0.age")
    earlier.write_bytes(whole)
    path.write_bytes(whole[: len(whole) // 2] if isinstance(left, str) else left)
    assert _call(elsewhere, "kept", directory=place["directory"])["damaged"] == [str(path)]
    assert _call(Host(tmp_path / "box", ""), "kept", directory=place["directory"])["damaged"] == []
    kept = _call(elsewhere, "removed", directory=place["directory"])
    assert (kept["changed"], kept["removed"], kept["damaged"]) == (False, [], [str(path)])
    assert kept["left"] == {"KEY": ["r0", "r1"]}
    assert _call(elsewhere, "stored", **place)["changed"]
    assert path.read_bytes() == whole
    gone = _call(elsewhere, "removed", directory=place["directory"])
    assert (gone["removed"], gone["damaged"]) == ([str(earlier)], [])
