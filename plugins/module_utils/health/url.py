# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that answer over HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import web
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.outcome import HEALTHY, UNHEALTHY, Outcome

__all__ = ["check_url", "refuse_url"]


def check_url(health: Mapping[str, Any]) -> Outcome:
    """Ask the URL; the status of its answer counts, and what ``expect_body`` finds in it."""
    headers = {str(name): str(value) for name, value in (health.get("headers") or {}).items()}
    answer = web.ask(
        web.Question(
            health["url"], headers=headers, timeout=health["timeout"], ca_file=health.get("ca_file"), follow=True
        )
    )
    if answer.status is None:
        return Outcome(UNHEALTHY, answer.reason)
    expected = health.get("expect_status") or [200]
    if answer.status not in expected:
        return Outcome(UNHEALTHY, f"HTTP {answer.status}, expected {', '.join(str(status) for status in expected)}")
    pattern = health.get("expect_body")
    if pattern and not re.search(pattern, answer.body):
        return Outcome(UNHEALTHY, f"HTTP {answer.status}, but the answer does not match expect_body")
    return Outcome(HEALTHY, f"HTTP {answer.status}")


def refuse_url(health: Mapping[str, Any], where: str) -> None:
    """Refuse what cannot be asked, before anything is.

    :raises KeyturnError: ``health-invalid``, ``url-invalid``.
    """
    web.check_url(str(health["url"]), where)
    try:
        re.compile(health.get("expect_body", ""))
    except re.error:
        raise KeyturnError(
            "health-invalid", "expect_body is no regular expression", where=where, hint="Escape special characters"
        ) from None
