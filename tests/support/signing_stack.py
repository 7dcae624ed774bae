# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An issuer whose keys lie in a PostgreSQL table, and a gateway in front of it.

``python -m tests.support.signing_stack --dir DIR up|mark|judge|interrupt|down``:

``up`` starts a server, the issuer and the gateway, and writes an inventory with two hosts, both on this machine.
``mark`` keeps a token and the kid it is signed with. ``judge turned|retired|back`` says what became of them.
``interrupt PLAYBOOK PHASE… [-e VARIABLE]…`` runs a playbook and kills it as soon as it enters the first phase, runs it
again and kills it in the next one, and so on; then it lets it end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import yaml
from demo.postgres import PostgresServer

from tests.support.controller import Controller, kill_marked, registry
from tests.support.endpoint import Asked, endpoint
from tests.support.identity import gateway
from tests.support.local import LOCAL
from tests.support.signing import EC, KEY, Keys, published_jwks

__all__ = ["NAME", "IssuerStack", "main"]

NAME = "JWT_SIGNING"
_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 120.0
_FIGURES = dict.fromkeys(("token_lifetime", "refresh_lifetime", "gateway_cache", "reload", "skew"), "0s")


class IssuerStack:
    """All of it, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.inventory = self.folder / "inventory.yml"
        self.state_dir = self.folder / "db1" / "state"

    # -- life ----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start it anew."""
        self.down()
        for host in ("db1", "edge"):
            (self.folder / host / "state").mkdir(mode=0o700, parents=True)
        server = PostgresServer.create(self.folder / "server", durable=False)
        server.start()
        dsn = server.create_database("app").owner_dsn
        keys = Keys(dsn, self.folder / "unused", "flags")
        keys.fill()
        keys.sql.close()
        self._private("dsn", dsn)
        self._private("kek", KEY)
        command = [sys.executable, "-m", "tests.support.signing_stack", "--dir", str(self.folder), "serve"]
        with (self.folder / "serve.log").open("wb") as log:
            serving = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (self.folder / "pid").write_text(str(serving.pid))
        deadline = time.monotonic() + _SECONDS
        while not (self.folder / "urls.json").exists():
            if serving.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((self.folder / "serve.log").read_text())
            time.sleep(0.05)
        self._write_inventory(dsn)

    def down(self) -> None:
        """Stop what runs; the folder goes too."""
        if (self.folder / "pid").exists():
            pid = int((self.folder / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and str(self.folder).encode() in command.read_bytes():
                os.kill(pid, signal.SIGTERM)
        if (self.folder / "server" / "server.json").exists():
            PostgresServer(self.folder / "server").remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _private(self, name: str, content: str) -> None:
        (self.folder / name).touch(0o600)
        (self.folder / name).write_text(content)

    def _write_inventory(self, dsn: str) -> None:
        urls = self._urls
        purge = {"url": f"{urls['edge']}/purge", "method": "POST"}
        edge = {"name": "edge", "hosts": "edge", "url": f"{urls['edge']}/jwks.json", "within": "30s"}
        secret = {
            "kind": "signing_key",
            "generate": EC,
            "key_table": {"database": "app", "shape": "flags", "key_from": {"file": str(self.folder / "kek")}},
            "window": _FIGURES,
            "jwks": [
                {"name": "issuer", "hosts": "db1", "url": f"{urls['issuer']}/jwks.json", "within": "30s"},
                {**edge, "refresh": "purge", "purge": purge},
            ],
            "cryptoperiod": "90d",
        }
        catalog = {
            "keyturn_state_host": "db1",
            "keyturn_databases": {"app": {"hosts": "db1", "dsn": dsn}},
            "keyturn_secrets": {NAME: secret},
        }
        hosts = {host: {"keyturn_state_dir": str(self.folder / host / "state")} for host in ("db1", "edge")}
        self._private("inventory.yml", yaml.safe_dump({"all": {"vars": {**LOCAL, **catalog}, "hosts": hosts}}))

    # -- issuer and gateway --------------------------------------------------------------------------------------

    @property
    def _urls(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "urls.json").read_text())
        return found

    def _answer(self, asked: Asked) -> tuple[int, dict[str, str], str]:
        """``/jwks.json`` has every enabled key; ``/token`` is signed with the current one."""
        keys = self._keys()
        with keys.sql:
            if asked.path == "/jwks.json":
                return 200, {"Cache-Control": "max-age=300"}, json.dumps({"keys": published_jwks(keys.sql)})
            kid = keys.signing()[""]
            private: Any = keys.private_key(kid)
            return 200, {}, jwt.encode({"sub": "client"}, private, "ES256", headers={"kid": kid})

    def _keys(self) -> Keys:
        return Keys((self.folder / "dsn").read_text(), self.folder / "unused", "flags", create=False)

    def serve(self) -> None:
        """Answer until a signal comes."""
        with ExitStack() as running:
            issuer = running.enter_context(endpoint(self._answer))
            edge = running.enter_context(gateway(f"{issuer.url}/jwks.json"))
            (self.folder / "urls.new").write_text(json.dumps({"issuer": issuer.url, "edge": edge.here.url}))
            (self.folder / "urls.new").rename(self.folder / "urls.json")
            signal.pause()

    def _token(self) -> str:
        with urllib.request.urlopen(f"{self._urls['issuer']}/token", timeout=10) as answer:
            return str(answer.read().decode())

    def _lets_in(self, token: str) -> bool:
        request = urllib.request.Request(f"{self._urls['edge']}/api", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10):
                return True
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            return False

    # -- judging -------------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Keep a token of now."""
        self._private("token", self._token())

    def judge(self, expected: str) -> str:
        """What became of the marked token and of the key that signed it.

        :raises SystemExit: where that is not what is expected.
        """
        before, now = (self.folder / "token").read_text(), self._token()
        moved = jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(now)["kid"]
        keys = self._keys()
        with keys.sql:
            ((current,),) = keys.ask("SELECT count(*) FROM {} WHERE is_current AND enabled")
        sound = current == 1
        told = (
            f"the issuer signs with {'another key' if moved else 'the key of before'}, one key is "
            f"{'current' if sound else 'NOT current'}; the gateway lets in: a token of now {self._lets_in(now)}, "
            f"a token of before {self._lets_in(before)}"
        )
        wanted = {"turned": (True, True, True), "retired": (True, True, False), "back": (False, True, True)}[expected]
        if (moved, self._lets_in(now), self._lets_in(before)) != wanted or not sound:
            raise SystemExit(f"expected {expected}, and {told}")
        return f"{expected}: {told}"

    # -- interrupting --------------------------------------------------------------------------------------------

    def _reached(self, phase: str) -> bool:
        rotations = registry(self.state_dir)["rotations"].values()
        if phase == "retire":  # no phase of a rotation: the register says it by the status
            return any(rotation["status"] == "retiring" for rotation in rotations)
        return any(phase in rotation["entered"] for rotation in rotations if rotation["status"] == "open")

    def interrupt(self, playbook: str, phases: list[str], arguments: list[str]) -> str:
        """Run a playbook, killed once in each phase, to its end.

        :raises SystemExit: where a phase is not reached, or the last run fails.
        """
        for number, phase in enumerate(phases):
            controller = Controller(self.folder / f"controller-{playbook}-{number}")
            process = controller.start(self.inventory, playbook, *arguments)
            deadline = time.monotonic() + _SECONDS
            while not self._reached(phase):
                if process.poll() is not None or time.monotonic() > deadline:
                    output = process.communicate()[0] if process.poll() is not None else ""
                    raise SystemExit(f"{playbook} did not enter {phase}: {output}")
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            kill_marked(controller)
            process.communicate()
        ended = Controller(self.folder / f"controller-{playbook}").run(self.inventory, playbook, *arguments)
        if ended.code != 0:
            raise SystemExit(f"{playbook} ended with exit code {ended.code}: {ended.output}")
        return f"{playbook} was killed in {', '.join(phases)}, and ended with exit code 0 when it was run again"


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.signing_stack", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "serve", "mark"):
        commands.add_parser(name)
    commands.add_parser("judge").add_argument("expected", choices=["turned", "retired", "back"])
    interrupt = commands.add_parser("interrupt")
    interrupt.add_argument("playbook")
    interrupt.add_argument("phases", nargs="+")
    interrupt.add_argument("-e", dest="variables", action="append", default=[])
    given = parser.parse_args(arguments)
    stack = IssuerStack(given.dir)
    if given.command == "judge":
        print(stack.judge(given.expected))
    elif given.command == "interrupt":
        passed = [word for variable in given.variables for word in ("-e", variable)]
        print(stack.interrupt(given.playbook, given.phases, passed))
    else:
        getattr(stack, given.command)()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
