# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge one host of the service: ``judge.py changed|unchanged``. Run there, in /srv/api.

Exit code 0 when every row that was ever made is there and opens under the key in this host's dotenv file, no lookup is
stale, and the key is (``changed``: is not) the one in before.env.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo.app import read_settings
from demo.dotenv import read_env
from demo.schema import Seed
from demo.verify import verify, verify_lookups

__all__ = ["main"]

_HOME = Path("/srv/api")
_SECRET = "JWK_AES_KEY"


def main(expected: str) -> int:
    """Print what is wrong, or what was seen."""
    settings = read_settings(_HOME / ".env")
    seed = Seed.load(_HOME / "seed.json")
    now, before = (read_env(_HOME / name) for name in (".env", "before.env"))
    rows = verify({row: [v] for row, v in seed.rows.items()}, settings.database_url, settings.key)
    lookups = verify_lookups(seed.tokens, settings.database_url, settings.key)
    seen = "unchanged" if now[_SECRET] == before[_SECRET] else "changed"
    others = {name for name in now.keys() | before.keys() if name != _SECRET and now.get(name) != before.get(name)}
    mode = (_HOME / ".env").stat().st_mode & 0o777
    print(f"rows: {rows}; lookups: {lookups}; key {seen}; mode {mode:o}; other settings changed: {sorted(others)}")
    same_bytes = (_HOME / ".env").read_bytes() == (_HOME / "before.env").read_bytes()
    good = rows.ok and lookups.ok and rows.rows == len(seed.rows) > 0 and seen == expected and mode == 0o600
    return 0 if good and not others and (expected == "changed" or same_bytes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
