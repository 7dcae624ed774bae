# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output for people: what failed, with the reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.callback.calm import CallbackModule

_REASON = "database app: nothing listens there. Check the connection string and the server."


def _shown(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any]) -> list[str]:
    callback, lines = CallbackModule(), []
    monkeypatch.setattr(callback, "_display", SimpleNamespace(display=lambda line, **_kind: lines.append(line)))
    task = SimpleNamespace(get_name=lambda: "Count the rows by key")
    callback.v2_runner_on_failed(
        SimpleNamespace(_task=task, _host=SimpleNamespace(get_name=lambda: "db1"), _result=result)
    )
    return lines


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
        ({"censored": "hidden"}, []),
    ],
    ids=["task", "lines", "loop", "own results", "censored"],
)
def test_what_failed_is_shown_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], said: list[str]
) -> None:
    lines = _shown(monkeypatch, result)
    assert lines == ["  failed on db1: Count the rows by key", *(f"    {line}" for line in said)]
