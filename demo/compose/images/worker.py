# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker on another host: it uses the database, Redis and the API, each with a secret. A file says it is well."""

from __future__ import annotations

import os
import signal
import sys
import threading
import urllib.request
from pathlib import Path

from demo.compose.images.common import ERRORS, Stores, content

__all__ = ["main"]

_ALIVE = Path("/tmp/alive")
_PAUSE = 0.2


def _work(stores: Stores) -> None:
    stores.database.execute("DELETE FROM items WHERE id < (SELECT max(id) - 100 FROM items)")
    stores.redis.set("worker", "was here", ex=60)
    headers = {"Authorization": f"Bearer {os.environ['SERVICE_ROLE_KEY']}"}
    request = urllib.request.Request("http://api:8000/items", b"", headers, method="POST")
    with urllib.request.urlopen(request, timeout=5):
        pass


def main() -> None:
    """Work until SIGTERM."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ending.set())
    stores = Stores()
    while not ending.wait(_PAUSE):
        try:
            _work(stores)
        except ERRORS as error:
            stores.forget()
            sys.stderr.write(f"{type(error).__name__}\n")
            _ALIVE.unlink(missing_ok=True)
        else:
            if content():
                _ALIVE.touch()
            else:
                _ALIVE.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
