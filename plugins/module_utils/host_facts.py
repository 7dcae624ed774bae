# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has and lacks before a key turns on it: libraries, space, a clock."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = [
    "clock",
    "disk_free",
    "family",
    "has_compose",
    "loose_folder",
    "missing_libraries",
    "package_name",
    "parse_os_release",
    "system_name",
]

_SYSTEM_PATHS = ":/usr/sbin:/usr/local/sbin:/sbin"
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")

#: Library to (module, a name that must be in it: two projects share the name ``jwt``).
_LIBRARIES = {
    "cryptography": ("cryptography.hazmat.primitives.ciphers.aead", "AESGCM"),
    "psycopg": ("psycopg", "Connection"),
    "jwt": ("jwt", "PyJWT"),
    "docker": ("docker", "DockerClient"),
    "jmespath": ("jmespath", "search"),
    "redis": ("redis", "Redis"),
}

#: Library to package, by family of distributions; "pip" is the name on PyPI.
_PACKAGES = {
    "pip": {
        "cryptography": "cryptography",
        "psycopg": "psycopg[binary]",
        "jwt": "PyJWT",
        "docker": "docker",
        "jmespath": "jmespath",
        "redis": "redis",
    },
    "debian": {
        "cryptography": "python3-cryptography",
        "psycopg": "python3-psycopg",
        "jwt": "python3-jwt",
        "docker": "python3-docker",
        "jmespath": "python3-jmespath",
        "redis": "python3-redis",
    },
    "fedora": {
        "cryptography": "python3-cryptography",
        "psycopg": "python3-psycopg3",
        "jwt": "python3-jwt",
        "docker": "python3-docker",
        "jmespath": "python3-jmespath",
        "redis": "python3-redis",
    },
    "alpine": {
        "cryptography": "py3-cryptography",
        "psycopg": "py3-psycopg",
        "jwt": "py3-jwt",
        "docker": "py3-docker-py",
        "jmespath": "py3-jmespath",
        "redis": "py3-redis",
    },
    "arch": {
        "cryptography": "python-cryptography",
        "psycopg": "python-psycopg",
        "jwt": "python-pyjwt",
        "docker": "python-docker",
        "jmespath": "python-jmespath",
        "redis": "python-redis",
    },
    "suse": {
        "cryptography": "python3-cryptography",
        "psycopg": "python3-psycopg",
        "jwt": "python3-PyJWT",
        "docker": "python3-docker",
        "jmespath": "python3-jmespath",
        "redis": "python3-redis",
    },
}
_FAMILIES = {
    "debian": ("debian", "ubuntu"),
    "fedora": ("fedora", "rhel", "centos", "rocky", "almalinux"),
    "alpine": ("alpine",),
    "arch": ("arch",),
    "suse": ("suse", "opensuse", "sles"),
}


def parse_os_release(text: str) -> dict[str, str]:
    """The variables of an ``os-release`` file (freedesktop.org, os-release(5)): quotes and escapes taken off."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, mark, value = line.strip().partition("=")
        if not mark or name.startswith("#"):
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            quote, value = value[0], value[1:-1]
            if quote == '"':
                for character in ('"', "$", "`", "\\"):
                    value = value.replace("\\" + character, character)
        found[name] = value
    return found


def family(os_release: str) -> str:
    """``debian``, ``fedora``, ``alpine``, ``arch``, ``suse``, or ``pip`` for any other text of ``os-release``."""
    release = parse_os_release(os_release)
    for name in [release.get("ID", ""), *release.get("ID_LIKE", "").split()]:
        for found, members in _FAMILIES.items():
            if name.lower().split("-")[0] in members:
                return found
    return "pip"


def package_name(library: str, os_release: str, own_python: bool = False) -> str:
    """The package that brings a library.

    :param library: ``cryptography``, ``psycopg`` (version 3), ``jwt``, ``docker``, ``jmespath`` or ``redis``.
    :param os_release: the text of ``/etc/os-release``; empty when there is none.
    :param own_python: whether the interpreter is not the distribution's (a virtual environment, ``/opt``): its
        packages do not reach it, so the name on PyPI is given.
    :raises KeyturnError: ``library-unknown``.
    """
    if library not in _LIBRARIES:
        raise KeyturnError(
            "library-unknown", f"there is no library {library!r}", hint=f"Known are {', '.join(sorted(_LIBRARIES))}"
        )
    return _PACKAGES["pip" if own_python else family(os_release)][library]


def _usable(library: str) -> bool:
    """Whether the library works here: broken counts as missing, whatever its import raises."""
    module, name = _LIBRARIES[library]
    try:
        return hasattr(importlib.import_module(module), name)
    except Exception:
        return False


def _read_os_release() -> str:
    for path in _OS_RELEASE:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            continue
    return ""


def system_name() -> str:
    """The distribution with its version, as it calls itself; empty when it does not say."""
    release = parse_os_release(_read_os_release())
    return release.get("PRETTY_NAME") or " ".join(filter(None, (release.get("ID"), release.get("VERSION_ID"))))


def _own_python() -> bool:
    system = ("/usr/bin/", "/bin/", "/usr/libexec/")
    return sys.prefix != sys.base_prefix or not os.path.realpath(sys.executable or "").startswith(system)


def missing_libraries(needed: Iterable[str]) -> list[dict[str, str]]:
    """The libraries of ``needed`` that this interpreter cannot use, each once: ``library``, ``package``.

    :raises KeyturnError: ``library-unknown``.
    """
    release, own = _read_os_release(), _own_python()
    names = {library: package_name(library, release, own) for library in needed}
    return [{"library": library, "package": package} for library, package in names.items() if not _usable(library)]


def has_compose() -> bool:
    """Whether ``docker compose`` (version 2) can be run."""
    program = shutil.which("docker", path=f"{os.environ.get('PATH', os.defpath)}{_SYSTEM_PATHS}")
    if program is None:
        return False
    command = [program, "compose", "version", "--short"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def disk_free(path: str) -> int:
    """Bytes that an ordinary user may still write where ``path`` is, or will be.

    :raises KeyturnError: ``disk-unknown``.
    """
    here = os.path.abspath(path)
    while not os.path.exists(here) and here != os.path.dirname(here):
        here = os.path.dirname(here)
    try:
        return shutil.disk_usage(here).free
    except OSError as error:
        raise KeyturnError(
            "disk-unknown", f"free space cannot be read ({error.strerror})", where=here, hint="Check its permissions"
        ) from None


def loose_folder(path: str) -> str:
    """The folder, where it is there already and others than its owner may write to it; else empty.

    Whoever may, can put other files in the place of registers and values, though not read them.
    """
    try:
        return path if os.stat(path).st_mode & 0o022 else ""
    except OSError:
        return ""


def clock() -> float:
    """Seconds since 1970-01-01 00:00 UTC."""
    return time.time()
