# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP question and its answer, against real endpoints."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.web import Question, ask, check_url

from tests.support.endpoint import certificate, closed_port, endpoint

_CANARY = "canary-5d41402abc4b2a76"


def test_any_status_is_an_answer_and_the_request_arrives_whole() -> None:
    with endpoint(lambda asked: (418, {}, asked.body.decode()[::-1])) as here:
        answer = ask(Question(f"{here.url}/a?b=c", "PUT", {"X-One": "1", "Content-Type": "text/plain"}, b"abc"))
    assert (answer.status, answer.body, answer.reason) == (418, "cba", "")
    assert (here.asked[0].method, here.asked[0].path, here.asked[0].headers["X-One"]) == ("PUT", "/a?b=c", "1")
    assert here.asked[0].headers["Content-Type"] == "text/plain"


def test_trap_38_endpoint_that_is_down_is_no_answer() -> None:
    answer = ask(Question(f"http://127.0.0.1:{closed_port()}/"))
    assert (answer.status, answer.reason) == (None, "no connection (Connection refused)")


def test_trap_38_a_proxy_does_not_answer_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(lambda _asked: (200, {}, "from the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        answer = ask(Question(f"http://127.0.0.1:{closed_port()}/"))
    assert (answer.status, proxy.asked) == (None, [])


def _listener(reply: bytes | None) -> tuple[socket.socket, str]:
    """A socket that answers one connection with these bytes, or never."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        if reply is not None:
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    return server, f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "no answer within 0.2 s"),
        (b"", "connection closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP answer"),
    ],
)
def test_silence_and_other_protocols_are_no_answer(reply: bytes | None, reason: str) -> None:
    server, url = _listener(reply)
    with server:
        answer = ask(Question(url, timeout=0.2))
    assert (answer.status, answer.reason) == (None, reason)


def test_certificates_are_checked(tmp_path: Path) -> None:
    pair, other = certificate(tmp_path / "a"), certificate(tmp_path / "b")
    with endpoint(lambda _asked: (200, {}, ""), tls=pair) as here:
        assert ask(Question(here.url, ca_file=str(pair[0]))).status == 200
        for ca_file in (None, str(other[0])):
            refused = ask(Question(here.url, ca_file=ca_file))
            assert refused.status is None
            assert refused.reason.startswith("certificate not valid (")
        assert len(here.asked) == 1, "nothing was sent to an endpoint that is not known"
    wrong_name = certificate(tmp_path / "c", "example.test")
    with endpoint(lambda _asked: (200, {}, ""), tls=wrong_name) as here:
        assert "IP address mismatch" in ask(Question(here.url, ca_file=str(wrong_name[0]))).reason


def test_ca_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(KeyturnError) as caught:
            ask(Question("https://127.0.0.1/", ca_file=str(path)))
        assert caught.value.code == "ca-file-unusable"


def test_redirects_stay_on_the_host_and_only_when_asked_for() -> None:
    with endpoint(lambda _asked: (200, {}, "other")) as other:
        places = {
            "/same": "/end",
            "/port": f"{other.url}/end",
            "/name": f"http://localhost:{other.port}/end",
            "/file": "file:///etc/hostname",
            "/loop": "/loop",
        }

        with endpoint(
            lambda a: (302, {"Location": places[a.path]}, "") if a.path in places else (200, {}, "end")
        ) as here:
            assert ask(Question(f"{here.url}/same", follow=True)).body == "end"
            assert ask(Question(f"{here.url}/same")).status == 302
            for path in ("/port", "/name", "/file"):
                headers = {"Authorization": _CANARY}
                assert ask(Question(f"{here.url}{path}", headers=headers, follow=True)).status == 302
            assert ask(Question(f"{here.url}/loop", follow=True)).reason == "too many redirects"
    assert other.asked == []


def test_redirect_after_a_post_asks_without_the_body_but_307_keeps_it() -> None:
    status = {"/303": 303, "/307": 307}
    with endpoint(lambda a: (status[a.path], {"Location": "/end"}, "") if a.path in status else (200, {}, "")) as here:
        for path in status:
            assert ask(Question(f"{here.url}{path}", "POST", body=b"x", follow=True)).status == 200
    assert [(asked.method, asked.body) for asked in here.asked if asked.path == "/end"] == [
        ("GET", b""),
        ("POST", b"x"),
    ]


def test_endless_body_is_cut() -> None:
    with endpoint(lambda _asked: (200, {}, "x" * 3_000_000)) as here:
        assert len(ask(Question(here.url)).body) == 1024 * 1024


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host/", "file:///etc/shadow", "http://", "http:///path", "http://h:99999/", "http://h/a b", "h:80"],
)
def test_only_whole_http_addresses(url: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        check_url(url, "here")
    assert caught.value.code == "url-invalid"


def test_trap_28_neither_a_login_in_an_address_nor_a_header_shows_in_errors() -> None:
    with pytest.raises(KeyturnError, match="a login stands in the address") as caught:
        check_url(f"http://me:{_CANARY}@127.0.0.1/", "here")
    assert _CANARY not in repr(caught.value.args)
    for value in (f"{_CANARY}\n", f"{_CANARY}\r\nX: y", f"{_CANARY}\N{SNOWMAN}", f"{_CANARY}\0"):
        with pytest.raises(KeyturnError) as caught:
            ask(Question("http://127.0.0.1:1/", headers={"X-Token": value}))
        assert caught.value.code == "header-invalid"
        assert _CANARY not in repr(caught.value.args)
    assert _CANARY not in repr(Question("http://127.0.0.1/", headers={"a": _CANARY}, body=_CANARY.encode()))


def test_headers_of_an_answer_by_their_names_in_small_letters() -> None:
    lines = ("HTTP/1.1 200 OK", "Cache-Control: public", "X-One: a", "cache-control: max-age=60", "Content-Length: 0")
    server, url = _listener("\r\n".join([*lines, "", ""]).encode())
    with server:
        answer = ask(Question(url))
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["x-one"] == "a"


def test_a_client_certificate_is_shown_and_one_without_its_key_is_refused(tmp_path: Path) -> None:
    public, private = certificate(tmp_path / "server")
    client, key = certificate(tmp_path / "client")
    with endpoint(lambda _asked: (200, {}, "in"), tls=(public, private), clients=client) as here:
        bare = ask(Question(here.url, ca_file=str(public)))
        known = ask(Question(here.url, ca_file=str(public), cert_file=str(client), key_file=str(key)))
    assert (bare.status, known.status, known.body) == (None, 200, "in")
    for cert_file, key_file in ((client, None), (tmp_path / "none", None), (public, key)):
        question = Question(
            here.url, ca_file=str(public), cert_file=str(cert_file), key_file=key_file and str(key_file)
        )
        with pytest.raises(KeyturnError) as caught:
            ask(question)
        assert caught.value.code == "cert-file-unusable"
