# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of a module that works in a database, its arguments on standard input: time, and its largest process."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / ".build")]


def main() -> None:
    """Print what it took; ``rss_mb`` is the largest of its processes."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.postgres import job
    from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys import job as signing_job

    arguments = json.load(sys.stdin)
    started = time.perf_counter()
    result = (signing_job if "key_table" in arguments else job).run(arguments, False)
    seconds = time.perf_counter() - started
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "rss_mb": max(sizes) / 1024, "result": result}))


if __name__ == "__main__":
    main()
