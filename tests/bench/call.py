# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of a module's work with the arguments on standard input, measured: time, and the memory of its processes.

The work is ``reencrypt``'s, or that of the part of the core that is named (``documents.job``).
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / ".build")]


def main() -> None:
    """Print what it took; ``rss_mb`` is the largest of its processes."""
    work = sys.argv[1] if len(sys.argv) > 1 else "postgres.job"
    job = importlib.import_module(f"ansible_collections.keyturn.rotation.plugins.module_utils.{work}")
    arguments = json.load(sys.stdin)
    started = time.perf_counter()
    result = job.run(arguments, False)
    seconds = time.perf_counter() - started
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "rss_mb": max(sizes) / 1024, "result": result}))


if __name__ == "__main__":
    main()
