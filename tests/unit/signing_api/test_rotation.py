# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotations by an admin API against an issuer over HTTP: in order, cut, slow, failing, restarted, and never seen."""

from __future__ import annotations

import contextlib
import json
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api import job

from tests.support.admin_issuer import AdminIssuer, Reply, admin_issuer
from tests.support.canaries import Canaries, Search
from tests.support.endpoint import certificate
from tests.support.identity import Gateway, gateway
from tests.support.killable import Killable
from tests.support.modules import ROOT, run_module_process

_DISABLE = {"path": "/api/v1/admin/keys/{kid}/disable"}
_TOKEN = {"path": "/oauth2/token", "client": "probe", "scope": "api"}
_ADMIN_LIST = {
    "path": "/api/v1/admin/keys",
    "auth": True,
    "keys": "data.rows",
    "kid": "id",
    "current": {"member": "status", "is": ["current"]},
    "usable": {"member": "enabled", "is": [True]},
}


class Bed:
    """An issuer and the calls."""

    def __init__(self, one: AdminIssuer) -> None:
        self.one = one
        self.first = one.signing()
        self.api: dict[str, Any] = {"shape": "by_path", "token": _TOKEN, "disable": _DISABLE}

    def params(self, **more: Any) -> dict[str, Any]:
        """The arguments of both modules."""
        return {
            "state_dir": str(self.one.folder / "state"),
            "rotation_id": "r1",
            "name": "JWT",
            "api": {"base": self.one.here.url, **self.api},
            "bearer": {"value": self.one.bearer},
            "client_secret": {"value": self.one.secret},
            **more,
        }

    def call(self, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
        """One call of ``signing_key_api``."""
        fixed = {"wait": 0, "restart_timeout": 20, "overlap_s": 0}
        return job.run(self.params(**{"state": state, **fixed, **more}), check)

    def refused(self, state: str, **more: Any) -> str:
        """The code of the error, which names a place and what to do, and no secret."""
        with pytest.raises(KeyturnError) as caught:
            self.call(state, **more)
        assert caught.value.where
        assert caught.value.hint
        assert self.one.bearer not in str(caught.value)
        return caught.value.code

    def fault(self, step: str, answer: Callable[[Callable[[], Reply]], Reply]) -> None:
        """The next request of this step goes so."""
        self.one.faults[step] = answer


def _cut_after(work: Callable[[], Reply]) -> Reply:
    work()
    return 0, {}, ""


def _cut_before(_work: Callable[[], Reply]) -> Reply:
    return 0, {}, ""


def _failing(bed: Bed, step: str, times: int) -> Callable[[Callable[[], Reply]], Reply]:
    def answer(_work: Callable[[], Reply]) -> Reply:
        if times > 1:
            bed.fault(step, _failing(bed, step, times - 1))
        return 500, {}, ""

    return answer


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """An issuer that reads its keys at once."""
    with admin_issuer(tmp_path) as one:
        yield Bed(one)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Bed]:
    """An issuer that has its keys in memory until it is restarted."""
    with admin_issuer(tmp_path, in_memory=True) as one:
        yield Bed(one)


# -- in order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["by_path", "by_query"])
def test_a_whole_rotation_changes_each_thing_once(bed: Bed, shape: str) -> None:
    bed.api["shape"] = shape
    for state, count in (("staged", 2), ("promoted", 2), ("disabled", 1)):
        assert bed.call(state, check=True)["changed"]
        before = dict(bed.one.stored), bed.one.signing()
        assert (dict(bed.one.stored), bed.one.signing()) == before
        told = bed.call(state)
        assert (told["changed"], told["count"], told["former_kid"]) == (True, count, bed.first)
        assert told["issued_kid"] == bed.one.signing() == (bed.first if state == "staged" else told["new_kid"])
        for check in (True, False):
            assert not bed.call(state, check=check)["changed"]
    assert [len(bed.one.asked(step)) for step in ("generate", "promote", "disable")] == [1, 1, 1]


def test_a_list_that_tells_states_needs_no_token(bed: Bed) -> None:
    bed.api = {"shape": "by_query", "disable": _DISABLE, "list": _ADMIN_LIST}
    told = bed.call("staged")
    assert told["keys"] == [{"kid": bed.first, "state": "current"}, {"kid": told["new_kid"], "state": "usable"}]
    assert bed.call("promoted")["current_kid"] == told["new_kid"]
    last = bed.call("disabled")
    assert last["keys"][0] == {"kid": bed.first, "state": "disabled"}
    assert (last["count"], last["issued_kid"], bed.one.asked("token")) == (1, "", [])


def test_info_lists_counts_and_names_the_kid_of_a_fresh_token(bed: Bed) -> None:
    bed.call("staged")
    fixed = {"signs": bed.first, "count": 2}
    told = job.run_info(bed.params(**fixed), False)
    assert (told["issued_kid"], told["count"], told["keys"][0]["state"]) == (bed.first, 2, "current")
    for wrong in ({"signs": told["new_kid"]}, {"count": 3}):
        with pytest.raises(KeyturnError) as caught:
            job.run_info(bed.params(**{**fixed, **wrong}), False)
        assert caught.value.code == "signing-api-astray"


def test_the_former_key_signs_again_after_going_back(bed: Bed) -> None:
    made = bed.call("staged")["new_kid"]
    assert not bed.call("rolled_back")["changed"]
    bed.call("promoted")
    assert bed.call("rolled_back")["changed"]
    assert not bed.call("rolled_back")["changed"]
    assert bed.one.signing() == bed.first
    assert made in bed.one.stored
    assert bed.refused("disabled") == "signing-api-not-promoted"
    assert bed.call("promoted")["issued_kid"] == made


def test_extra_headers_a_body_and_a_client_certificate(tmp_path: Path) -> None:
    public, private = certificate(tmp_path / "server")
    client, key = certificate(tmp_path / "client")
    with admin_issuer(tmp_path, tls=(public, private), clients=client) as one:
        bed = Bed(one)
        bed.api["promote"] = {"body": {"key": ["{kid}"]}}
        shown: dict[str, Any] = {"ca_file": str(public), "client_cert": str(client), "client_key": str(key)}
        headers = [{"name": "X-MFA", "value": "a-code-of-this-minute"}, {"name": "X-Id", "text": "{uuid} {kid}"}]
        assert bed.refused("staged", ca_file=str(public)) == "signing-api-lost"
        made = bed.call("staged", headers=headers, **shown)["new_kid"]
        both = {"ca_file": str(public), "client_pem": {"value": client.read_text() + key.read_text()}}
        assert bed.refused("promoted", headers=headers, client_cert=str(client), **both) == "reference-invalid"
        bed.call("promoted", headers=headers, **both)
        assert one.signing() == made
        sent, promote = one.asked("generate")[0].headers, one.asked("promote")[0]
        assert (sent["X-Mfa"], sent["X-Id"] == promote.headers["X-Id"]) == ("a-code-of-this-minute", False)
        assert promote.headers["X-Id"].endswith(f" {made}")
        assert json.loads(promote.body) == {"key": [made]}
        assert "X-Mfa" not in one.asked("list")[0].headers


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_an_issuer_with_its_keys_in_memory_is_restarted_and_only_then(memory: Bed) -> None:
    assert memory.refused("staged") == "signing-api-not-published"
    for state, count in (("staged", 2), ("promoted", 2), ("disabled", 1)):
        told = memory.call(state, restart=memory.one.restart, wait=20)
        assert (told["restarted"], told["changed"], told["count"]) == (True, True, count)
        assert not memory.call(state, restart=memory.one.restart)["restarted"]
    assert memory.one.restarts == 3
    assert [len(memory.one.asked(step)) for step in ("generate", "promote", "disable")] == [1, 1, 1]
    assert memory.call("promoted")["issued_kid"] != memory.first


def test_a_restart_that_fails_is_an_error(memory: Bed) -> None:
    assert memory.refused("staged", restart=["false"]) == "signing-api-restart"
    assert memory.call("staged", restart=memory.one.restart)["restarted"]
    assert len(memory.one.asked("generate")) == 1


def test_trap_07_a_generate_whose_answer_was_lost_makes_no_second_key(bed: Bed) -> None:
    bed.fault("generate", _cut_after)
    told = bed.call("staged")
    assert (told["changed"], told["count"], told["new_kid"] in bed.one.stored) == (True, 2, True)
    assert len(bed.one.asked("generate")) == 1


def test_a_generate_that_never_arrived_is_asked_again_by_the_next_call(bed: Bed) -> None:
    bed.fault("generate", _cut_before)
    assert bed.refused("staged") == "signing-api-not-published"
    assert bed.call("staged")["count"] == 2
    assert len(bed.one.asked("generate")) == 2


def test_a_lost_answer_and_keys_in_memory_make_one_key(memory: Bed) -> None:
    memory.fault("generate", _cut_after)
    assert memory.refused("staged") == "signing-api-not-published"
    assert memory.call("staged", restart=memory.one.restart)["count"] == 2
    assert len(memory.one.asked("generate")) == 1


def test_a_request_that_was_lost_and_keys_in_memory_make_one_key(memory: Bed) -> None:
    memory.fault("generate", _cut_before)
    assert memory.refused("staged") == "signing-api-not-published"
    assert memory.call("staged", restart=memory.one.restart)["count"] == 2
    assert len(memory.one.stored) == 2


def test_two_new_keys_after_a_lost_answer_are_named_and_none_is_taken(bed: Bed) -> None:
    def twice(work: Callable[[], Reply]) -> Reply:
        work()
        return _cut_after(work)

    bed.fault("generate", twice)
    assert bed.refused("staged") == "signing-api-ambiguous"
    assert bed.refused("promoted") == "signing-api-not-staged"
    assert bed.one.signing() == bed.first


def test_of_two_new_keys_the_one_that_is_left_is_taken_where_the_other_is_disabled(bed: Bed) -> None:
    bed.api["list"] = _ADMIN_LIST

    def twice(work: Callable[[], Reply]) -> Reply:
        work()
        return _cut_after(work)

    bed.fault("generate", twice)
    assert bed.refused("staged") == "signing-api-ambiguous"
    _first, much, left = bed.one.stored
    bed.one.stored[much].enabled = False
    assert bed.call("staged")["new_kid"] == left
    assert len(bed.one.asked("generate")) == 1


def test_a_refused_generate_leaves_no_note(bed: Bed) -> None:
    assert bed.refused("staged", bearer={"value": "another"}) == "signing-api-refused"
    bed.one.make()
    told = bed.call("staged")
    assert (told["count"], len(bed.one.asked("generate"))) == (3, 2)


@pytest.mark.parametrize("answer", [_cut_after, lambda work: (500, {}, work()[2])])
def test_a_promote_whose_answer_was_lost_counts_when_tokens_show_it(
    bed: Bed, answer: Callable[[Callable[[], Reply]], Reply]
) -> None:
    made = bed.call("staged")["new_kid"]
    bed.fault("promote", answer)
    assert bed.call("promoted")["issued_kid"] == made
    assert not bed.call("promoted")["changed"]
    assert len(bed.one.asked("promote")) == 1


def test_a_slow_promote_is_seen_when_it_is_done(bed: Bed) -> None:
    made = bed.call("staged")["new_kid"]
    done = threading.Event()

    def slow(work: Callable[[], Reply]) -> Reply:
        def finish() -> None:
            work()
            done.set()

        threading.Timer(0.3, finish).start()
        return 0, {}, ""

    bed.fault("promote", slow)
    assert bed.call("promoted", wait=60)["issued_kid"] == made
    assert done.is_set()


def test_a_failing_promote_changes_nothing_and_says_so(bed: Bed) -> None:
    bed.call("staged")
    bed.fault("promote", lambda _work: (503, {}, ""))
    assert bed.refused("promoted") == "signing-api-lost"
    bed.fault("promote", lambda _work: (200, {}, "{}"))
    assert bed.refused("promoted") == "signing-api-not-promoted"
    assert bed.one.signing() == bed.first
    assert not bed.call("staged")["changed"]
    assert bed.call("promoted")["changed"]


@pytest.mark.parametrize("state", ["promoted", "rolled_back"])
def test_trap_19_half_a_promote_that_leaves_no_current_key_is_mended(bed: Bed, state: str) -> None:
    made = bed.call("staged")["new_kid"]

    def half(_work: Callable[[], Reply]) -> Reply:
        bed.one.stored[bed.first].current = False
        return 500, {}, ""

    bed.fault("promote", half)
    assert bed.refused("promoted") == "signing-api-lost"
    assert bed.one.signing() == ""
    assert bed.call(state)["changed"]
    assert bed.one.signing() == (made if state == "promoted" else bed.first)


def test_trap_19_a_kid_that_is_not_listed_is_never_promoted(bed: Bed) -> None:
    made = bed.call("staged")["new_kid"]
    del bed.one.stored[made]
    assert bed.refused("promoted") == "signing-api-key-gone"
    assert (bed.one.asked("promote"), bed.one.signing()) == ([], bed.first)


def test_trap_17_a_new_key_that_signs_before_it_is_promoted_is_refused(bed: Bed) -> None:
    def early(work: Callable[[], Reply]) -> Reply:
        reply = work()
        bed.one.answer_promote(json.loads(reply[2])["nextKid"])
        return reply

    bed.fault("generate", early)
    assert bed.refused("staged") == "signing-api-early"


def test_somebody_elses_promote_is_not_overwritten(bed: Bed) -> None:
    bed.call("staged")
    bed.one.answer_promote(bed.one.make())
    theirs = bed.one.signing()
    assert bed.refused("promoted") == "signing-api-astray"
    assert bed.refused("rolled_back") == "signing-api-astray"
    assert bed.one.signing() == theirs


def test_a_promote_that_takes_the_former_key_out_is_an_error(bed: Bed) -> None:
    bed.call("staged")

    def withdrawing(work: Callable[[], Reply]) -> Reply:
        bed.one.stored[bed.first].enabled = False
        return work()

    bed.fault("promote", withdrawing)
    assert bed.refused("promoted") == "signing-api-former-gone"


def test_trap_46_the_former_key_stays_for_the_overlap(bed: Bed) -> None:
    bed.call("staged")
    assert bed.refused("disabled") == "signing-api-not-promoted"
    bed.call("promoted")
    assert bed.refused("disabled", overlap_s=None) == "overlap-missing"
    assert bed.refused("disabled", overlap_s=3600) == "signing-api-overlap"
    assert bed.one.stored[bed.first].enabled
    assert bed.call("disabled", overlap_s=None, early=True)["changed"]


def test_an_api_that_disables_nothing_says_so(bed: Bed) -> None:
    del bed.api["disable"]
    bed.call("staged")
    bed.call("promoted")
    assert bed.refused("disabled") == "signing-api-no-disable"


def test_trap_38_nothing_is_believed_of_an_issuer_that_is_down(bed: Bed) -> None:
    bed.call("staged")
    bed.fault("list", lambda _work: (503, {}, ""))
    assert bed.refused("promoted") == "signing-api-lost"
    bed.fault("list", lambda _work: (200, {}, '{"keys": []}'))
    assert bed.refused("promoted") == "jwks-empty"
    assert bed.one.asked("promote") == []


def test_trap_57_a_run_that_was_taken_over_asks_for_nothing(bed: Bed) -> None:
    bed.call("staged", epoch=2)
    asked = len(bed.one.here.asked)
    assert bed.refused("promoted", epoch=1) == "fenced"
    assert len(bed.one.here.asked) == asked


def test_trap_07_a_call_that_is_killed_anywhere_is_finished_by_the_same_call(tmp_path: Path) -> None:
    with contextlib.closing(Killable("signing_api.job")) as killable:
        for number, (state, step) in enumerate(
            (state, step)
            for state, steps in (
                ("staged", ("generate", "token", "list")),
                ("promoted", ("promote", "token")),
                ("replaced", ("generate", "promote", "disable")),
            )
            for step in steps
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            with admin_issuer(folder) as one:
                bed = Bed(one)
                if state == "promoted":
                    bed.call("staged")
                arrived, go_on = threading.Event(), threading.Event()

                def held(
                    work: Callable[[], Reply], arrived: threading.Event = arrived, go_on: threading.Event = go_on
                ) -> Reply:
                    reply = work()
                    arrived.set()
                    go_on.wait(60)
                    return reply

                bed.fault(step, held)
                fixed = {"wait": 0, "restart_timeout": 20}
                assert killable.run(bed.params(state=state, **fixed), partial(arrived.wait, 60)) == "killed"
                go_on.set()
                for again in (state,) if state == "replaced" else ("staged", "promoted", "disabled"):
                    told = bed.call(again)
                assert (told["count"], one.signing()) == (1, told["new_kid"])
                assert (len(one.asked("generate")), len(one.stored)) == (1, 2)


# -- emergencies -------------------------------------------------------------------------------------------------------


def test_trap_44_a_compromised_key_is_replaced_at_once_and_never_comes_back(bed: Bed) -> None:
    other = bed.one.make()
    assert bed.call("replaced", check=True)["changed"]
    assert (bed.one.asked("generate"), bed.one.signing()) == ([], bed.first)
    told = bed.call("replaced", overlap_s=None)
    assert (told["changed"], told["former_kid"], told["issued_kid"]) == (True, bed.first, told["new_kid"])
    assert [kid for kid, key in bed.one.stored.items() if key.enabled] == [other, told["new_kid"]]
    assert not bed.call("replaced")["changed"]
    assert bed.call("replaced", disable="all")["count"] == 1
    assert bed.refused("rolled_back") == "signing-api-forward-only"
    assert job.run_info(bed.params(expect="new"), False)["current_kid"] == told["new_kid"]
    assert [len(bed.one.asked(step)) for step in ("generate", "promote")] == [1, 1]
    del bed.api["disable"]
    assert bed.refused("replaced", rotation_id="r2") == "signing-api-no-disable"


def test_an_emergency_in_an_overlap_disables_the_key_before_too(bed: Bed) -> None:
    other = bed.one.make()
    bed.call("staged", rotation_id="r1")
    bed.call("promoted", rotation_id="r1")
    told = bed.call("replaced", rotation_id="e1")
    assert [kid for kid, key in bed.one.stored.items() if key.enabled] == [other, told["new_kid"]]
    assert not bed.call("replaced", rotation_id="e1")["changed"]
    bed.call("staged", rotation_id="r2")
    assert not bed.call("replaced", rotation_id="e1")["changed"]


def test_an_emergency_disables_the_key_that_an_open_rotation_has_staged(bed: Bed) -> None:
    bed.call("staged", rotation_id="r1")
    assert bed.call("replaced", rotation_id="e1")["count"] == 1


def test_an_emergency_that_cannot_read_what_a_rotation_made_changes_nothing(bed: Bed) -> None:
    bed.call("staged", rotation_id="r1")
    kept = bed.one.folder / "state" / "signing_api" / "JWT" / "r1.json"
    kept.write_text("{}")
    assert bed.refused("replaced", rotation_id="e1") == "state-invalid"
    assert (len(bed.one.asked("generate")), bed.one.signing()) == (1, bed.first)
    kept.unlink()
    assert bed.call("replaced", rotation_id="e1", disable="all")["count"] == 1


def test_an_emergency_that_does_not_know_which_key_signs_changes_nothing(bed: Bed) -> None:
    for check in (True, False):
        bed.fault("token", _failing(bed, "token", 3))
        assert bed.refused("replaced", check=check, restart=["false"]) == "signing-api-unknown"
    assert (bed.one.asked("generate"), bed.one.stored[bed.first].enabled) == ([], True)
    assert not (bed.one.folder / "state" / "signing_api").exists()
    told = bed.call("replaced")
    assert (told["former_kid"], told["count"]) == (bed.first, 1)


def test_an_emergency_asks_again_where_a_token_was_lost(bed: Bed) -> None:
    bed.fault("token", _failing(bed, "token", 3))
    told = bed.call("replaced", wait=60)
    assert (told["former_kid"], told["count"]) == (bed.first, 1)


@pytest.mark.parametrize("tells", [True, False])
def test_an_emergency_with_all_disabled_needs_to_know_nothing(bed: Bed, tells: bool) -> None:
    bed.one.stored[bed.first].current = False
    if not tells:
        del bed.api["token"]
        assert bed.refused("replaced") == "signing-api-unknown"
    assert bed.call("replaced", check=True, disable="all")["changed"]
    assert bed.call("replaced", disable="all")["count"] == 1
    assert bed.one.stored[bed.one.signing()].enabled


def test_trap_19_an_emergency_promotes_no_kid_that_is_not_listed(bed: Bed) -> None:
    def vanishing(work: Callable[[], Reply]) -> Reply:
        reply = work()
        bed.one.stored[json.loads(reply[2])["nextKid"]].enabled = False
        return reply

    bed.fault("generate", vanishing)
    assert bed.refused("replaced") == "signing-api-not-published"
    assert (bed.one.asked("promote"), bed.one.asked("disable"), bed.one.signing()) == ([], [], bed.first)
    for key in bed.one.stored.values():
        key.enabled = True
    assert bed.call("replaced")["count"] == 1


def test_an_issuer_in_memory_shows_a_key_before_an_emergency_promotes_it(memory: Bed) -> None:
    listed: list[list[str]] = []

    def noting(work: Callable[[], Reply]) -> Reply:
        listed.append([key["kid"] for key in json.loads(memory.one.answer(memory.one.asked("list")[-1])[2])["keys"]])
        return work()

    memory.fault("promote", noting)
    told = memory.call("replaced", restart=memory.one.restart, wait=20)
    assert (told["restarted"], told["count"], memory.one.restarts) == (True, 1, 2)
    assert listed == [[memory.first, told["new_kid"]]]


def test_an_issuer_in_memory_is_restarted_once_by_somebody_else_in_an_emergency(memory: Bed) -> None:
    assert not memory.call("replaced", defer=True)["seen"]
    assert memory.one.restarts == 0
    assert [key.current for key in memory.one.stored.values() if key.enabled] == [True]
    _restarted(memory)
    told = memory.call("replaced", wait=20)
    assert (told["seen"], told["count"], memory.one.restarts) == (True, 1, 1)
    again = memory.call("replaced", rotation_id="r2", restart=memory.one.restart)
    assert (again["restarted"], again["former_kid"], memory.one.restarts) == (True, told["new_kid"], 3)


@pytest.mark.parametrize("answer", [_cut_before, _cut_after])
def test_an_emergency_makes_one_key_although_it_is_in_memory_and_the_answer_was_lost(
    memory: Bed, answer: Callable[[Callable[[], Reply]], Reply]
) -> None:
    memory.fault("generate", answer)
    assert memory.refused("replaced", restart=memory.one.restart) == "signing-api-lost"
    told = memory.call("replaced", restart=memory.one.restart, wait=1)
    assert (told["count"], told["new_kid"], len(memory.one.stored)) == (1, memory.one.signing(), 2)


def test_an_emergency_that_goes_on_disables_no_key_twice(bed: Bed) -> None:
    bed.one.make()
    bed.fault("disable", _cut_after)
    assert bed.refused("replaced", disable="all") == "signing-api-lost"
    assert bed.call("replaced", disable="all")["count"] == 1
    asked = [one.path for one in bed.one.asked("disable")]
    assert (len(asked), len(set(asked))) == (2, 2)


def test_an_emergency_goes_on_where_a_late_list_shows_a_key_that_is_disabled_already(memory: Bed) -> None:
    memory.fault("disable", _cut_after)
    assert not memory.call("replaced", defer=True)["seen"]
    memory.fault("disable", lambda _work: (404, {}, ""))
    assert not memory.call("replaced", defer=True)["seen"]
    _restarted(memory)
    assert memory.call("replaced", wait=20)["count"] == 1
    memory.fault("disable", lambda _work: (403, {}, ""))
    assert memory.refused("replaced", rotation_id="r2", restart=memory.one.restart) == "signing-api-refused"


@pytest.mark.parametrize("step", ["generate", "promote", "disable"])
def test_an_emergency_whose_answer_was_lost_goes_on_and_leaves_a_key_that_signs(bed: Bed, step: str) -> None:
    for number, answer in enumerate((_cut_before, _cut_after)):
        name = f"e{number}"
        bed.fault(step, answer)
        assert bed.refused("replaced", rotation_id=name) == "signing-api-lost"
        assert bed.one.stored[bed.one.signing()].enabled
        told = bed.call("replaced", rotation_id=name)
        assert (told["count"], told["new_kid"]) == (1, bed.one.signing())
    assert len(bed.one.stored) == 3


# -- somebody else restarts it -----------------------------------------------------------------------------------------


def _restarted(memory: Bed) -> None:
    (memory.one.folder / "restart").touch()


def test_a_step_that_is_not_seen_at_once_waits_for_somebody_to_restart_the_issuer(memory: Bed) -> None:
    memory.fault("generate", _cut_after)
    for state, count in (("staged", 2), ("promoted", 2), ("rolled_back", 2), ("promoted", 2), ("disabled", 1)):
        told = memory.call(state, defer=True, wait=60)
        assert (told["seen"], told["changed"]) == (False, True)
        _restarted(memory)
        told = memory.call(state, wait=20)
        assert (told["seen"], told["count"]) == (True, count)
        assert memory.call(state, defer=True)["seen"]
    assert [len(memory.one.asked(step)) for step in ("generate", "promote", "disable")] == [1, 3, 1]
    memory.fault("promote", lambda _work: (403, {}, ""))
    memory.one.answer_promote(memory.first)
    assert memory.refused("rolled_back", defer=True) == "signing-api-key-gone"


# -- no key at all -----------------------------------------------------------------------------------------------------


def test_no_keys_available_is_said_and_the_first_key_is_made_where_that_is_asked_for(bed: Bed) -> None:
    bed.one.stored.clear()
    assert bed.refused("staged") == "jwks-empty"
    for state in ("staged", "promoted", "disabled", "rolled_back"):
        told = bed.call(state, initial=True)
        assert (told["count"], told["former_kid"], told["before_kids"]) == (1, "", [])
    (first,) = bed.one.stored
    assert bed.one.signing() == told["new_kid"] == first
    for check in ("sound", "new", "old"):
        assert job.run_info(bed.params(expect=check), False)["current_kid"] == first


def test_keys_of_which_none_signs_stop_it_unless_the_first_is_asked_for(bed: Bed) -> None:
    bed.one.stored[bed.first].current = False
    assert bed.refused("staged") == "signing-api-lost"
    bed.api = {"shape": "by_query", "list": _ADMIN_LIST}
    assert bed.refused("staged") == "signing-api-none"
    with pytest.raises(KeyturnError) as caught:
        job.run_info(bed.params(expect="sound"), False)
    assert caught.value.code == "signing-api-none"
    assert bed.one.asked("generate") == []
    bed.call("staged", initial=True)
    assert bed.call("promoted", initial=True)["current_kid"] == bed.one.signing() != ""


def test_info_knows_how_it_must_be_before_and_after(bed: Bed) -> None:
    def problem(expect: str) -> str:
        try:
            job.run_info(bed.params(expect=expect), False)
        except KeyturnError as error:
            return error.message if error.code == "signing-api-astray" else error.code
        return ""

    assert (problem("old"), problem("new")) == ("", "this rotation has made no key")
    made = bed.call("staged")["new_kid"]
    assert (problem("old"), problem("new")) == ("", f"the new key {made!r} does not sign, but {bed.first!r}")
    bed.call("promoted")
    assert (problem("old"), problem("new")) == (f"the former key {bed.first!r} does not sign, but {made!r}", "")
    bed.one.stored[bed.first].enabled = False
    assert f"the former key {bed.first!r} is not listed any more" in problem("new")
    bed.one.stored[bed.first].enabled = True
    bed.call("disabled")
    assert problem("new") == ""


# -- tokens are shown --------------------------------------------------------------------------------------------------


@pytest.fixture
def edge(bed: Bed) -> Iterator[Gateway]:
    """A gateway that verifies with the keys it has fetched, and fetches none for a kid that it does not know."""
    with gateway(f"{bed.one.here.url}/.well-known/jwks.json") as one:
        yield one


def _shown_to(edge: Gateway) -> list[dict[str, str]]:
    return [{"name": f"{version} at the edge", "version": version, "url": edge.api} for version in ("new", "old")]


def test_trap_20_a_live_token_is_shown_after_the_promote(bed: Bed, edge: Gateway) -> None:
    bed.call("staged")
    told = bed.call("promoted", shown_to=_shown_to(edge))
    assert [(one["name"], one["result"]) for one in told["probes"]] == [
        ("new at the edge", "accepted"),
        ("old at the edge", "accepted"),
    ]
    again = bed.call("promoted", shown_to=_shown_to(edge))
    looked = job.run_info(bed.params(expect="new", shown_to=_shown_to(edge)), False)
    for later in (again, looked):
        assert [one["version"] for one in later["probes"]] == ["new"]
    tokens = {asked.headers["Authorization"] for asked in edge.here.asked if asked.path == "/api"}
    assert len(tokens) == 4
    assert not list((bed.one.folder / "state" / "signing_api" / "JWT").glob("*.token"))


def test_trap_20_a_verifier_that_knows_the_current_key_only_is_an_error(bed: Bed, edge: Gateway) -> None:
    bed.call("staged")

    def only_current(work: Callable[[], Reply]) -> Reply:
        reply = work()
        edge.purge()
        return reply

    def one_key(work: Callable[[], Reply]) -> Reply:
        status, headers, text = work()
        keys = [key for key in json.loads(text)["keys"] if key["kid"] == bed.one.signing()]
        return status, headers, json.dumps({"keys": keys})

    bed.fault("promote", only_current)
    edge.source = f"{bed.one.here.url}/only"
    bed.one.views["/only"] = one_key
    assert bed.refused("promoted", shown_to=_shown_to(edge)) == "signing-api-shown"
    (kept,) = (bed.one.folder / "state" / "signing_api" / "JWT").glob("*.token")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    bed.call("rolled_back", shown_to=_shown_to(edge))
    assert (kept.exists(), bed.one.signing()) == (False, bed.first)


def test_the_token_of_the_former_key_outlives_a_restart_by_another_call(memory: Bed) -> None:
    memory.call("staged", restart=memory.one.restart)
    with gateway(f"{memory.one.here.url}/.well-known/jwks.json") as edge:
        assert not memory.call("promoted", defer=True, shown_to=_shown_to(edge))["seen"]
        assert edge.here.asked == []
        _restarted(memory)
        told = memory.call("promoted", wait=20, shown_to=_shown_to(edge))
    assert [one["version"] for one in told["probes"]] == ["new", "old"]
    memory.api.pop("token")
    assert memory.refused("promoted", shown_to=_shown_to(edge)) == "signing-api-invalid"


# -- never seen --------------------------------------------------------------------------------------------------------


def _canaries(one: AdminIssuer) -> Canaries:
    canaries = Canaries()
    for name, values in (("private", one.privates), ("token", [t.split(".")[2] for t in one.tokens])):
        for number, value in enumerate(values):
            canaries.add(f"{name} {number}", value)
    canaries.add("bearer", one.bearer)
    canaries.add("secret", one.secret)
    return canaries


def test_trap_28_no_secret_is_in_results_errors_or_files(bed: Bed, tmp_path: Path) -> None:
    secrets = {"bearer": bed.one.bearer, "secret": bed.one.secret}
    env = tmp_path / "admin.env"
    env.write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    fixed = {
        "bearer": {"env_file": str(env), "variable": "bearer"},
        "client_secret": {"env_file": str(env), "variable": "secret"},
    }
    printed = []
    for state in ("staged", "promoted", "rolled_back", "promoted"):
        given = bed.params(state=state, wait=0, **fixed)
        printed.append(run_module_process("signing_key_api", given).printed)
    shown = bed.params(signs="nobody", client_secret={"value": bed.one.secret})
    printed.append(run_module_process("signing_key_api_info", shown).printed)
    bed.api["list"] = {"path": "/api/v1/admin/keys/rotate", "method": "POST", "auth": True, "keys": "jwk"}
    leaky = run_module_process("signing_key_api_info", bed.params())
    assert leaky["code"] == "jwks-private"
    bed.api["list"] = {"path": "/api/v1/admin/keys", "auth": True}
    wrong = run_module_process("signing_key_api_info", bed.params(bearer={"value": "another-one"}))
    assert wrong["code"] == "signing-api-refused"
    found = Search()
    canaries = _canaries(bed.one)
    env.unlink()
    canaries.search_bytes(found, "output", "".join([*printed, leaky.printed, wrong.printed]).encode())
    canaries.search_files(found, [tmp_path])
    assert (found.found, found.files > 0) == ({}, True)
    assert json.loads(printed[1])["issued_kid"] == json.loads(printed[0])["new_kid"]


def test_trap_27_what_is_kept_is_private(bed: Bed) -> None:
    bed.call("staged")
    path = bed.one.folder / "state" / "signing_api" / "JWT" / "r1.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_text("{}")
    assert bed.refused("promoted") == "state-invalid"


def test_a_rotation_goes_on_at_the_address_where_it_was_begun(bed: Bed) -> None:
    bed.call("staged")
    bed.api["base"] = bed.one.here.url + "/"
    assert not bed.call("staged")["changed"]
    bed.api["base"] = bed.one.here.url.replace("127.0.0.1", "localhost")
    assert bed.refused("promoted") == "signing-api-other"


# -- the document ------------------------------------------------------------------------------------------------------


def test_the_runbook_of_the_document_runs(bed: Bed) -> None:
    text = (ROOT / "docs" / "signing-keys.md").read_text(encoding="utf-8").partition("### Step by step")[2]
    tasks = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    made: dict[str, Any] = {}
    for task in tasks:
        (module, given), *_more = [(key, value) for key, value in task.items() if key.startswith("keyturn.")]
        for name in ("bearer", "client_secret"):
            given.pop(name, None)
        given["api"]["base"] = bed.one.here.url
        own = bed.params(**{key: value for key, value in given.items() if key not in ("signs", "restart")})
        if module.endswith("_info"):
            made = run_module_process("signing_key_api_info", {**own, "signs": made["new_kid"]})
        else:
            made = run_module_process("signing_key_api", {**own, "restart": bed.one.restart})
        assert not made.get("failed"), made.get("msg")
    assert (made["count"], made["issued_kid"]) == (2, bed.one.signing())
    assert bed.one.signing() != bed.first
