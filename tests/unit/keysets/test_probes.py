# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of keysets against a real server: tokens of both keys, the kid that signs, and what proves nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.tokens import kids_in, sign_token
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry
from ansible_collections.keyturn.rotation.plugins.module_utils.probes import run_probes

from tests.support.keyset_server import encode_token, verify

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "003_tokens_hs256.json").read_text())
KEYS = {"old": Entry("k1", "canary-old-7gT2bN4xQ9"), "new": Entry("k2", "canary-new-3kV8mW1zR6")}


class _Server(ThreadingHTTPServer):
    """Verifies with a keyset, and answers ``/status`` with a text."""

    keyset: tuple[str, dict[str, str]] = ("k1", {"k1": KEYS["old"].key})
    status = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        body = self.server.status.encode()
        self.send_response(200 if self.path == "/status" or verify(token, self.server.keyset) else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def _ask(probe: dict[str, Any]) -> dict[str, Any]:
    (found,) = run_probes([{"secret": "K", **probe}], lambda _secret, version: KEYS[version].encode())
    assert not [entry for entry in KEYS.values() if entry.key in json.dumps(found)]
    return {"result": found["result"], "passed": found["passed"]}


def _token(server: _Server, **more: Any) -> dict[str, Any]:
    token = {"claims": {"actor_type": "player", "sub": "p"}}
    return {"type": "token", "url": f"{server.url}/me", "token": token, **more}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS["cases"]])
def test_a_token_is_signed_as_the_service_does(case: dict[str, Any]) -> None:
    entry = Entry(case["active_kid"], case["keys"][case["active_kid"]])
    claims = {"sub": case["sub"], "actor_type": case["actor_type"]}
    spec = {"claims": claims, "lifetime": f"{case['exp'] - case['iat']}s"}
    token = sign_token(entry.encode(), spec, entry.kid, case["iat"]).decode()
    if not set("<>&") & set(case["sub"]):  # other ways to write the same JSON
        assert token == case["token"]
    assert kids_in(f'{{"access_token": "{token}"}}') == {case["active_kid"]}


def test_both_keys_one_key_and_a_server_that_is_down(server: _Server) -> None:
    new, old = _token(server, version="new"), _token(server, version="old")
    gone = {**old, "refused": True}
    assert _ask(new) == {"result": "refused", "passed": False}
    assert _ask(old) == {"result": "accepted", "passed": True}
    assert _ask(gone) == {"result": "accepted", "passed": False}
    server.keyset = ("k2", {"k1": KEYS["old"].key, "k2": KEYS["new"].key})
    assert [_ask(probe)["passed"] for probe in (new, old, gone)] == [True, True, False]
    server.keyset = ("k2", {"k2": KEYS["new"].key})
    assert [_ask(probe)["passed"] for probe in (new, old, gone)] == [True, False, True]
    server.keyset = ("k9", {"k9": "else"})
    assert _ask(gone) == {"result": "unproven", "passed": False}


def test_trap_38_an_endpoint_that_is_down_proves_nothing() -> None:
    probe = {"type": "token", "url": "http://127.0.0.1:9/me", "version": "old"}
    assert _ask(probe) == {"result": "failed", "passed": False}
    assert _ask({**probe, "refused": True}) == {"result": "unproven", "passed": False}
    assert _ask({**probe, "type": "active_kid", "version": "new"}) == {"result": "failed", "passed": False}


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ('{"active_kid": "k2"}', "accepted"),
        ('{"kid": "k2", "active_kid": "k2"}', "accepted"),
        ('{"kid": "k1"}', "refused"),
        ('{"active_kid": 7}', "unproven"),
        ("ok", "unproven"),
        ("[]", "unproven"),
        (encode_token("k2", "x"), "accepted"),
        (f'{{"token": "{encode_token("k1", "x")}", "active_kid": "k2"}}', "refused"),
        ("eyJhbGciOi!.e30.e30", "unproven"),
    ],
)
def test_the_kid_that_signs_is_read_from_the_answer(server: _Server, status: str, result: str) -> None:
    server.status = status
    probe = {"type": "active_kid", "url": f"{server.url}/status", "version": "new"}
    assert _ask(probe) == {"result": result, "passed": result == "accepted"}


@pytest.mark.parametrize(
    "more",
    [
        {"version": "none"},
        {"version": "new", "token": {"claims": {"exp": 1}}},
        {"version": "new", "url": "http://127.0.0.1/{value}"},
        {"version": "new", "headers": {"X": "nothing"}},
        {"type": "active_kid", "version": "none"},
        {"type": "active_kid", "version": "old", "refused": True},
    ],
)
def test_probes_that_could_show_nothing_are_refused(server: _Server, more: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as raised:
        _ask(_token(server, **more))
    assert raised.value.code == "probe-invalid"


def test_the_token_goes_where_the_probe_says(server: _Server) -> None:
    probe = _token(server, version="old", headers={"authorization": "Bearer {value}"})
    probe["token"] = {**probe["token"], "lifetime": "5s"}
    assert _ask(probe)["passed"] is True
