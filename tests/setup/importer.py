# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection and put it through Galaxy's own importer; any error or warning of it is a failure."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from galaxy_importer import collection, config
from galaxy_importer.exceptions import ImporterError

__all__ = ["build", "check"]

_ROOT = Path(__file__).resolve().parents[2]
_BUILD = _ROOT / ".build"


class _Collector(logging.Handler):
    """Keeps what the importer complains about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.complaints: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.complaints.append(f"{record.levelname}: {record.getMessage()}")


def build(source: Path) -> Path:
    """Build the tarball of the collection at ``source`` into ``.build``."""
    for old in _BUILD.glob("keyturn-rotation-*.tar.gz"):
        old.unlink()
    command = [str(Path(sys.executable).with_name("ansible-galaxy")), "collection", "build"]
    subprocess.run([*command, "--output-path", str(_BUILD), str(source)], check=True, stdout=subprocess.DEVNULL)
    return next(_BUILD.glob("keyturn-rotation-*.tar.gz"))


def check(tarball: Path) -> list[str]:
    """What the importer holds against ``tarball``."""
    collector = _Collector()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger().addHandler(collector)
    settings = config.Config(config_data={"run_ansible_test": False, "offline_ansible_lint": True})
    with tarball.open("rb") as file:
        try:
            collection.import_collection(file, logger=logging.getLogger("importer"), cfg=settings)
        except ImporterError as error:
            collector.complaints.append(f"{type(error).__name__}: {error}")
    return collector.complaints


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(_BUILD)  # where the importer's ansible-lint finds the collections that roles call
    source = Path(sys.argv[1]).resolve()
    os.chdir(_BUILD)  # the importer leaves a report where it runs
    complaints = check(build(source))
    if complaints:
        sys.exit("\n".join(["The importer complained:", *complaints]))
    print("The importer has no complaint.")
