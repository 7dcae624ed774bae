# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gets one message with the place and what to do; the run fails and nothing is changed.

What is wrong in the catalog alone is in ``tests/unit/test_catalog.py``; here a host or the database has to say it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from demo.stack import SECRET, Stack

from tests.integration.test_rotation import everything
from tests.support.catalog_file import change_secret, edit, load
from tests.support.controller import Controller

pytestmark = pytest.mark.one_instance


def column(**fields: Any) -> Callable[[Stack], None]:
    def change(stack: Stack) -> None:
        entry = {"database": "app", "table": "jwks_keys", "column": "private_jwk", "envelope": "aes256gcm-b64"}
        change_secret(stack, data=[{**entry, "plaintext": "encrypt", **fields}])

    return change


def execute(statement: str, **fields: Any) -> Callable[[Stack], None]:
    def change(stack: Stack) -> None:
        with psycopg.connect(stack.database.owner_dsn) as connection:
            connection.execute(statement)
        column(**fields)(stack)

    return change


def wrong_port(stack: Stack) -> None:
    variables = load(stack)
    variables["keyturn_databases"]["app"]["dsn"] = "postgresql://u:not-to-be-seen@127.0.0.1:1/app"
    edit(stack, variables)


def short_key(stack: Stack) -> None:
    for name in stack.apis:
        path = stack.env_file(name)
        path.write_text(path.read_text().splitlines()[0] + f"\n{SECRET}=c2hvcnQ\n")


def env_missing(stack: Stack) -> None:
    change_secret(stack, stores=[{"hosts": "api1", "type": "env_file", "path": str(stack.folder / "nowhere/.env")}])


def env_link(stack: Stack) -> None:
    link = Path(stack.folder / "link.env")
    link.symlink_to(stack.env_file("api1"))
    change_secret(stack, stores=[{"hosts": "api1", "type": "env_file", "path": str(link)}])


def two_fragments(stack: Stack) -> None:
    variables = load(stack)
    variables["keyturn_secrets_team"] = {SECRET: variables["keyturn_secrets"][SECRET]}
    edit(stack, variables)


CASES: dict[str, tuple[Callable[[Stack], None], list[str]]] = {
    "unknown envelope": (column(envelope="aes256gcm-b65"), ["aes256gcm-b65", "aes256gcm-b64"]),
    "no table": (column(table="jwk_keys"), ["jwk_keys", "jwks_keys"]),
    "no column": (column(column="private_jwks"), ["private_jwks", "private_jwk"]),
    "no primary key": (execute("CREATE TABLE bare (c text)", table="bare", column="c"), ["bare", "primary key"]),
    "wrong port": (wrong_port, ["database app", "dsn-failed"]),
    "key too short": (short_key, ["5 bytes"]),
    "env file missing": (env_missing, ["nowhere/.env", "does not exist"]),
    "env file a link": (env_link, ["link.env", "symbolic link"]),
    "defined twice": (two_fragments, ["keyturn_secrets_team", SECRET]),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_bad_input_is_refused_with_the_place_and_what_to_do(stack: Stack, controller: Controller, case: str) -> None:
    fault, words = CASES[case]
    fault(stack)
    before = everything(stack)
    ended = controller.run(stack.inventory, "plan", only=SECRET)
    assert ended.code != 0, ended.output
    for word in words:
        assert word in ended.output, ended.output
    assert "not-to-be-seen" not in ended.output
    assert "internal error" not in ended.output
    assert everything(stack) == before


def test_trap_4_a_table_without_rows_is_refused(stack: Stack, controller: Controller) -> None:
    execute("CREATE TABLE none_yet (id int PRIMARY KEY, c text)", table="none_yet", column="c")(stack)
    before = stack.key()
    ended = controller.run(stack.inventory, "rotate", only=SECRET)
    assert ended.code == 2
    assert "none_yet" in ended.output
    assert "may_be_empty" in ended.output
    assert stack.key() == before


def test_a_slip_in_a_variable_is_refused_before_anything_is_read(stack: Stack, controller: Controller) -> None:
    before = everything(stack)
    ended = controller.run(stack.inventory, "rotate", onli=SECRET)
    assert ended.code == 2, ended.output
    assert "-e: no variable keyturn_onli. Did you mean keyturn_only?" in ended.output
    assert "only?." not in ended.output
    assert everything(stack) == before
    ended = controller.run(stack.inventory, "plan", only=SECRET, colour_of_the_day="x")
    assert ended.code == 0, ended.output
    assert "keyturn_colour_of_the_day was given" in ended.output
