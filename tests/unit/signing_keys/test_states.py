# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys of all shapes turn, go back, are replaced; nothing is left half done."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import jwt
import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.opening import cloud_of
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.killable import Killable
from tests.support.postgres import EmbeddedPostgres
from tests.support.signing import EC, KEY, Keys
from tests.unit.signing_keys.conftest import KeysMaker

if TYPE_CHECKING:
    from typing import LiteralString

_ORDER = ("staged", "promoted", "disabled")


def _refused(code: str, keys: Keys, state: str, **more: Any) -> KeyturnError:
    """The refusal of a call, which has changed no row."""
    before = keys.rows()
    with pytest.raises(KeyturnError) as refused:
        keys.run(state, **more)
    assert refused.value.code == code
    assert keys.rows() == before
    return refused.value


def _new_kid(keys: Keys, tenant: str) -> str:
    return next(entry["new_kid"] for entry in keys.run("staged")["keys"] if entry["tenant"] == tenant)


# -- the way forward -----------------------------------------------------------------------------------------------


def test_keys_turn_in_three_steps_and_each_can_be_called_again(keys: Keys) -> None:
    former = set(keys.fill())
    older = keys.published() - former
    signing = keys.signing()
    for state in _ORDER:
        before = keys.rows()
        would = keys.run(state, check=True)
        assert would["changed"]
        assert keys.rows() == before
        did = keys.run(state)
        assert did["changed"]
        after = keys.rows()
        again = keys.run(state)
        assert not again["changed"]
        assert not keys.run(state, check=True)["changed"]
        assert keys.rows() == after
        if state == "staged":
            assert keys.signing() == signing
            new = keys.published() - former - older
            assert len(new) == did["made"] == len(signing)
        elif state == "promoted":
            assert set(keys.signing().values()) == new
            assert keys.published() == new | former | older
        else:
            assert keys.published() == new | older
        assert keys.info(expect="sound" if state == "staged" else "new")["unsound"] == 0


def test_the_new_private_part_signs_for_its_published_half(keys: Keys) -> None:
    keys.fill(1)
    keys.run("staged")
    keys.run("promoted")
    (kid,) = keys.signing().values()
    private = keys.private(kid)
    signer: Any = private if keys.shape == "flags" else jwt.PyJWK(json.loads(private)).key
    column, name = keys.declared.columns["public"], keys.declared.columns["kid"]
    ((public,),) = keys.ask("SELECT {public}::text FROM {} WHERE {kid}::text = %s", (kid,), public=column, kid=name)
    verifier: Any = public if keys.shape == "flags" else jwt.PyJWK(json.loads(public)).key
    token = jwt.encode({"sub": "x"}, signer, "ES256")
    assert jwt.decode(token, verifier, ["ES256"]) == {"sub": "x"}


def test_only_the_named_tenants_turn(make_keys: KeysMaker) -> None:
    keys = make_keys("newest")
    keys.fill()
    before = keys.signing()
    for state in _ORDER:
        keys.run(state, tenants=[keys.tenant(2)])
    after = keys.signing()
    assert {tenant for tenant in before if before[tenant] != after[tenant]} == {keys.tenant(2)}


def test_many_tenants_turn_in_one_call_by_several_processes(make_keys: KeysMaker) -> None:
    keys = make_keys("status")
    keys.fill(230)
    former = keys.signing()
    did = keys.run("staged", workers=2, listed=5)
    assert (did["made"], len(did["keys"])) == (230, 5)
    assert keys.run("promoted")["promoted"] == 230
    assert not set(former.values()) & set(keys.signing().values())
    assert keys.run("disabled")["disabled"] == 230
    assert keys.info()["counts"] == {"tenants": 230, "keys": 690, "current": 230, "usable": 460, "disabled": 230}


def test_the_next_rotation_also_ends_what_the_one_before_left(keys: Keys) -> None:
    first = set(keys.fill(1))
    for state in ("staged", "promoted"):
        keys.run(state)
    second = set(keys.signing().values())
    for state in _ORDER:
        keys.run(state, rotation_id="r2")
    assert not (first | second) & keys.published()


def test_a_tenant_that_goes_away_meanwhile_is_left_out(make_keys: KeysMaker) -> None:
    keys = make_keys("newest")
    keys.fill(2)
    keys.run("staged")
    keys.ask("DELETE FROM {} WHERE account_id = %s RETURNING 1", (keys.tenant(1),))
    did = keys.run("promoted")
    assert (did["promoted"], did["gone"]) == (1, 1)
    assert keys.run("disabled")["disabled"] == 1


# -- traps ---------------------------------------------------------------------------------------------------------


def test_trap_17_a_new_key_is_published_before_it_signs(keys: Keys) -> None:
    keys.fill()
    before = keys.signing()
    keys.run("staged")
    assert keys.signing() == before
    assert len(keys.published()) == 3 * len(before)


def test_trap_18_former_keys_stay_until_the_overlap_is_over(keys: Keys) -> None:
    keys.fill(1)
    keys.run("staged")
    _refused("signing-not-promoted", keys, "disabled")
    keys.run("promoted")
    _refused("overlap-missing", keys, "disabled", overlap_s=None)
    error = _refused("signing-too-early", keys, "disabled", overlap_s=3600)
    assert "3600 s" in error.message
    assert keys.run("disabled", overlap_s=3600, early=True)["disabled"] == 1


def test_trap_19_no_reader_ever_sees_no_current_key_or_two(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    stop, counts = threading.Event(), set()

    def watch() -> None:
        with psycopg.connect(keys.dsn, autocommit=True) as link:
            while not stop.is_set():
                counts.add(link.execute("SELECT count(*) FROM signing_keys WHERE is_current AND enabled").fetchone())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(6):
            for state in _ORDER:
                keys.run(state, rotation_id=f"r{number}")
    finally:
        stop.set()
        watcher.join()
    assert counts == {(1,)}


def test_trap_19_a_promote_that_finds_its_key_gone_changes_nothing(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    kid = _new_kid(keys, "")
    keys.ask("DELETE FROM {} WHERE kid = %s RETURNING 1", (kid,))
    _refused("signing-count", keys, "promoted")
    assert len(keys.signing()) == 1


def test_trap_19_the_last_usable_key_is_never_disabled(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    keys.run("staged")
    keys.run("promoted")
    keys.ask("UPDATE {} SET enabled = false WHERE is_current RETURNING 1")
    _refused("signing-last-key", keys, "disabled")
    keys.ask("UPDATE {} SET enabled = true, is_current = false WHERE is_current RETURNING 1")
    _refused("signing-last-key", keys, "disabled")


def test_trap_20_a_key_that_has_signed_is_still_accepted_after_going_back(keys: Keys) -> None:
    keys.fill()
    before = keys.signing()
    for state in ("staged", "promoted"):
        keys.run(state)
    signed = set(keys.signing().values())
    assert keys.run("rolled_back")["withdrawn"] == len(before)
    assert keys.signing() == before
    assert signed <= keys.published()
    assert not keys.run("rolled_back")["changed"]
    for state in _ORDER:
        keys.run(state, rotation_id="r2")
    assert not signed & keys.published()


def test_trap_22_tokens_of_both_keys_are_accepted_before_and_after_the_switch(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    tokens = []

    def sign() -> None:
        (kid,) = keys.signing().values()
        tokens.append(jwt.encode({"sub": "x"}, keys.private(kid), "ES256", headers={"kid": kid}))

    def accepted() -> list[bool]:
        pems = dict(keys.ask("SELECT kid, public_pem FROM {} WHERE enabled"))
        kids = [jwt.get_unverified_header(token)["kid"] for token in tokens]
        return [kid in pems and bool(jwt.decode(t, pems[kid], ["ES256"])) for kid, t in zip(kids, tokens)]

    sign()
    keys.run("staged")
    assert accepted() == [True]
    keys.run("promoted")
    sign()
    assert accepted() == [True, True]
    keys.run("disabled")
    assert accepted() == [False, True]


def test_trap_26_what_is_kept_of_a_rotation_holds_no_key(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    for state in _ORDER:
        keys.run(state)
    (kid,) = keys.signing().values()
    kept = keys.sql.execute("SELECT s::text FROM keyturn.signing s").fetchall()
    assert len(kept) == 1
    assert kid in kept[0][0]
    assert keys.private(kid).splitlines()[1].decode() not in kept[0][0]


def test_trap_28_no_private_part_is_in_answers_errors_or_the_log(keys: Keys, server: EmbeddedPostgres) -> None:
    keys.fill(1)
    answers = [keys.run(state) for state in _ORDER]
    (kid,) = keys.signing().values()
    private = keys.private(kid)
    secret = private.splitlines()[1].decode()[-40:] if keys.shape == "flags" else json.loads(private)["d"]
    assert secret not in json.dumps([*answers, keys.info()]) + server.log_text()
    assert KEY not in json.dumps(answers) + server.log_text()


def test_trap_33_a_table_whose_current_key_is_no_usable_one_is_refused(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.add(1, current=False)
    error = _refused("signing-keys-none", keys, "staged")
    assert "initial" in error.hint
    keys.add(1, current=True, usable=False)
    assert "disabled" in _refused("signing-unsound", keys, "staged").message
    assert keys.info()["tenants_unsound"] == [{"tenant": "", "problem": "the current key is disabled"}]


def test_trap_33_several_current_keys_are_refused(make_keys: KeysMaker) -> None:
    keys = make_keys("newest")
    keys.fill(2)
    keys.ask("UPDATE {} SET created_at = '2026-01-01' WHERE account_id = %s RETURNING 1", (keys.tenant(2),))
    error = _refused("signing-unsound", keys, "staged")
    assert keys.tenant(2) in error.message
    assert "2 keys are current" in error.message


def test_trap_34_a_key_that_was_exchanged_under_its_kid_is_not_taken_for_the_same(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    keys.run("staged")
    keys.ask("UPDATE {} SET private_pem_enc = %s WHERE is_current RETURNING 1", (bytes(80),))
    with pytest.raises(KeyturnError, match="do not open"):
        keys.info(expect="sound")


def test_trap_36_another_call_makes_no_other_key(keys: Keys) -> None:
    keys.fill()
    keys.run("staged")
    kids = keys.published()
    for state in ("staged", "promoted", "staged", "promoted"):
        keys.run(state)
    assert keys.published() == kids


def test_trap_38_an_empty_table_is_no_success(keys: Keys) -> None:
    if keys.has_tenants:
        assert not keys.run("staged")["made"]
        _refused("signing-not-staged", keys, "promoted")
        return
    _refused("signing-keys-none", keys, "staged")


# -- before it begins ----------------------------------------------------------------------------------------------


def test_rows_that_do_not_open_are_named_before_anything_is_written(keys: Keys) -> None:
    keys.fill(2)
    kid = keys.add(
        1, current=False, cell=b"\x01\x02\x02\x00" + bytes(60) if keys.shape == "flags" else b"vault:v1:AAAA"
    )
    error = _refused("signing-rows-closed", keys, "staged")
    assert kid in error.message
    assert "KMS" in error.hint or "Vault" in error.hint
    found = keys.info()
    assert (found["closed"], found["kids_closed"]) == (1, [kid])
    assert found["clouds"] == (["AWS KMS"] if keys.shape == "flags" else ["HashiCorp Vault transit"])
    with pytest.raises(KeyturnError, match="do not open"):
        keys.info(expect="sound")
    assert not keys.ask("SELECT to_regnamespace('keyturn') WHERE to_regnamespace('keyturn') IS NOT NULL")


def test_another_encryption_key_is_refused(keys: Keys) -> None:
    keys.fill(1)
    other = {"value": "A" * 43 + "="}
    error = _refused("signing-rows-closed", keys, "staged", key=other)
    assert error.message.startswith("2 private keys")


@pytest.mark.parametrize(("value", "code"), [("", "value-empty"), ("short", "key-invalid")])
def test_a_missing_or_unfit_encryption_key_is_refused(make_keys: KeysMaker, value: str, code: str) -> None:
    keys = make_keys("newest")
    keys.fill(1)
    _refused(code, keys, "staged", key={"value": value})


def test_plaintext_rows_are_counted(make_keys: KeysMaker) -> None:
    keys = make_keys("newest")
    keys.fill(1)
    keys.add(1, current=False, cell=b'{"kty": "EC"}')
    assert keys.info(expect="sound")["plaintext"] == 1


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (b"AQICAHh+/w==", "AWS KMS"),
        (b"CiQAabcdefgh", "Google Cloud KMS"),
        (b"vault:v12:abc", "HashiCorp Vault transit"),
    ],
)
def test_what_comes_from_a_cloud_is_guessed_by_its_beginning(cell: bytes, name: str) -> None:
    assert cloud_of(cell) == name
    assert cloud_of(b"x" + cell) == ""


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"columns": {"kid": "kidd"}}, "kidd"),
        ({"columns": {"created": "kid"}}, "kid"),
        ({"columns": {"private": "created_at"}}, "created_at"),
        ({"usable": [{"column": "expires_at", "is": "soon", "else": "late"}]}, "jwks_keys"),
        ({"set": {"id": "no uuid"}}, "jwks_keys"),
    ],
)
def test_a_declaration_that_does_not_fit_the_table_is_refused(
    make_keys: KeysMaker, change: dict[str, Any], place: str
) -> None:
    keys = make_keys("newest")
    keys.fill(1)
    with pytest.raises(KeyturnError) as refused:
        keys.run("staged", key_table={**keys.entry, **change})
    assert refused.value.code in ("key-table-invalid", "column-type-unsupported")
    assert refused.value.where.endswith(place)


def test_a_column_that_must_have_a_value_is_named(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.fill()
    keys.sql.execute("ALTER TABLE signing_keys ADD owner text NOT NULL DEFAULT 'x'")
    keys.sql.execute("ALTER TABLE signing_keys ALTER owner DROP DEFAULT")
    assert _refused("key-table-invalid", keys, "staged").where.endswith("owner")
    keys.entry["set"] = {"owner": "it's 100%"}
    assert keys.run("staged")["made"] == 1
    assert keys.ask("SELECT count(*) FROM {} WHERE owner = %s", ("it's 100%",)) == [(1,)]


# -- going back ----------------------------------------------------------------------------------------------------


def test_a_key_that_never_signed_is_removed_on_the_way_back(keys: Keys) -> None:
    keys.fill()
    before = keys.rows()
    keys.run("staged")
    assert keys.run("rolled_back", epoch=2)["removed"] == len(keys.signing())
    assert keys.rows() == before
    assert not keys.run("rolled_back", epoch=2)["changed"]
    _refused("fenced", keys, "staged")  # a call that comes too late
    assert keys.run("staged", rotation_id="r2")["changed"]


def test_going_back_after_the_former_key_was_disabled_is_refused(keys: Keys) -> None:
    keys.fill(1)
    for state in _ORDER:
        keys.run(state)
    _refused("signing-disabled", keys, "rolled_back")


def test_a_key_that_somebody_else_made_current_is_not_overwritten(make_keys: KeysMaker) -> None:
    keys = make_keys("newest")
    keys.fill(1)
    keys.run("staged")
    theirs = keys.add(1, current=True)
    keys.ask("UPDATE {} SET created_at = now() WHERE kid = %s RETURNING 1", (theirs,))
    _refused("signing-raced", keys, "promoted")
    assert keys.run("rolled_back")["removed"] == 1
    assert list(keys.signing().values()) == [theirs]


# -- fences --------------------------------------------------------------------------------------------------------


def test_another_rotation_has_to_wait_and_a_lower_epoch_is_refused(keys: Keys) -> None:
    keys.fill(1)
    keys.run("staged", epoch=3)
    assert "r1 is not finished" in _refused("fenced", keys, "staged", rotation_id="r2", epoch=9).message
    _refused("fenced", keys, "promoted", epoch=2)
    assert keys.run("promoted", epoch=4)["promoted"] == 1


# -- emergency -----------------------------------------------------------------------------------------------------


def test_in_an_emergency_a_key_is_replaced_at_once_and_nothing_brings_it_back(keys: Keys) -> None:
    former = set(keys.fill())
    assert keys.run("replaced", check=True)["changed"]
    did = keys.run("replaced")
    assert did["made"] == did["promoted"] == did["disabled"] == len(former)
    assert not former & keys.published()
    assert not former & set(keys.signing().values())
    assert keys.info(expect="new")["unsound"] == 0
    assert not keys.run("replaced")["changed"]
    _refused("signing-forward-only", keys, "rolled_back")


def test_in_an_emergency_all_former_keys_can_go(keys: Keys) -> None:
    keys.fill()
    keys.run("replaced", disable="all")
    assert keys.published() == set(keys.signing().values())


def test_in_an_emergency_all_former_keys_can_go_later(keys: Keys) -> None:
    keys.fill()
    keys.run("replaced")
    signing = keys.signing()
    assert keys.published() > set(signing.values())
    assert not keys.run("replaced")["changed"]
    assert keys.run("replaced", disable="all", check=True)["changed"]
    assert keys.run("replaced", disable="all")["disabled"] == len(signing)
    assert keys.signing() == signing
    assert keys.published() == set(signing.values())
    assert not keys.run("replaced", disable="all")["changed"]


def test_an_emergency_takes_the_key_that_waits_already(keys: Keys) -> None:
    keys.fill()
    keys.run("staged")
    waiting = keys.published()
    assert keys.run("replaced")["made"] == 0
    assert keys.published() < waiting
    _refused("signing-forward-only", keys, "rolled_back")


def test_an_emergency_sets_a_table_right_that_has_no_usable_current_key(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    keys.add(1, current=True, usable=False)
    did = keys.run("replaced")
    assert (did["made"], did["promoted"]) == (1, 1)
    assert keys.info(expect="sound")["counts"]["current"] == 1


@pytest.mark.parametrize("shape", ["flags", "newest"])
def test_an_emergency_disables_every_key_that_was_current(make_keys: KeysMaker, shape: str) -> None:
    keys = make_keys(shape)
    older = set(keys.fill(1)) ^ keys.published()
    if shape == "flags":
        keys.sql.execute("DROP INDEX one_current")
        keys.ask("UPDATE {} SET is_current = true RETURNING 1")
    else:
        keys.ask("UPDATE {} SET created_at = '2026-01-01' RETURNING 1")
    assert keys.run("replaced")["disabled"] == 2
    assert not older & keys.published()
    assert keys.published() == set(keys.signing().values())
    assert keys.info(expect="new")["stages"] == {"disabled": 1}


def _meddle(keys: Keys, kid: str) -> None:
    """Somebody who makes a key current as soon as a new one signs."""
    keys.sql.execute(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
        "UPDATE signing_keys SET is_current = false WHERE is_current; "
        "UPDATE signing_keys SET is_current = true WHERE kid = (SELECT kid FROM meddler); RETURN NULL; END$$"
    )
    keys.sql.execute("CREATE TABLE meddler AS SELECT %s::text AS kid", (kid,))
    keys.sql.execute(
        "CREATE CONSTRAINT TRIGGER meddle AFTER UPDATE ON keyturn.signing DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW WHEN (NEW.stage = 'promoted') EXECUTE FUNCTION meddle()"
    )


def test_an_emergency_is_not_over_while_the_former_key_signs_again(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    (former,) = keys.fill()
    keys.run("staged")
    _meddle(keys, former)
    with pytest.raises(KeyturnError) as refused:
        keys.run("replaced")
    assert refused.value.code == "signing-raced"
    assert list(keys.signing().values()) == [former]
    keys.sql.execute("DROP TRIGGER meddle ON keyturn.signing")
    assert keys.run("replaced")["promoted"] == 1
    keys.info(expect="new")
    assert former not in keys.published()
    assert not keys.run("replaced")["changed"]
    keys.sql.execute("UPDATE signing_keys SET is_current = false WHERE is_current")
    keys.sql.execute("UPDATE signing_keys SET is_current = true, enabled = true WHERE kid = %s", (former,))
    assert keys.run("replaced")["disabled"] == 1
    keys.info(expect="new")
    assert former not in keys.published()


def test_in_an_emergency_a_key_that_nobody_knows_is_named_and_the_former_one_goes(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    (former,) = keys.fill()
    new = _new_kid(keys, "")
    theirs = keys.add(1, current=False)
    _meddle(keys, theirs)
    for _attempt in range(2):
        with pytest.raises(KeyturnError) as refused:
            keys.run("replaced")
        assert refused.value.code == "signing-raced"
        assert list(keys.signing().values()) == [theirs]
        assert former not in keys.published()
    keys.sql.execute("DROP TRIGGER meddle ON keyturn.signing")
    keys.sql.execute("UPDATE signing_keys SET is_current = false WHERE is_current")
    keys.sql.execute("UPDATE signing_keys SET is_current = true WHERE kid = %s", (new,))
    assert keys.run("replaced")["changed"]
    assert keys.info(expect="new")["stages"] == {"disabled": 1}


def test_an_emergency_makes_another_key_where_the_new_one_was_lost(keys: Keys) -> None:
    former = set(keys.fill(2))
    delete: LiteralString = "DELETE FROM {} WHERE {kid}::text = ANY(%s) RETURNING 1"
    column = keys.declared.columns["kid"]
    older = keys.published()
    keys.run("staged")
    keys.ask(delete, (list(keys.published() - older),), kid=column)
    did = keys.run("replaced")
    assert (did["made"], did["disabled"]) == (len(former), len(former))
    assert not former & keys.published()
    assert keys.info(expect="new")["stages"] == {"disabled": len(former)}


def test_an_emergency_is_done_again_in_a_table_that_was_restored(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    (former,) = keys.fill()
    keys.sql.execute("CREATE TABLE backup AS SELECT * FROM signing_keys")
    keys.run("replaced")
    (lost,) = keys.signing().values()
    keys.sql.execute("TRUNCATE signing_keys")
    _refused("signing-keys-none", keys, "replaced")
    keys.sql.execute("INSERT INTO signing_keys SELECT * FROM backup")
    did = keys.run("replaced")
    assert (did["made"], did["promoted"], did["disabled"]) == (1, 1, 1)
    assert not {former, lost} & keys.published()
    assert keys.info(expect="new")["unsound"] == 0
    assert not keys.run("replaced")["changed"]


def test_trap_19_an_emergency_that_would_leave_no_usable_key_changes_nothing(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    former = keys.fill()
    keys.sql.execute(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN IF NEW.is_current THEN NEW.enabled := false; END IF; RETURN NEW; END$$"
    )
    keys.sql.execute("CREATE TRIGGER spoil BEFORE UPDATE ON signing_keys FOR EACH ROW EXECUTE FUNCTION spoil()")
    with pytest.raises(KeyturnError) as refused:
        keys.run("replaced")
    assert refused.value.code == "signing-last-key"
    assert list(keys.signing().values()) == former


def test_an_emergency_waits_for_no_rotation_and_disables_what_that_one_has_published(keys: Keys) -> None:
    former = set(keys.fill())
    older = keys.published() - former
    keys.run("staged")
    waiting = keys.published() - former - older
    assert "r1 is not finished" in _refused("fenced", keys, "replaced", rotation_id="r2").message
    did = keys.run("replaced", rotation_id="r2", epoch=2)
    assert did["made"] == did["promoted"] == len(former)
    assert did["disabled"] == 2 * len(former)
    new = set(keys.signing().values())
    assert not new & (former | waiting)
    assert not (former | waiting) & keys.published()
    before = keys.rows()
    for state in ("staged", "promoted", "disabled"):
        assert not keys.run(state)["changed"], "the rotation that was open is over"
    assert keys.rows() == before
    keys.run("staged", rotation_id="r3", epoch=3)
    keys.run("promoted", rotation_id="r3", epoch=3)
    assert not new & set(keys.signing().values())


def test_an_emergency_after_a_whole_turn_leaves_neither_of_its_keys(keys: Keys) -> None:
    former = set(keys.fill())
    keys.run("staged")
    keys.run("promoted")
    turned = set(keys.signing().values())
    keys.run("replaced", rotation_id="r2", epoch=2)
    assert not (former | turned) & keys.published()
    assert not (former | turned) & set(keys.signing().values())


def test_trap_04_an_empty_table_is_not_replaced_in_silence(keys: Keys) -> None:
    refused = _refused("signing-keys-none", keys, "replaced")
    assert "Restore the table" in refused.hint
    assert _refused("signing-keys-none", keys, "replaced", check=True).code


def test_keys_are_sealed_to_the_hosts_that_show_tokens_of_them(make_keys: KeysMaker) -> None:
    keys = make_keys("flags")
    (old,) = keys.fill()
    private, public = sealed.new_keypair()
    told = keys.run("replaced", seal_to=[{"host": "web", "public": public}])
    (new,) = keys.signing().values()
    for version, kid in (("new", new), ("old", old)):
        value = keys.private(kid).replace(b"\\n", b"\n")
        assert sealed.open_box(told["boxes"]["web"][version], private, f"r1/SIGNING/{version}") == value
        assert load_pem_private_key(value, None)
        assert value.split(b"\n")[1].decode() not in json.dumps(told)
    assert set(keys.info(expect="new", seal_to=[{"host": "web", "public": public}])["boxes"]["web"]) == {"new", "old"}
    assert keys.info(expect="new")["boxes"] == {}


# -- no key at all -------------------------------------------------------------------------------------------------


def test_a_table_without_keys_gets_its_first_one(keys: Keys) -> None:
    tenants = [keys.tenant(1), keys.tenant(2)] if keys.has_tenants else []
    did = keys.run("replaced", initial=True, tenants=tenants)
    assert did["made"] == did["promoted"] == len(tenants or [""])
    assert set(keys.signing()) == set(tenants or [""])
    assert keys.info(expect="sound", tenants=tenants)["unsound"] == 0


def test_a_first_key_comes_with_an_ordinary_turn_too_and_stays_when_that_goes_back(keys: Keys) -> None:
    tenants = [keys.tenant(1)] if keys.has_tenants else []
    for state in ("staged", "promoted"):
        keys.run(state, initial=True, tenants=tenants)
    (kid,) = keys.signing().values()
    keys.run("rolled_back")
    assert list(keys.signing().values()) == [kid]


# -- killed --------------------------------------------------------------------------------------------------------


def test_calls_that_are_killed_anywhere_are_finished_by_the_same_calls(make_keys: KeysMaker) -> None:
    keys = make_keys("status")
    keys.fill(260)
    former = keys.signing()
    runner = Killable("signing_keys.job")
    endings = []
    try:
        for state in _ORDER:
            params = {**keys.params(state), "generate": EC, "workers": 2}
            for attempt in range(60):
                ending = runner.run(params, kill_after=0.05 * 1.25**attempt)  # longer each time: machines differ
                endings.append(ending)
                assert keys.info()["unsound"] == 0
                assert ending in ("ok", "killed")
                if ending == "ok":
                    break
    finally:
        runner.close()
    assert endings.count("ok") == len(_ORDER)
    assert "killed" in endings
    _settled(keys, former)


def _settled(keys: Keys, former: dict[str, str]) -> None:
    """Each tenant has one new key, and the former one is disabled."""
    for _attempt in range(100):  # workers of a killed call end by themselves
        if keys.info()["stages"] == {"disabled": len(former)}:
            break
        time.sleep(0.05)
    found = keys.info()["counts"]
    count = len(former)
    assert found == {"tenants": count, "keys": 3 * count, "current": count, "usable": 2 * count, "disabled": count}
    assert not set(former.values()) & keys.published()
