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
    largest = max(_own_kilobytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    print(json.dumps({"seconds": seconds, "rss_mb": largest / 1024, "result": result}))


def _own_kilobytes() -> int:
    """The most that this process took. What ``getrusage`` says begins with the size of the process that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


if __name__ == "__main__":
    main()
