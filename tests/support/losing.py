# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that cannot be reached when a test says so."""

from __future__ import annotations

from pathlib import Path

from demo.stack import Stack

from tests.support.controller import Controller

__all__ = ["losing_hosts"]

_CONNECTIONS = Path(__file__).resolve().parent / "connections"


def losing_hosts(stack: Stack, folder: Path) -> tuple[Controller, Path]:
    """A controller whose connection to a host is lost while a file named after the host is in the folder it gives."""
    lost = folder / "lost"
    lost.mkdir()
    text = stack.inventory.read_text().replace("ansible_connection: local", "ansible_connection: flaky")
    stack.inventory.write_text(text)
    environment = {"ANSIBLE_CONNECTION_PLUGINS": str(_CONNECTIONS), "KEYTURN_LOST": str(lost)}
    return Controller(folder / "controller", environment), lost
