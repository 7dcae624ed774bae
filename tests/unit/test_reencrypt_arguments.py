# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a job of the plan to arguments that the modules take."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.keyturn.rotation.plugins.module_utils import plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import ARGUMENTS, INFO_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.plugin_utils.reencrypt_arguments import with_references

from tests.unit.test_catalog import GROUPS, catalog
from tests.unit.test_plan import KINDS

_RUN = {"rotation_id": "r1", "session_dir": "/s", "state_dir": "/v", "epoch": 1}


def _job(**database: Any) -> dict[str, Any]:
    variables = catalog()
    variables["keyturn_databases"]["app"].update(database)
    variables["keyturn_secrets"]["KEY"].update(sanitize=True)
    built = plan.build(load_catalog(variables, GROUPS), ["KEY"], KINDS, {})
    return {**built["hosts"]["db"]["jobs"][0], "dsn_file": "/etc/app/dsn"}


def _checked(arguments: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    result = ArgumentSpecValidator(spec).validate(arguments)
    assert result.error_messages == []
    validated: dict[str, Any] = result.validated_parameters
    return validated


@pytest.mark.parametrize("state", ["in_place", "prepared", "swept", "cleaned"])
def test_a_job_carries_how_its_database_is_treated(state: str) -> None:
    job = _job(calm=True, rate=900, max_lag=3, max_wait="7s")
    found = _checked(with_references({**_RUN, "state": state, "job": job}, None, {}), ARGUMENTS)
    assert (found["workers"], found["batch_rows"], found["lock_timeout_ms"]) == (1, 200, 50)
    assert (found["rate"], found["max_lag"], found["max_wait_s"]) == (900, 3 * 1024 * 1024, 7)
    assert (found["progress_path"], found["sanitize"]) == ("/s/progress-KEY-app.json", True)


def test_counting_is_told_how_many_may_count() -> None:
    job = _job(workers=3, batch_rows=70, rate=900)
    found = _checked(with_references({**_RUN, "job": {**job}, "boxes": {"new": "box"}}, None, {}), INFO_ARGUMENTS)
    assert (found["workers"], found["batch_rows"]) == (3, 70)
    assert "rate" not in found


@pytest.mark.parametrize("helps", ["lead", "begin"])
def test_hosts_that_share_a_table_know_their_part(helps: str) -> None:
    job = {**_job(), "hosts": 2}
    arguments = {**_RUN, "state": "prepared", "job": job, "help": helps}
    found = _checked(with_references(arguments, None, {"inventory_hostname": "db"}), ARGUMENTS)
    assert found["share"] == {"lead": helps == "lead", "host": "db", "hosts": 2}


def test_a_host_alone_shares_with_nobody() -> None:
    arguments = {**_RUN, "state": "prepared", "job": _job(), "help": "lead"}
    assert _checked(with_references(arguments, None, {}), ARGUMENTS)["share"] is None


def test_the_modules_own_arguments_stay() -> None:
    assert with_references({"state": "swept", "workers": 2}, None, {}) == {"state": "swept", "workers": 2}
