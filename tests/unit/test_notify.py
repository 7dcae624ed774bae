# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people are told, to whom it goes, and that nobody who cannot be told holds anything up."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils import account, notices, senders

from tests.support.endpoint import Asked, certificate, closed_port, endpoint
from tests.support.mail_server import mail_server

STAMP = "2026-11-21T10:00:00.000Z"
ABOUT: dict[str, Any] = {
    "rotation_id": "20261121T100000Z-4f3a9c",
    "secrets": ["JWT_SECRET", "ANON_KEY"],
    "mode": "rotate",
    "status": "overlap",
    "hosts": ["api2", "api1"],
    "who": {"user": "ann", "controller": "c1"},
    "started_at": STAMP,
    "state_host": "db",
    "evidence": "/var/lib/keyturn/evidence/x.rotated",
}
TOLD = notices.notice("succeeded", ABOUT, STAMP)


def send(recipient: dict[str, Any], told: dict[str, Any] | None = None) -> str:
    notices.check(recipient, "keyturn_notify[0]")
    return senders.send(recipient, told or TOLD, "keyturn_notify[0]")


# -- the message ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "about", "title", "do"),
    [
        ("started", {}, "Turning A", "Nothing"),
        ("started", {"mode": "retire"}, "Retiring the previous version of A", "Nothing"),
        ("started", {"mode": "rollback"}, "Going back: A", "Nothing"),
        ("succeeded", {"status": "overlap"}, "A has turned", "keyturn.rotation.rollback -e keyturn_only=A"),
        ("succeeded", {"status": "retired"}, "A: the previous version is retired", "Nothing"),
        ("rolled_back", {"mode": "rotate"}, "back on the version before, after a failure", "evidence"),
        ("rolled_back", {"mode": "rollback"}, "back on the version before, as asked", "evidence"),
        ("stuck", {"status": "stuck"}, "the way back did not finish", "rollback"),
        ("stuck", {"status": "rollback_pending"}, "not on every host", "Bring the lost hosts back"),
        ("failed", {"status": "retiring"}, "retire did not finish", "keyturn.rotation.retire -e keyturn_only=A"),
        ("started", {"mode": "emergency"}, "Replacing a compromised version of A", "Nothing"),
        ("succeeded", {"status": "replaced"}, "the compromised version is replaced and disabled", "Nothing"),
        (
            "failed",
            {"status": "replacing"},
            "not replaced everywhere yet",
            "emergency -e keyturn_only=A -e keyturn_confirm=A",
        ),
        ("failed", {"status": "kept"}, "the previous version was not retired", "keyturn.rotation.retire"),
        ("failed", {"status": "stayed"}, "the way back was refused", "keyturn.rotation.rollback"),
        ("failed", {}, "could not be done", "status"),
        ("overdue", {}, "due for a long time and not turned", "keyturn.rotation.rotate -e keyturn_only=A"),
    ],
)
def test_each_event_says_what_happened_and_what_to_do(event: str, about: dict[str, Any], title: str, do: str) -> None:
    told = notices.notice(event, {"secrets": ["A"], **about}, STAMP)
    assert title in told["title"]
    assert do in told["do"]


def test_every_status_of_a_run_has_its_event() -> None:
    assert {status: notices.event_of(status) for status in account.STATUSES} == {
        "overlap": "succeeded",
        "open": "",
        "retired": "succeeded",
        "retiring": "failed",
        "kept": "failed",
        "replaced": "succeeded",
        "replacing": "failed",
        "refused": "failed",
        "rolled_back": "rolled_back",
        "rollback_pending": "stuck",
        "stuck": "stuck",
        "stayed": "failed",
    }


def test_the_message_takes_over_what_is_known_and_no_more() -> None:
    told = notices.notice("stuck", {**ABOUT, "cause": "secret!", "msg": "secret!", "reason": "secret!"}, STAMP)
    assert "secret!" not in json.dumps(told)
    assert told["hosts"] == ["api1", "api2"]
    assert told["who"] == "ann on c1"


def test_slack_gets_blocks_within_its_limits_and_no_mention() -> None:
    names = [f"SECRET_{number}" for number in range(400)]
    told = notices.notice("stuck", {**ABOUT, "secrets": ["<!channel>", *names], "hosts": names}, STAMP)
    message = notices.slack(told)
    assert len(message["text"]) <= 3000
    assert "<!channel>" not in message["text"]
    texts = [block["text"] for block in message["blocks"] if "text" in block]
    fields = [entry for block in message["blocks"] for entry in block.get("fields", ())]
    assert {text["type"] for text in [*texts, *fields]} == {"plain_text"}
    assert len(message["blocks"][0]["text"]["text"]) <= 150
    assert 0 < len(fields) <= 10
    assert max(len(entry["text"]) for entry in fields) <= 2000
    assert "and 380 more" in json.dumps(message)


def test_teams_gets_one_adaptive_card() -> None:
    (attachment,) = notices.teams(TOLD)["attachments"]
    card = attachment["content"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["body"][0]["text"]) == ("AdaptiveCard", TOLD["title"])
    assert {fact["title"] for fact in card["body"][1]["facts"]} >= {"Secrets", "Rotation", "Hosts", "To do"}
    assert len(json.dumps(notices.teams(TOLD))) < 28_000


def test_a_recipient_hears_what_it_asked_for() -> None:
    hook = {"type": "webhook", "url": "https://x"}
    assert notices.wanted(hook, TOLD)
    assert not notices.wanted({**hook, "on": ["stuck", "failed"]}, TOLD)
    assert notices.wanted({**hook, "secrets": ["ANON_*"]}, TOLD)
    assert not notices.wanted({**hook, "secrets": ["DB_*"]}, TOLD)


@pytest.mark.parametrize(
    ("recipient", "words"),
    [
        ({"type": "pager"}, "'pager' is not possible"),
        ({"type": "slack"}, "field 'url' is missing"),
        ({"type": "slack", "url_from": {}}, "field 'url' is missing"),
        ({"type": "slack", "url_from": {"env": "A", "file": "b"}}, "one of file, env, variable"),
        ({"type": "mail", "to": "a@b"}, "field 'from' is missing"),
        ({"type": "command"}, "field 'command' is missing"),
        ({"type": "slack", "url": "https://x", "on": ["ended"]}, "no event 'ended'"),
        ({"type": "slack", "uri": "https://secret"}, "unknown field 'uri'"),
        ("https://secret", "must be a mapping"),
    ],
)
def test_a_recipient_that_cannot_be_told_is_named_and_not_shown(recipient: Any, words: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        notices.check(recipient, "keyturn_notify[0]")
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


# -- webhooks ------------------------------------------------------------------------------------------------------


def answer(status: int) -> Any:
    return lambda _asked: (status, {}, "no such thing: https://hooks.example/secret")


@pytest.mark.parametrize("kind", ["webhook", "slack", "teams"])
def test_a_webhook_gets_its_own_shape_as_json(kind: str) -> None:
    with endpoint(answer(202)) as hook:
        assert send({"type": kind, "url": f"{hook.url}/T0/secret"}) == ""
    (asked,) = hook.asked
    assert (asked.method, asked.path) == ("POST", "/T0/secret")
    assert asked.headers["Content-Type"] == "application/json"
    shapes = {"webhook": dict(TOLD), "slack": notices.slack(TOLD), "teams": notices.teams(TOLD)}
    assert json.loads(asked.body) == shapes[kind]


def test_a_webhook_with_a_token_and_a_certificate_of_ones_own(tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    with endpoint(answer(200), pair) as hook:
        recipient = {"type": "webhook", "url": hook.url, "token": "t0ken"}
        assert "certificate not valid" in senders.send(recipient, TOLD, "w")
        assert senders.send({**recipient, "ca_file": str(pair[0])}, TOLD, "w") == ""
    assert [asked.headers["Authorization"] for asked in hook.asked] == ["Bearer t0ken"]


def test_a_webhook_through_a_proxy() -> None:
    with endpoint(answer(200)) as proxy:
        assert send({"type": "webhook", "url": "http://hooks.invalid/x", "proxy": proxy.url}) == ""
    assert [asked.path for asked in proxy.asked] == ["http://hooks.invalid/x"]


def redirect(_asked: Asked) -> tuple[int, dict[str, str], str]:
    return 302, {"Location": "https://elsewhere/"}, ""


@pytest.mark.parametrize("status", [302, 400, 404, 500])
def test_any_other_answer_is_not_told_and_says_neither_address_nor_answer(status: int) -> None:
    with endpoint(redirect if status == 302 else answer(status)) as hook:
        assert send({"type": "slack", "url": f"{hook.url}/secret"}) == f"HTTP {status}"


def test_nobody_there_and_no_address_are_said_without_the_address() -> None:
    assert send({"type": "slack", "url": f"http://127.0.0.1:{closed_port()}/secret"}).startswith("no connection")
    for url in ("secret", "ftp://secret/", "https://secret:secret@x/", "https://x/ secret"):
        said = send({"type": "slack", "url": url})
        assert "keyturn_notify[0].url" in said
        assert "secret" not in said


def test_one_that_does_not_answer_holds_nobody_up() -> None:
    with socket.socket() as silent, endpoint(answer(200)) as hook:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        slow = {"type": "slack", "timeout": 1, "url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        stuck = {"type": "command", "timeout": 1, "command": ["sleep", "60"]}
        began = time.monotonic()
        recipients = [("a", slow), ("b", slow), ("c", stuck), ("d", {"type": "webhook", "url": hook.url})]
        said = senders.send_all(recipients, TOLD)
        assert time.monotonic() - began < 8, "they are told side by side"
    assert said == [("a", "no answer within 1 s"), ("b", "no answer within 1 s"), ("c", "no end within 1 s"), ("d", "")]


def test_several_that_answer_without_an_end_cost_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "_GRACE", 1)
    monkeypatch.setattr(senders, "send", lambda *_args: time.sleep(12))
    began = time.monotonic()
    said = senders.send_all([(name, {"type": "slack", "timeout": 1}) for name in "abc"], TOLD)
    assert time.monotonic() - began < 4
    assert said == [(name, "no end in time") for name in "abc"]


# -- mail ----------------------------------------------------------------------------------------------------------


LETTER = {"type": "mail", "host": "127.0.0.1", "from": "keyturn@example.org", "to": ["a@example.org", "b@example.org"]}


def test_a_mail_without_tls_to_a_server_nearby() -> None:
    with mail_server() as server:
        assert send({**LETTER, "port": server.port, "tls": "none"}) == ""
    (letter,) = server.letters
    assert letter["Subject"] == "[keyturn] JWT_SECRET, ANON_KEY have turned"
    assert (letter["From"], letter["To"]) == ("keyturn@example.org", "a@example.org, b@example.org")
    assert letter["Auto-Submitted"] == "auto-generated"
    text = letter.get_content()
    for words in ("JWT_SECRET", "20261121T100000Z-4f3a9c", "api1, api2", "db:/var/lib/keyturn", "keyturn_only="):
        assert words in text


@pytest.mark.parametrize("wrapped", [False, True], ids=["starttls", "tls"])
def test_a_mail_with_tls_and_a_login(tmp_path: Path, wrapped: bool) -> None:
    pair = certificate(tmp_path)
    with mail_server(pair, wrapped=wrapped, login=("ann", "pa55word")) as server:
        recipient = {**LETTER, "port": server.port, "tls": "tls" if wrapped else "starttls", "user": "ann"}
        assert "certificate not valid" in send(recipient)
        recipient["ca_file"] = str(pair[0])
        assert senders.send({**recipient, "password": "pa55word"}, TOLD, "w") == ""
        said = senders.send({**recipient, "password": "wrong pa55word"}, TOLD, "w")
        assert said in ("the mail server answered 535", "the mail was not taken (SMTPServerDisconnected)")
    assert server.logins[0] is True
    assert not any(server.logins[1:])
    assert len(server.letters) == 1


def test_a_mail_that_cannot_go() -> None:
    assert send({**LETTER, "port": closed_port(), "tls": "none"}).startswith("no connection")
    with mail_server(refuse="b@example.org") as server:
        assert send({**LETTER, "port": server.port, "tls": "none"}) == "1 of 2 addresses were refused"
        assert "not taken" in send({**LETTER, "port": server.port})  # no STARTTLS there
        said = senders.send({**LETTER, "port": server.port, "tls": "none", "password": "pa55word"}, TOLD, "w")
        assert said == "w.tls: a password would go in clear. Use starttls."
    assert server.logins == []


def test_a_name_cannot_add_a_header_to_a_mail() -> None:
    with mail_server() as server:
        told = notices.notice("succeeded", {**ABOUT, "secrets": ["A\nBcc: eve@example.org"]}, STAMP)
        said = send({**LETTER, "port": server.port, "tls": "none"}, told)
    assert (said, server.letters) == ("internal error ValueError", [])


# -- commands ------------------------------------------------------------------------------------------------------


def test_a_command_gets_the_message_on_its_standard_input(tmp_path: Path) -> None:
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    assert send({"type": "command", "command": [sys.executable, "-c", script, str(tmp_path / "out")]}) == ""
    assert json.loads((tmp_path / "out").read_text()) == TOLD
    assert send({"type": "command", "command": ["false"]}) == "exit code 1"
    assert send({"type": "command", "command": [str(tmp_path / "none")]}).startswith("cannot be started")
