# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines of what a unit of systemd logged (journalctl(1), systemd.exec(5))."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.log_lines import mask_lines, values_in
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_reading

__all__ = ["last_lines"]

_SECONDS = 5.0


def last_lines(unit: str, lines: int, values: Sequence[str]) -> list[str]:
    """Masked; none where the journal does not give them.

    :param values: what must not be shown, besides what the unit has in its environment.
    """
    argv = ["journalctl", "--no-pager", "--quiet", "--all", "--output=cat", f"--lines={lines}", f"--unit={unit}"]
    return mask_lines(_printed(argv)[-lines:], [*values, *values_in(_environment(unit))])


def _environment(unit: str) -> list[str]:
    """``NAME=value`` of what its ``Environment=`` sets and the files of its ``EnvironmentFile=`` hold."""
    found = []
    for line in _printed(["systemctl", "show", "--property=Environment,EnvironmentFiles", "--", unit]):
        name, _equals, value = line.partition("=")
        if name == "Environment":
            found += _words(value)
        elif name == "EnvironmentFiles":
            with contextlib.suppress(KeyturnError):  # it may be gone
                text = atomic.read_file(value.rpartition(" (")[0]).decode("utf-8", "replace")
                found += ["".join(_words(entry)) or entry for entry in text.splitlines()]
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that nothing closes
        return text.split()


def _printed(argv: Sequence[str]) -> list[str]:
    ending, printed = run_reading(argv, _SECONDS)
    return printed.decode("utf-8", "replace").splitlines() if ending.code == 0 else []
