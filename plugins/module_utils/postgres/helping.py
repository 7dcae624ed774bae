# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that helps another one: it takes parts of the passes that the other one deals out, and decides nothing."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.inplace import re_encrypt
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rotation import SHARED, Rotation
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.shadow import settle

__all__ = ["help_out"]

#: How long the host that leads may keep others waiting, in seconds: it may have other databases to do first.
_LONGEST_WAIT = 3600.0


def help_out(rotation: Rotation) -> dict[str, Any]:
    """Work on the passes of the call that leads, until that is over.

    :raises KeyturnError: ``fenced`` when a later run took over, ``help-refused``, and what a pass raises.
    """
    if rotation.state not in SHARED:
        hint = "Call it on the host that leads only"
        raise KeyturnError("help-refused", f"nobody can help with {rotation.state}", where="share", hint=hint)
    share = rotation.work.share
    if share is None:  # check mode
        return {}
    places = {target.place: at for at, target in enumerate(rotation.targets)}
    if rotation.targets:
        column = rotation.targets[0].column
        rotation.pace.begin(str(column.table), column.name, 0)  # so that it can be steered while it waits
    while (one := share.wait(rotation.link, _LONGEST_WAIT)) is not None:
        if one.place not in places:
            hint = "Give it the same columns as the host that leads"
            raise KeyturnError("help-refused", "is no column of this call", where=one.place, hint=hint)
        rotation.read_shadows()
        target, shadow = rotation.targets[places[one.place]], rotation.shadows[places[one.place]]
        target.prefer = one.prefer
        if rotation.state == "in_place":
            re_encrypt(rotation.work, target, back=False)
        else:
            rotation.refuse_unprepared()
            settle(rotation.work, rotation.way, target, shadow, back=False)
    return {}
