# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a play reaches the hosts of tests: they are folders on this machine."""

from __future__ import annotations

import os
import sys

__all__ = ["LOCAL"]

#: Variables of all hosts. Modules run under the Python of the tests, or under the one in KEYTURN_HOST_PYTHON.
LOCAL = {
    "ansible_connection": "local",
    "ansible_python_interpreter": os.environ.get("KEYTURN_HOST_PYTHON") or sys.executable,
}
