# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of the second demo: it tries again, and says how long nobody answered."""

from __future__ import annotations

import json
import time

import pytest
from demo.compose.client import Client

from tests.support.endpoint import Asked, endpoint

_Answer = tuple[int, dict[str, str], str]


def _items(asked: Asked) -> _Answer:
    return 200, {}, json.dumps({"anon_key": "t"} if asked.path == "/config.json" else {"items": []})


def _until(what: str, client: Client) -> None:
    deadline = time.monotonic() + 30
    while not getattr(client, what):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_outage_is_a_gap_although_no_request_failed() -> None:
    down: list[float] = []

    def answer(asked: Asked) -> _Answer:
        down.append(time.monotonic())
        return _items(asked) if down[-1] - down[0] > 1 else (503, {}, "")

    with endpoint(answer) as here, Client(here.url) as client:
        _until("served", client)
    assert (client.failed, client.served > 0) == (0, True)
    assert client.longest_gap > 1
    assert f"longest gap {client.longest_gap:.1f} s" in str(client)


def test_an_outage_that_does_not_end_is_a_gap_too() -> None:
    with endpoint(lambda _asked: (503, {}, "")) as here, Client(here.url, patience=0.5) as client:
        _until("failed", client)
    assert client.served == 0
    assert client.longest_gap > 0.5


@pytest.mark.parametrize("refused", [0, 2])
def test_a_token_that_is_refused_is_fetched_anew(refused: int) -> None:
    asked_for_items: list[str] = []

    def answer(asked: Asked) -> _Answer:
        if asked.path == "/items":
            asked_for_items.append(asked.path)
            if len(asked_for_items) <= refused:
                return 401, {}, ""
        return _items(asked)

    with endpoint(answer) as here, Client(here.url) as client:
        _until("served", client)
    assert (client.failed, client.refused) == (0, refused)
    assert [asked.path for asked in here.asked].count("/config.json") == refused + 1
