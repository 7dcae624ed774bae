# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables that the collection reads, and those of a command line that look like one with a slip in it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["FRAGMENTED", "KNOWN", "refuse_misspelt"]

#: Variables that stand for themselves and for every fragment ``<name>_<anything>``.
FRAGMENTED = ("keyturn_secrets", "keyturn_overlay")
#: All that playbooks, roles and plugins read, without ``keyturn_``.
_NAMES = """
    backup backup_key catalog_file commands compare confirm databases diagnose_to disable due_to escrow event event_id
    event_previous evidence evidence_dir evidence_known evidence_public_key gate grace health hosts inventory_to keyset
    keyset_command keyset_file keyset_hosts notify only overlay pace plan progress_seconds project project_dir reason
    require_plan restart restore rotation_id save secrets services services_overlay skip_backup state_dir
    state_host status_to syslog take_over timeout until verbose wait waive watch
"""
KNOWN = frozenset(f"keyturn_{name}" for name in _NAMES.split())
#: How near a name has to be to one of those: one or two letters that are wrong, missing, too many or exchanged.
_NEAR = 0.9


def refuse_misspelt(given: Iterable[str], may_refuse: bool = True) -> list[str]:
    """The names that begin as ours do, and that nothing here reads.

    :param given: the variables of the command line.
    :param may_refuse: False for what must not be held up by a variable of the user's own.
    :raises KeyturnError: ``variable-unknown`` for one that looks like a variable with a slip in it.
    """
    unread = []
    for name in sorted(given):
        if not name.startswith("keyturn_") or name in KNOWN or name.startswith(tuple(f"{one}_" for one in FRAGMENTED)):
            continue
        near = difflib.get_close_matches(name, sorted(KNOWN), n=1, cutoff=_NEAR)
        if near and may_refuse:
            raise KeyturnError("variable-unknown", f"no variable {name}", where="-e", hint=f"Did you mean {near[0]}?")
        unread.append(name)
    return unread
