# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a long job tells how far it is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.plugin_utils.long_job import LongJobAction


class _Watched(LongJobAction):
    """Notes whether a job was started."""

    def __init__(self) -> None:
        self.started = False

    def start(self, *_arguments: Any) -> dict[str, Any]:
        """Nothing is started."""
        self.started = True
        raise KeyturnError("job-not-started", "this one is never started")


@pytest.mark.parametrize("said", ["often", [1], {"seconds": 1}])
def test_what_is_no_number_is_refused_before_the_job_begins(said: Any) -> None:
    action = _Watched()
    with pytest.raises(KeyturnError) as refused:
        action.watch("reencrypt", {}, "/nowhere", {"keyturn_progress_seconds": said})
    assert (refused.value.code, refused.value.where) == ("progress-invalid", "keyturn_progress_seconds")
    assert not action.started


@pytest.mark.parametrize("said", [None, "", 0, 15, "15", 0.5])
def test_numbers_and_nothing_are_taken(said: Any) -> None:
    action = _Watched()
    with pytest.raises(KeyturnError) as refused:
        action.watch("reencrypt", {}, "/nowhere", {"keyturn_progress_seconds": said})
    assert refused.value.code == "job-not-started"
    assert action.started
