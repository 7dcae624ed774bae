# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output for people: what failed, with the reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.callback.calm import CallbackModule

_REASON = "database app: nothing listens there. Check the connection string and the server."


def _shown(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], *, action: str = "x.y.z", ok: bool = False) -> str:
    callback, lines = CallbackModule(), []
    monkeypatch.setattr(callback, "_display", SimpleNamespace(display=lambda line, **_kind: lines.append(line)))
    task = SimpleNamespace(get_name=lambda: "Count the rows by key", action=action)
    said = SimpleNamespace(_task=task, _host=SimpleNamespace(get_name=lambda: "db1"), _result=result)
    (callback.v2_runner_on_ok if ok else callback.v2_runner_on_failed)(said)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"msg": _REASON}, [_REASON]),
        ({"msg": "first\n\nsecond\n"}, ["first", "second"]),
        (
            {
                "msg": "One or more items failed",
                "results": [
                    {"msg": "counted"},
                    {"failed": True, "msg": _REASON},
                    {"failed": True, "msg": _REASON},
                    {"unreachable": True, "msg": "no route"},
                ],
            },
            [_REASON, "no route"],
        ),
        ({"msg": "not as expected", "results": ["a module's own", {"result": "refused"}]}, ["not as expected"]),
        ({"msg": ["record 3: changed", "record 4: gone"]}, ["record 3: changed", "record 4: gone"]),
        ({"censored": "hidden"}, []),
    ],
    ids=["task", "lines", "loop", "own results", "list", "censored"],
)
def test_what_failed_is_shown_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], said: list[str]
) -> None:
    lines = _shown(monkeypatch, result).splitlines()
    assert lines == ["  failed on db1: Count the rows by key", *(f"    {line}" for line in said)]


@pytest.mark.parametrize(
    ("action", "message", "shown"),
    [
        ("ansible.builtin.debug", "The catalog is right.", "  The catalog is right."),
        ("ansible.builtin.assert", ["records: 4.", "Nothing is wrong."], "  records: 4.\n  Nothing is wrong."),
        ("ansible.builtin.assert", "All assertions passed", ""),
        ("ansible.builtin.command", "not for people", ""),
    ],
    ids=["message", "what was found", "nothing said", "another task"],
)
def test_what_is_said_to_people_is_shown(
    monkeypatch: pytest.MonkeyPatch, action: str, message: Any, shown: str
) -> None:
    assert _shown(monkeypatch, {"msg": message}, action=action, ok=True) == shown
