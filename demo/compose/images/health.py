# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the API in this container is well; anything else than 200 ends as an error."""

from __future__ import annotations

import urllib.request

__all__: list[str] = []

urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2).close()
