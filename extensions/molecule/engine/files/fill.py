# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the database: ``fill.py OWNER_DSN_FILE ENV_FILE ROWS SEED_FILE``. Run on the database's host, in /srv/api."""

from __future__ import annotations

import sys
from pathlib import Path

from demo.app import read_settings
from demo.schema import create_tables, fill, generate_jwks

__all__ = ["main"]


def main(dsn_file: str, env_file: str, rows: str, seed_file: str) -> None:
    """Make the tables and their rows, some in clear, the others under the key in the dotenv file."""
    dsn = Path(dsn_file).read_text(encoding="utf-8").strip()
    create_tables(dsn, "app")
    seed = fill(dsn, read_settings(Path(env_file)).key, generate_jwks(3), rows=int(rows), tokens=40)
    seed.save(Path(seed_file))


if __name__ == "__main__":
    main(*sys.argv[1:])
