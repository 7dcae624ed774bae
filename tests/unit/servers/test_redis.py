# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of a Redis user turns without a gap, goes back, outlives a restart, and is never seen."""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.servers import job
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.kept import Kept
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.redis import RedisLogin
from demo.postgres import free_port

from tests.support.canaries import Canaries, Search
from tests.support.logins import call, killed_at
from tests.support.modules import run_module_process
from tests.support.redis import RedisServer


class Cache:
    """One server and the calls."""

    def __init__(self, folder: Path, way: str = "config_file") -> None:
        self.old, self.new = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.state_dir = folder / "state"
        self.server = RedisServer(folder / "redis", self.old, way)
        self.user = "default"

    def entry(self, **more: Any) -> dict[str, Any]:
        """The entry of the option ``servers``."""
        values = {"old": {"value": self.old}, "new": {"value": self.new}}
        return {
            "name": "REDISPW",
            "type": "redis",
            "address": self.server.address,
            "user": self.user,
            **values,
            **more,
        }

    def call(self, state: str, check: bool = False, entry: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """One call of ``server_password``."""
        return call(self.state_dir, [self.entry(**(entry or {}))], state, check, **more)

    def look(self, **more: Any) -> dict[str, Any]:
        """One call of ``server_password_info``; what it says of the server."""
        params = {"state_dir": str(self.state_dir), "rotation_id": "r1", "servers": [self.entry(**more)]}
        said: dict[str, Any] = job.run_info(params, False)["servers"][0]
        return said

    @property
    def valid(self) -> list[str]:
        """Which of the two the server accepts."""
        values = (("old", self.old), ("new", self.new))
        return [name for name, value in values if self.server.accepts(value, self.user)]

    def restart(self) -> None:
        """The server crashes and is started again."""
        self.server.stop()
        self.server.start()


@pytest.fixture
def make_cache(tmp_path: Path) -> Iterator[Callable[..., Cache]]:
    """Make servers that are gone after the test."""
    made: list[Cache] = []

    def make(way: str = "config_file") -> Cache:
        made.append(Cache(tmp_path / f"cache{len(made)}", way))
        return made[-1]

    yield make
    for cache in made:
        cache.server.stop()


@pytest.fixture
def cache(make_cache: Callable[..., Cache]) -> Cache:
    """A server with a configuration file and ``requirepass``."""
    return make_cache()


def refused(code: str, work: Callable[[], object]) -> None:
    """The call ends with this error."""
    with pytest.raises(KeyturnError) as raised:
        work()
    assert raised.value.code == code


@pytest.mark.parametrize("way", ["config_file", "acl_file", "arguments"])
def test_both_are_valid_until_retire_and_a_restart_forgets_nothing(make_cache: Callable[..., Cache], way: str) -> None:
    """Check, real, check again, real again, for each state."""
    cache = make_cache(way)
    kept_in = "none" if way == "arguments" else way
    assert cache.look(new=None) == {**cache.look(new=None), "accepted": ["old"], "kept_in": kept_in}
    assert cache.call("changed", check=True)["changed"]
    assert cache.valid == ["old"]
    done = cache.call("changed")
    assert done["changed"]
    assert done["servers"][0]["logins"] == [{"version": "new", "expected": "accepted", "result": "accepted"}]
    assert cache.valid == ["old", "new"]
    assert not cache.call("changed", check=True)["changed"]
    assert not cache.call("changed")["changed"]
    assert not cache.call("verified")["changed"]
    if way != "arguments":
        cache.restart()
        assert cache.valid == ["old", "new"]
    assert cache.call("retired", check=True)["changed"]
    assert cache.valid == ["old", "new"]
    done = cache.call("retired")
    assert done["changed"]
    assert [row["result"] for row in done["servers"][0]["logins"]] == ["accepted", "refused"]
    assert cache.valid == ["new"]
    assert not cache.call("retired")["changed"]
    if way != "arguments":
        cache.restart()
        assert cache.valid == ["new"]
        files = "".join(path.read_text() for path in cache.server.folder.iterdir() if path.suffix in (".conf", ".acl"))
        assert cache.old not in files
        assert hashlib.sha256(cache.old.encode()).hexdigest() not in files


@pytest.mark.parametrize("way", ["config_file", "acl_file", "arguments"])
def test_going_back_takes_the_new_one_away_last(make_cache: Callable[..., Cache], way: str) -> None:
    """Stores and readers go back in between, so that there is no gap on the way back either."""
    cache = make_cache(way)
    assert not cache.call("rolled_back")["changed"]
    assert cache.valid == ["old"]
    cache.call("changed")
    assert not cache.call("rolled_back", check=True)["changed"]
    done = cache.call("rolled_back")
    assert [(row["version"], row["result"]) for row in done["servers"][0]["logins"]] == [("old", "accepted")]
    assert not cache.call("verified", direction="back")["changed"]
    assert cache.valid == ["old", "new"]
    assert cache.call("retired", direction="back", check=True)["changed"]
    done = cache.call("retired", direction="back")
    assert done["changed"]
    assert [(row["version"], row["result"]) for row in done["servers"][0]["logins"]] == [
        ("old", "accepted"),
        ("new", "refused"),
    ]
    assert cache.valid == ["old"]
    assert not cache.call("retired", direction="back")["changed"]
    if way != "arguments":
        cache.restart()
    assert cache.valid == ["old"]


@pytest.mark.parametrize("way", ["config_file", "acl_file"])
def test_an_old_password_that_is_gone_is_valid_again_on_the_way_back(
    make_cache: Callable[..., Cache], way: str
) -> None:
    cache = make_cache(way)
    cache.call("changed")
    cache.server.link(cache.new).execute_command(
        "ACL", "SETUSER", "default", "!" + hashlib.sha256(cache.old.encode()).hexdigest()
    )
    assert cache.call("rolled_back", check=True)["changed"]
    assert cache.call("rolled_back")["changed"]
    assert cache.valid == ["old", "new"]
    cache.call("retired", direction="back")
    cache.restart()
    assert cache.valid == ["old"]


def test_a_user_of_its_own_is_changed_by_an_admin_and_keeps_its_other_passwords(cache: Cache) -> None:
    link = cache.server.link(cache.old)
    admin, mine, other = (secrets.token_urlsafe(24) for _number in range(3))
    link.execute_command("ACL", "SETUSER", "ops", "on", f">{admin}", "+acl", "+config", "+info")
    link.execute_command("ACL", "SETUSER", "app", "on", f">{mine}", f">{other}", "+@read", "~*")
    cache.user, cache.old = "app", mine
    refused("privilege-missing", cache.look)
    refused("admin-refused", lambda: cache.look(admin_user="ops", admin_password={"value": "wrong"}))
    entry = {"admin_user": "ops", "admin_password": {"value": admin}}
    assert cache.look(**entry, new=None)["accepted"] == ["old"]
    assert cache.call("changed", entry=entry)["changed"]
    assert cache.call("retired", entry=entry)["changed"]
    assert cache.valid == ["new"]
    assert cache.server.accepts(other, "app")
    cache.restart()
    assert cache.valid == ["new"]
    assert cache.server.accepts(other, "app")


def test_requirepass_leaves_a_password_of_somebody_else_alone(cache: Cache) -> None:
    other = secrets.token_urlsafe(24)
    cache.server.link(cache.old).execute_command("ACL", "SETUSER", "default", f">{other}")
    cache.call("changed")
    cache.call("retired")
    assert cache.valid == ["new"]
    assert cache.server.accepts(other)
    assert cache.server.link(cache.new).config_get("requirepass") == {"requirepass": cache.new}


def test_a_replica_follows_with_its_masterauth(cache: Cache) -> None:
    link = cache.server.link(cache.old)
    link.config_set("masterauth", cache.old)
    cache.call("changed")
    assert link.config_get("masterauth") == {"masterauth": cache.new}
    cache.call("rolled_back")
    assert link.config_get("masterauth") == {"masterauth": cache.old}


_POINTS = [
    (Kept, "save", "after"),
    (RedisLogin, "_persist", "before"),
    (RedisLogin, "_persist", "after"),
]
_IDS = [f"{when}-{method}" for _owner, method, when in _POINTS]


@pytest.mark.parametrize("point", _POINTS, ids=_IDS)
def test_a_change_that_was_killed_is_finished_by_the_same_call(cache: Cache, point: tuple[type, str, str]) -> None:
    assert killed_at(*point, lambda: cache.call("changed"))
    cache.call("changed")
    cache.restart()
    assert cache.valid == ["old", "new"]


@pytest.mark.parametrize("point", _POINTS, ids=_IDS)
def test_a_change_that_was_killed_goes_back(cache: Cache, point: tuple[type, str, str]) -> None:
    assert killed_at(*point, lambda: cache.call("changed"))
    cache.call("rolled_back")
    cache.call("retired", direction="back")
    cache.restart()
    assert cache.valid == ["old"]


_SWAP = [(RedisLogin, "_swap", "before"), (RedisLogin, "_swap", "after"), (RedisLogin, "_persist", "before")]


@pytest.mark.parametrize("direction", ["back", "forward"])
@pytest.mark.parametrize("point", _SWAP, ids=[f"{when}-{method}" for _owner, method, when in _SWAP])
def test_the_last_step_that_was_killed_is_finished_by_the_same_call(
    cache: Cache, point: tuple[type, str, str], direction: str
) -> None:
    cache.call("changed")
    assert killed_at(*point, lambda: cache.call("retired", direction=direction))
    cache.call("retired", direction=direction)
    cache.restart()
    assert cache.valid == (["new"] if direction == "forward" else ["old"])


# -- what proves nothing -------------------------------------------------------------------------------------------


def test_trap_46_a_server_that_is_down_refuses_nothing(cache: Cache) -> None:
    cache.call("changed")
    nowhere = {"address": f"127.0.0.1:{free_port()}"}
    for state in ("verified", "retired", "rolled_back"):
        refused("server-unreachable", functools.partial(cache.call, state, entry=nowhere))
    cache.server.stop()
    refused("server-unreachable", lambda: cache.call("retired"))


def test_trap_46_a_user_without_a_password_proves_nothing(cache: Cache) -> None:
    cache.server.link(cache.old).execute_command("ACL", "SETUSER", "default", "nopass")
    refused("login-unchecked", cache.look)
    refused("login-unchecked", lambda: cache.call("changed"))
    refused("login-unchecked", lambda: cache.call("verified"))


def test_somebody_elses_password_is_not_overwritten(cache: Cache) -> None:
    cache.old = secrets.token_urlsafe(24)
    refused("password-drifted", lambda: cache.call("changed"))
    refused("password-drifted", lambda: cache.look(new=None))


def test_a_file_that_cannot_be_written_is_an_error(cache: Cache) -> None:
    cache.server.config.unlink()
    cache.server.config.mkdir()
    refused("redis-refused", lambda: cache.call("changed"))


# -- leaks ---------------------------------------------------------------------------------------------------------


def test_trap_45_no_password_is_in_monitor_slow_log_or_answers(cache: Cache, tmp_path: Path) -> None:
    """Through the module's own process, with every command watched."""
    canaries = Canaries()
    for name in ("old", "new"):
        file = tmp_path / name
        file.touch(0o600)
        file.write_text(getattr(cache, name))
        canaries.add(name, getattr(cache, name))
    sources = {name: {"file": str(tmp_path / name)} for name in ("old", "new")}
    common = {"state_dir": str(cache.state_dir), "rotation_id": "r1", "servers": [cache.entry(**sources)]}
    printed = ""
    with cache.server.link(cache.old).monitor() as monitor:
        for state in ("changed", "verified", "rolled_back", "changed", "retired"):
            answer = run_module_process("server_password", {**common, "state": state})
            assert not answer.get("failed"), answer
            printed += answer.printed
        printed += run_module_process("server_password_info", common).printed
        cache.server.link(cache.new).echo("the end")
        watched = [monitor.connection.read_response()]
        while "the end" not in watched[-1]:
            watched.append(monitor.connection.read_response())
    slow = str(cache.server.link(cache.new).slowlog_get(10000))
    assert "SETUSER" in slow.upper()
    search = Search()
    log = (cache.server.folder / "server.log").read_text()
    for place, text in (("monitor", str(watched)), ("slow log", slow), ("log", log), ("printed", printed)):
        canaries.search_bytes(search, place, text.encode())
    canaries.search_files(search, [cache.state_dir])
    assert search.found == {}
