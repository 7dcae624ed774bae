# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a compromised key: retire makes the tables anew, and evidence says what it does not reach."""

from __future__ import annotations

import psycopg
import pytest
from demo.stack import SECRET

from tests.integration.conftest import StackMaker
from tests.integration.test_rotation import assert_turned, evidence
from tests.support.catalog_file import change_secret
from tests.support.controller import Controller

pytestmark = pytest.mark.one_instance


def test_retire_makes_the_table_anew(make_stack: StackMaker, controller: Controller) -> None:
    stack = make_stack()
    change_secret(stack, sanitize=True)
    planned = controller.run(stack.inventory, "plan", only=SECRET)
    assert "remains     retire makes jwks_keys anew" in planned.output
    before = stack.key()
    turned = controller.run(stack.inventory, "rotate", only=SECRET)
    assert_turned(stack, turned, before)
    assert "old ciphertext is still in the files of jwks_keys" in " ".join(evidence(stack, "rotated")["messages"])

    query = "SELECT pg_relation_filenode('jwks_keys')"
    with psycopg.connect(stack.database.owner_dsn) as link:
        file = link.execute(query).fetchone()
    retired = controller.run(stack.inventory, "retire", only=SECRET, confirm=SECRET)
    assert retired.code == 0, retired.output
    with psycopg.connect(stack.database.owner_dsn) as link:
        assert link.execute(query).fetchone() != file
    (message,) = evidence(stack, "retired")["messages"]
    assert message.startswith("the files of public.jwks_keys hold no old ciphertext any more; WAL and its archive")
    assert stack.verify().ok
