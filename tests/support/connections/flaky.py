# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to this machine that is lost while a file named after the host is there."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: flaky
short_description: A local connection that can be lost
description: Fails while the file KEYTURN_LOST/<host> exists.
options: {}
"""


class Connection(LocalConnection):
    """Local, or lost."""

    transport = "flaky"

    def exec_command(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command, or be lost."""
        if os.path.exists(os.path.join(os.environ["KEYTURN_LOST"], str(self._play_context.remote_addr))):
            raise AnsibleConnectionFailure("the host does not answer")
        return super().exec_command(*args, **kwargs)
