# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes: a version is accepted, or refused, by real endpoints and commands."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import SHAPES
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.probes import fill, run_probes
from ansible_collections.keyturn.rotation.plugins.modules import secret_probe, service_health

from tests.support.endpoint import Asked, Endpoint, certificate, closed_port, endpoint
from tests.support.modules import Ran, run_module_process

NEW, OLD = "canary-new-9f2d64b1c07e", "canary-old-3b8a51f0d29c"
VALUES = {("TOKEN", "new"): NEW.encode(), ("TOKEN", "old"): OLD.encode()}
BEARER = {"Authorization": "Bearer {value}"}


def value_of(secret: str, version: str) -> bytes:
    return VALUES[secret, version]


def unused(secret: str, version: str) -> bytes:
    raise AssertionError(f"{secret} {version} was read and nobody uses it")


class _Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextlib.contextmanager
def accepting(*tokens: str, otherwise: int = 401) -> Iterator[Endpoint]:
    """An endpoint that lets these bearer tokens in."""
    allowed = {f"Bearer {token}" for token in tokens}

    def answering(asked: Asked) -> tuple[int, dict[str, str], str]:
        return (200 if asked.headers.get("Authorization") in allowed else otherwise), {}, "well"

    with endpoint(answering) as here:
        yield here


def probe(url: str, version: str = "new", **more: Any) -> dict[str, Any]:
    return {"type": "http", "secret": "TOKEN", "version": version, "url": url, "headers": BEARER, **more}


def ask(*probes: dict[str, Any]) -> list[tuple[str, bool]]:
    results = run_probes(probes, value_of)
    assert "canary" not in str(results)
    return [(result["result"], result["passed"]) for result in results]


# -- accepted ----------------------------------------------------------------------------------------------------------


def test_the_new_version_is_accepted() -> None:
    with accepting(NEW) as here:
        (result,) = run_probes([probe(here.url)], value_of)
    assert result == {
        "name": "#1 TOKEN http new",
        "type": "http",
        "secret": "TOKEN",
        "version": "new",
        "refused": False,
        "expected": "accepted",
        "result": "accepted",
        "passed": True,
        "detail": "HTTP 200",
    }


def test_a_new_version_that_is_refused_or_meets_an_error_does_not_pass() -> None:
    with accepting() as refusing, accepting(otherwise=500) as broken:
        assert ask(probe(refusing.url), probe(broken.url)) == [("refused", False), ("failed", False)]


def test_expected_statuses_and_body() -> None:
    with accepting(NEW, otherwise=204) as here:
        url = here.url
        assert ask(probe(url, expect_body="^well$"), probe(url, expect_body="ill")) == [
            ("accepted", True),
            ("failed", False),
        ]
        assert ask(probe(url, "old", expect=[204, 205])) == [("accepted", True)]


def test_a_probe_without_a_version_reads_no_value() -> None:
    with accepting(otherwise=200) as here:
        plain = {"type": "http", "secret": "TOKEN", "url": here.url, "version": "none"}
        (result,) = run_probes([plain], unused)
    assert (result["passed"], result["version"]) == (True, "none")


def test_only_the_version_that_a_probe_uses_is_read() -> None:
    def only_new(secret: str, version: str) -> bytes:
        assert version == "new"
        return value_of(secret, version)

    with accepting(NEW) as here:
        assert run_probes([probe(here.url)], only_new)[0]["passed"]


def test_the_value_stands_where_the_template_says_and_nowhere_else() -> None:
    headers = {"X-Token": "{value}", "Authorization": "Basic {value:basic:bob}"}
    with endpoint(lambda _asked: (200, {}, "")) as here:
        run_probes([probe(here.url + "/a", headers=headers, body='{"t": {value:json}}', method="PUT")], value_of)
    (asked,) = here.asked
    assert (asked.method, asked.path) == ("PUT", "/a")
    assert asked.headers["X-Token"] == NEW
    assert asked.headers["Authorization"] == "Basic Ym9iOmNhbmFyeS1uZXctOWYyZDY0YjFjMDdl"
    assert asked.body == b'{"t": "canary-new-9f2d64b1c07e"}'


def test_a_body_is_posted_unless_a_method_is_given() -> None:
    with endpoint(lambda _asked: (200, {}, "")) as here:
        run_probes([probe(here.url, headers={}, body="t={value:url}")], lambda _secret, _version: b"a&b=\xff")
    assert (here.asked[0].method, here.asked[0].body) == ("POST", b"t=a%26b%3D%FF")


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("a {value} b {value}", 'a k"1 b k"1'),
        ("{value:json}", '"k\\"1"'),
        ("{value:url}", "k%221"),
        ("{value:base64}", "ayIx"),
        ("{value:basic:me}", "bWU6ayIx"),
        ("{other} {value:odd}", "{other} {value:odd}"),
    ],
)
def test_forms_of_a_value(template: str, filled: str) -> None:
    assert fill(template, b'k"1') == filled


def test_bytes_that_are_no_text_are_refused_without_showing_them() -> None:
    with pytest.raises(KeyturnError) as caught:
        fill("{value}", b"canary\xff")
    assert caught.value.code == "value-unusable"
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_trap_28_a_value_that_cannot_stand_in_a_header_is_an_error_without_it() -> None:
    with accepting() as here, pytest.raises(KeyturnError) as caught:
        run_probes([probe(here.url)], lambda _secret, _version: b"canary\r\nX-Evil: 1")
    assert caught.value.code == "header-invalid"
    assert "canary" not in str(caught.value)
    assert here.asked == []


def test_certificates_are_checked_and_the_value_is_not_sent_to_a_stranger(tmp_path: Path) -> None:
    with endpoint(lambda _asked: (200, {}, ""), tls=certificate(tmp_path)) as here:
        assert ask(probe(here.url)) == [("failed", False)]
        assert here.asked == []
        assert ask(probe(here.url, ca_file=str(tmp_path / "cert.pem"))) == [("accepted", True)]


def test_a_redirect_is_not_followed_with_the_value() -> None:
    with endpoint(lambda _asked: (200, {}, "")) as other:
        with endpoint(lambda _asked: (302, {"Location": other.url}, "")) as here:
            assert ask(probe(here.url)) == [("failed", False)]
        assert other.asked == []


# -- refused -----------------------------------------------------------------------------------------------------------


def test_the_old_version_is_refused_while_the_new_one_is_accepted() -> None:
    with accepting(NEW) as here:
        (result,) = run_probes([probe(here.url, "old", refused=True)], value_of)
        tokens = [asked.headers["Authorization"] for asked in here.asked]
    assert (result["result"], result["passed"], result["refused"], result["expected"]) == (
        "refused",
        True,
        True,
        "refused",
    )
    assert tokens == [f"Bearer {OLD}", f"Bearer {NEW}"], "in the same breath"


def test_trap_38_an_endpoint_that_is_down_proves_nothing() -> None:
    url = f"http://127.0.0.1:{closed_port()}/"
    assert ask(probe(url, "old", refused=True)) == [("unproven", False)]
    assert ask(probe(url)) == [("failed", False)]


def test_trap_46_an_endpoint_that_refuses_everybody_proves_nothing() -> None:
    with accepting() as here:
        assert ask(probe(here.url, "old", refused=True)) == [("unproven", False)]


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_trap_46_an_error_is_not_a_refusal(status: int) -> None:
    with accepting(NEW, otherwise=status) as here:
        assert ask(probe(here.url, "old", refused=True)) == [("unproven", False)]


def test_an_old_version_that_is_still_accepted_is_said_so() -> None:
    with accepting(NEW, OLD) as here:
        (result,) = run_probes([probe(here.url, "old", refused=True)], value_of)
    assert (result["result"], result["passed"]) == ("accepted", False)
    assert result["detail"] == "HTTP 200: the old version is still accepted"


def test_trap_46_the_same_value_twice_proves_nothing() -> None:
    with accepting() as here:
        (result,) = run_probes([probe(here.url, "old", refused=True)], lambda _secret, _version: b"same")
        assert here.asked == []
    assert (result["result"], result["passed"]) == ("unproven", False)


def test_a_refusal_by_another_status_is_declared() -> None:
    with accepting(NEW, otherwise=404) as here:
        assert ask(probe(here.url, "old", refused=True, expect=[404])) == [("refused", True)]


def test_the_declared_probe_of_the_new_version_says_what_accepted_means() -> None:
    def answering(asked: Asked) -> tuple[int, dict[str, str], str]:
        return (204 if NEW in asked.headers["Authorization"] else 403), {}, ""

    with endpoint(answering) as here:
        url = here.url
        assert ask(probe(url, "old", refused=True)) == [("unproven", False)]
        assert ask(probe(url, expect=[204]), probe(url, "old", refused=True)) == [("accepted", True), ("refused", True)]
        assert ask(probe(url, "old", refused=True, accept=[204])) == [("refused", True)]


# -- commands ----------------------------------------------------------------------------------------------------------

LOGIN = "import sys; sys.exit(0 if sys.stdin.read() == {good!r} else {code})"


def command(good: str, version: str = "new", code: int = 1, **more: Any) -> dict[str, Any]:
    argv = [sys.executable, "-c", LOGIN.format(good=good, code=code)]
    return {"type": "command", "secret": "TOKEN", "version": version, "command": argv, **more}


def test_a_command_reads_the_value_from_its_standard_input() -> None:
    assert ask(command(NEW), command("another")) == [("accepted", True), ("refused", False)]


def test_trap_25_the_value_is_neither_in_the_arguments_nor_in_the_environment(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"import os, sys; open({str(seen)!r}, 'w').write(repr((sys.argv, dict(os.environ)))); sys.stdin.read()"
    asked = {"type": "command", "secret": "TOKEN", "version": "new", "command": [sys.executable, "-c", script]}
    assert ask(asked) == [("accepted", True)]
    assert "PATH" in seen.read_text()
    assert "canary" not in seen.read_text()


def test_a_command_refuses_with_any_code_but_zero_and_only_beside_the_new_version() -> None:
    assert ask(command(NEW, "old", code=5, refused=True)) == [("refused", True)]
    assert ask(command("neither", "old", refused=True)) == [("unproven", False)]
    assert ask(command(OLD, "old", refused=True)) == [("accepted", False)]


def test_trap_38_a_command_that_cannot_run_or_is_killed_proves_nothing() -> None:
    absent = {**command(NEW, "old", refused=True), "command": ["/no/such/program"]}
    killed = {**command(NEW, "old", refused=True), "command": ["sh", "-c", "kill -9 $$"]}
    assert ask(absent, killed) == [("unproven", False), ("unproven", False)]


# -- waiting and mistakes ----------------------------------------------------------------------------------------------


def test_only_what_does_not_pass_is_asked_again_until_the_time_is_over() -> None:
    answers = {"/slow": [503, 503, 200], "/fast": [200], "/never": [503] * 99}
    clock = _Clock()
    with endpoint(lambda asked: (answers[asked.path].pop(0), {}, "")) as here:
        probes = [probe(f"{here.url}/{name}", name=name) for name in ("slow", "fast", "never")]
        results = run_probes(probes, value_of, 5, 1, clock, clock.sleep)
    assert [result["passed"] for result in results] == [True, True, False]
    assert [result["name"] for result in results] == ["slow", "fast", "never"]
    assert clock.now == pytest.approx(5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "http", "version": "none"},
        {"type": "sql"},
        probe("http://127.0.0.1/", secret=""),
        probe("http://127.0.0.1/?token={value}"),
        probe("http://127.0.0.1/?token=%7Bvalue%7D"),
        probe("http://127.0.0.1/", headers={}),
        probe("http://127.0.0.1/", "none"),
        probe("http://127.0.0.1/", refused=True),
        probe("http://127.0.0.1/", "old", refused=True, expect=[200]),
        probe("http://127.0.0.1/", expect_body="("),
        probe("http://127.0.0.1/", method="GET /"),
        {"type": "command", "secret": "TOKEN", "version": "new"},
        command(NEW, expect_body="x"),
        {**command(NEW), "command": ["login", "--password={value}"]},
    ],
)
def test_a_probe_that_could_test_nothing_or_would_leak_is_refused_before_any_asks(wrong: dict[str, Any]) -> None:
    with accepting(NEW) as here, pytest.raises(KeyturnError) as caught:
        run_probes([probe(here.url), wrong], value_of)
    assert caught.value.code == "probe-invalid"
    assert here.asked == []


# -- logs --------------------------------------------------------------------------------------------------------------

USE = r"verified kid={kid} client=(?P<who>\S+)"
KIDS = {"old": "k1", "new": "k2"}


@contextlib.contextmanager
def logged(folder: Path, *lines: str) -> Iterator[dict[str, Any]]:
    """A log of which the first line is of yesterday and the others of now, and a probe of it."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = folder / "app.log"
    path.write_text("2020-01-01T00:00:00Z verified kid=k1 client=long-ago\n" + "".join(f"{now} {x}\n" for x in lines))
    yield {"type": "log", "secret": "TOKEN", "path": [str(path)], "since": "15m", "kids": KIDS}


def verdict(probe: dict[str, Any]) -> tuple[str, bool, str]:
    (result,) = run_probes([probe], value_of)
    assert "canary" not in str(result)
    return result["result"], result["passed"], result["detail"]


@pytest.mark.parametrize(
    "line",
    [
        "auth.token phase=fast_lookup hit=true",
        "auth.jwt phase=db_fallback",
        "keyset refresh error: keeping last-known-good",
        "JWT signature verification failed",
    ],
)
def test_lines_that_must_or_must_not_appear(tmp_path: Path, line: str) -> None:
    with logged(tmp_path, "started", line) as log:
        assert verdict({**log, "pattern": line}) == ("accepted", True, "1 of 2 lines match")
        assert verdict({**log, "pattern": line, "at_most": 0})[:2] == ("failed", False)
        assert verdict({**log, "pattern": line, "at_most": 1})[:2] == ("accepted", True)
        assert verdict({**log, "pattern": line, "at_least": 2})[:2] == ("failed", False)
    with logged(tmp_path, "started") as log:
        assert verdict({**log, "pattern": line})[:2] == ("failed", False)
        assert verdict({**log, "pattern": line, "at_most": 0})[:2] == ("accepted", True)


def test_trap_38_a_silent_or_missing_log_proves_nothing(tmp_path: Path) -> None:
    with logged(tmp_path) as log:
        assert verdict({**log, "pattern": "error", "at_most": 0})[:2] == ("unproven", False)
        assert verdict({**log, "pattern": "old kid", "version": "old", "refused": True})[:2] == ("unproven", False)
        gone = {**log, "path": [str(tmp_path / "none.log")], "pattern": "error", "at_most": 0}
        assert verdict(gone)[:2] == ("unproven", False)


def test_who_still_uses_the_old_version_is_named(tmp_path: Path) -> None:
    used = ("verified kid=k2 client=web", "verified kid=k1 client=reports", "verified kid=k1 client=mobile")
    with logged(tmp_path, *used) as log:
        asked = {**log, "version": "old", "refused": True, "pattern": USE}
        assert verdict(asked) == ("accepted", False, "the old version was used 2 times, by reports, mobile")


def test_trap_46_the_old_version_is_unused_only_where_the_new_one_is_seen_in_use(tmp_path: Path) -> None:
    asked = {"version": "old", "refused": True, "pattern": USE}
    with logged(tmp_path, "verified kid=k2 client=web") as log:
        assert verdict({**log, **asked}) == ("refused", True, "the old version was not used, the new one 1 times")
    with logged(tmp_path, "started") as log:
        assert verdict({**log, **asked})[:2] == ("unproven", False)
    with logged(tmp_path, "verified") as log:
        assert verdict({**log, **asked, "pattern": "previous key used"})[:2] == ("refused", True)


def test_the_new_value_itself_is_looked_for_and_never_shown(tmp_path: Path) -> None:
    with logged(tmp_path, "loaded settings", f"debug: token={NEW}") as log:
        assert verdict({**log, "version": "new"})[:2] == ("failed", False)
        assert verdict({**log, "version": "old"}) == ("accepted", True, "the value stands in none of 2 lines")
    with logged(tmp_path) as log:
        assert verdict({**log, "version": "new"})[:2] == ("unproven", False)


def test_a_log_since_the_rotation_began(tmp_path: Path) -> None:
    with logged(tmp_path, "keyset reloaded") as log:
        whole = {**log, "since": None, "started_at": "2019-12-31T23:00:00.000Z", "pattern": "client=long-ago|reloaded"}
        assert verdict({**whole, "at_least": 2})[:2] == ("accepted", True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": "x", "since": "15m"},
        {"path": ["/a"], "unit": "b", "pattern": "x", "since": "15m"},
        {"path": ["/a"], "since": "15m"},
        {"path": ["/a"], "pattern": "(", "since": "15m"},
        {"path": ["/a"], "pattern": "{value}", "since": "15m"},
        {"path": ["/a"], "pattern": "x"},
        {"path": ["/a"], "pattern": "x", "since": "soon"},
        {"path": ["/a"], "pattern": "x", "since": "15m", "at_least": 1, "at_most": 1},
        {"path": ["/a"], "pattern": "x", "version": "old", "refused": True, "started_at": "2026-01-01T00:00:00Z"},
        {"path": ["/a"], "version": "old", "refused": True, "since": "15m"},
        {"service": "api", "pattern": "x", "since": "15m"},
    ],
)
def test_a_log_probe_that_could_test_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as caught:
        run_probes([{"type": "log", "secret": "TOKEN", **wrong}], value_of)
    assert caught.value.code == "probe-invalid"


def test_a_kid_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    with logged(tmp_path, "x") as log, pytest.raises(KeyturnError, match="kid of the old version is not known"):
        verdict({**log, "kids": None, "version": "old", "refused": True, "pattern": USE})


# -- the module --------------------------------------------------------------------------------------------------------


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """References to both versions in files of mode 0600, and the session of a rotation."""
    references = {}
    for version, value in (("new", NEW), ("old", OLD)):
        path = tmp_path / version
        path.write_text(value + "\n")
        path.chmod(0o600)
        references[version] = {"file": str(path)}
    return {"state_dir": str(tmp_path / "state"), "rotation_id": "r1", "values": {"TOKEN": references}}


def module(arguments: dict[str, Any], *probes: dict[str, Any], check: bool = False, **more: Any) -> Ran:
    return run_module_process("secret_probe", {**arguments, "probes": list(probes), **more}, check)


def test_the_module_passes_also_in_check_mode_and_shows_no_value(arguments: dict[str, Any]) -> None:
    with accepting(NEW) as here:
        for check in (True, False, True, False):
            probes = [probe(here.url, name="new token"), probe(here.url, "old", refused=True, name="old token")]
            ran = module(arguments, *probes, check=check)
            assert (ran["passed"], ran["changed"]) == (True, False)
            assert [(one["name"], one["result"]) for one in ran["probes"]] == [
                ("new token", "accepted"),
                ("old token", "refused"),
            ]
            assert "canary" not in ran.printed
    assert not Path(arguments["state_dir"]).exists()


def test_the_module_fails_with_the_names_and_keeps_the_results(arguments: dict[str, Any]) -> None:
    with accepting(otherwise=503) as here:
        ran = module(arguments, probe(here.url, name="metrics"))
        tolerant = module(arguments, probe(here.url, name="metrics"), fail=False)
    assert (ran["failed"], ran["code"], ran["passed"]) == (True, "probe-failed", False)
    assert ran["msg"].startswith("metrics: failed (HTTP 503, expected 200)")
    assert [one["result"] for one in ran["probes"]] == ["failed"]
    assert "failed" not in tolerant
    assert tolerant["passed"] is False
    assert "canary" not in ran.printed + tolerant.printed


def test_the_only_secret_need_not_be_named(arguments: dict[str, Any]) -> None:
    with accepting(NEW) as here:
        unnamed = {key: value for key, value in probe(here.url).items() if key != "secret"}
        assert module(arguments, unnamed)["passed"]


def test_a_file_that_others_may_read_is_refused(arguments: dict[str, Any]) -> None:
    Path(arguments["values"]["TOKEN"]["new"]["file"]).chmod(0o644)
    with accepting(NEW) as here:
        ran = module(arguments, probe(here.url))
        assert here.asked == []
    assert (ran["failed"], ran["code"]) == (True, "file-loose")
    assert "canary" not in ran.printed


def test_the_old_version_is_not_needed_for_a_probe_of_the_new_one(arguments: dict[str, Any]) -> None:
    Path(arguments["values"]["TOKEN"]["old"]["file"]).unlink()
    with accepting(NEW) as here:
        assert module(arguments, probe(here.url))["passed"]
        assert module(arguments, probe(here.url, "old", refused=True))["code"] == "file-missing"


def test_a_value_in_the_arguments_is_refused(arguments: dict[str, Any]) -> None:
    arguments["values"] = {"TOKEN": {"new": {"value": "x"}}}
    with accepting(NEW) as here:
        assert module(arguments, probe(here.url))["code"] == "reference-invalid"
    del arguments["values"]
    assert module(arguments, probe(here.url))["code"] == "reference-missing"


def test_the_module_reads_logs_and_shows_no_value(arguments: dict[str, Any], tmp_path: Path) -> None:
    with logged(tmp_path, "verified kid=k1 client=reports", f"token={NEW}") as log:
        probes = [
            {**{key: value for key, value in log.items() if key != "kids"}, "name": name, **more}
            for name, more in (
                ("use", {"version": "old", "refused": True, "pattern": USE}),
                ("leak", {"version": "new"}),
                ("since", {"since": None, "pattern": "reports"}),
            )
        ]
        ran = module(arguments, *probes, kids={"TOKEN": KIDS}, since="2026-01-01T00:00:00Z")
    assert [(one["name"], one["result"], one["passed"]) for one in ran["probes"]] == [
        ("use", "accepted", False),
        ("leak", "failed", False),
        ("since", "accepted", True),
    ]
    assert "by reports" in ran["msg"]
    assert "canary" not in ran.printed


def test_what_the_catalog_allows_the_modules_take() -> None:
    secrets, services = SHAPES["keyturn_secrets"].fields, SHAPES["keyturn_services"].fields
    probes, health = secrets["probes"].shape, services["health"].shape
    assert probes is not None
    assert health is not None
    assert set(probes.fields) - {"hosts"} <= set(secret_probe.PROBE)
    assert set(services) <= set(service_health.SERVICE)
    assert set(health.fields) <= set(service_health.HEALTH)
