# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing leaked: known secrets are searched for in every byte that runs say and leave behind.

Known are all keys, passwords and plaintext cells of some stacks, the fingerprint keys, and the keys that hosts make for
one run (a service that starts in the middle of the run copies those). The runs are at ``-vvvv --diff`` with kept remote
files and tracebacks: a check, rotations, a retirement, roll-backs, a failure in every phase, modules and a controller
that crash with a value in the text of the exception, broken files, and modules used by themselves. Searched are output,
log, fact cache, all temporary folders, all that callbacks see, statistics, evidence, reports, arguments and environment
of every program (traced, not sampled), and the database's log with every statement and parameter. The search has to
find the secrets where they belong, and what is planted everywhere else.

The PostgreSQL wheel has no contrib, so there is no ``pg_stat_statements``; what it would keep, the statements without
their parameters, is all in the log. ``pg_stat_activity`` is searched too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import psycopg
import pytest
import yaml
from demo import cells
from demo.postgres import PostgresServer
from demo.stack import APIS, SECRET, Stack

from tests.integration.test_going_back import verify_impossible
from tests.integration.test_rotation import status_of
from tests.support.canaries import Canaries, Search, forms
from tests.support.catalog_file import change_secret, edit, load
from tests.support.controller import Ended
from tests.support.watched import Watched, copy_collection

_PRIVATE = ("d", "p", "q", "dp", "dq", "qi")
_KEEP = """import pathlib, os, secrets, shutil, sys
folder, hosts = pathlib.Path({folder!r}), pathlib.Path({hosts!r})
for key in hosts.glob("*/state/host/session-*.key"):
    shutil.copyfile(key, folder / secrets.token_hex(8))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_PICKY = """import hashlib, os, pathlib, sys
content = pathlib.Path({path!r}).read_bytes()
if hashlib.sha256(content).hexdigest() != {digest!r}:
    sys.exit(f"unknown settings: {{content}}")
os.execvp(sys.argv[1], sys.argv[1:])
"""
#: Lines that make a part of the collection crash with a value in the text of the exception.
_CRASHES = {
    "backup": (
        "plugins/module_utils/backup/make.py",
        """
def _rehearse(copies, backup_dir, sources):
    raise ValueError(f"cannot compare {dict(sources)!r}")
""",
    ),
    "stage": (
        "plugins/plugin_utils/secret_arguments.py",
        """
_bring = bring


def bring(*args: Any) -> bytes:
    raise ValueError(f"cannot use {_bring(*args)!r}")
""",
    ),
    "migrate": (
        "plugins/module_utils/envelopes/envelope.py",
        """
def _crash(self, plaintexts, associated=None):
    if set(plaintexts) == {b"keyturn"}:  # how long one takes is measured with this
        return _seal_many(self, plaintexts, associated)
    raise ValueError(f"cannot seal {list(plaintexts)!r}")


_seal_many, Envelope.seal_many = Envelope.seal_many, _crash
""",
    ),
    "promote": (
        "plugins/module_utils/stores/__init__.py",
        """
_commit = Workspace.commit


def _crash(self):
    if self.changes:
        raise ValueError(f"cannot write {self.changes!r}")
    return _commit(self)


Workspace.commit = _crash
""",
    ),
}
_ALONE = """
- hosts: db
  gather_facts: false
  vars:
    session: {state_dir: "$folder/state", rotation_id: alone}
    new: "{{ lookup('ansible.builtin.file', '$folder/new') }}"
    old: "{{ lookup('ansible.builtin.file', '$folder/old') }}"
    dsn: "{{ lookup('ansible.builtin.file', '$folder/dsn') }}"
    column: {table: jwks_keys, column: private_jwk, envelope: aes256gcm-b64, plaintext: encrypt}
    stores: [{type: env_file, path: "$folder/.env"}]
  module_defaults:
    group/keyturn.rotation.session: "{{ session }}"
  tasks:
    - name: Sign with a key
      keyturn.rotation.generate_secret:
        {type: jwt, payload: {sub: me}, lifetime: 1d, dest: "$folder/token", key: {value: "{{ new }}"}}
    - name: Stage and promote
      keyturn.rotation.secret:
        state: "{{ item }}"
        secrets: [{name: ALONE, stores: "{{ stores }}", new: {value: "{{ new }}"}}]
      loop: [staged, promoted]
    - name: Stage what the stores do not hold
      keyturn.rotation.secret:
        state: staged
        rotation_id: drifted
        secrets:
          - {name: ALONE, stores: "{{ stores }}", new: {value: "{{ dsn }}"}, old: {value: "{{ old }}"}}
      register: drifted
      failed_when: drifted.code != 'store-drifted'
    - name: Name two sources
      keyturn.rotation.secret:
        state: staged
        rotation_id: two
        secrets: [{name: TWO, new: {value: "{{ new }}", file: /nowhere}}]
      register: two
      failed_when: two.code != 'reference-invalid'
    - name: Count
      keyturn.rotation.reencrypt_info:
        name: ALONE
        database: app
        dsn: {value: "{{ dsn }}"}
        columns: ["{{ column }}"]
        keys: {old: {value: "{{ old }}"}, new: {value: "{{ new }}"}}
        search: true
    - name: Say which envelope the column has
      keyturn.rotation.reencrypt_info:
        name: ALONE
        database: app
        dsn: {value: "{{ dsn }}"}
        columns: ["{{ column }}"]
        keys: {old: {value: "{{ old }}"}, new: {value: "{{ new }}"}}
        detect: true
        search: true
    - name: Encrypt and go back
      keyturn.rotation.reencrypt:
        state: "{{ item }}"
        name: ALONE
        database: app
        dsn: {value: "{{ dsn }}"}
        columns: ["{{ column }}"]
        keys: {old: {value: "{{ old }}"}, new: {value: "{{ new }}"}}
      loop: [prepared, rolled_back]
    - name: Encrypt with keys that are none
      keyturn.rotation.reencrypt:
        state: prepared
        name: ALONE
        database: app
        dsn: {value: "{{ dsn }}"}
        columns: ["{{ column }}"]
        keys: {old: {value: "{{ dsn }}"}, new: {value: "{{ new }}"}}
      register: wrong
      failed_when: wrong.code != 'key-invalid'
    - name: Probe with a value
      keyturn.rotation.secret_probe:
        probes: [{type: command, command: ["false"], version: new, secret: ALONE}]
        values: {ALONE: {new: {file: "$folder/state/secrets/ALONE/alone/new"}}}
      register: probed
      failed_when: probed.code != 'probe-failed'
    - name: Probe with a value in the arguments, which is refused
      keyturn.rotation.secret_probe:
        probes: [{type: command, command: ["false"], version: new, secret: ALONE}]
        values: {ALONE: {new: {value: "{{ new }}"}}}
      register: refused
      failed_when: refused.code != 'reference-invalid'
"""
_PLANTED = """
- hosts: db
  gather_facts: false
  vars: {planted: "$planted"}
  tasks:
    - ansible.builtin.command: {argv: ["true", "{{ planted }}"]}
    - ansible.builtin.command: {argv: ["true", "{{ planted }}"]}
      async: 60
      poll: 0
      register: job
    - ansible.builtin.async_status: {jid: "{{ job.ansible_job_id }}"}
      register: done
      until: done.finished
      retries: 600
      delay: 0.1
    - ansible.builtin.set_fact: {fact: "{{ planted }}", cacheable: true}
    - ansible.builtin.set_stats: {data: {number: "{{ planted | length }}", text: "{{ planted }}"}}
    - ansible.builtin.copy: {content: "{{ planted }}", dest: "$folder/left/tmp/copy", mode: "0600"}
"""


@dataclass
class Place:
    """A stack, the controller that turns its secret, and how its runs ended."""

    stack: Stack
    controller: Watched
    ended: dict[str, Ended] = field(default_factory=dict)

    def run(self, name: str, playbook: str, *arguments: str, **variables: Any) -> Ended:
        """One run, remembered by name."""
        options = {} if playbook == "validate" else {"only": SECRET, **variables}
        self.ended[name] = self.controller.rotation(name, self.stack.inventory, playbook, *arguments, **options)
        return self.ended[name]


class Trial:
    """All runs, and what is known of their secrets.

    :param folder: stacks lie in ``stacks``, controllers in ``controllers``, what a person gives in ``given``.
    """

    def __init__(self, folder: Path, server: PostgresServer, jwks: list[dict[str, str]], stacks: ExitStack) -> None:
        self.folder = folder
        self.given = folder / "given"
        self.given.mkdir(mode=0o700)
        self.canaries = Canaries()
        self.places: dict[str, Place] = {}
        self.log_from = server.log.stat().st_size
        self.activity = b""
        self._server = server
        self._jwks = jwks
        self._stacks = stacks
        for number, jwk in enumerate(jwks):
            for name in _PRIVATE:
                self.canaries.add(f"plaintext cell: jwk {number} {name}", jwk[name])

    def place(self, name: str, environment: Mapping[str, str] | None = None, **options: Any) -> Place:
        """A stack whose new key is a person's own, so that it is known whatever happens."""
        (self.folder / "stacks").mkdir(exist_ok=True)
        stack = self._stacks.enter_context(
            Stack(
                self.folder / "stacks" / name,
                server=self._server,
                database=f"t{uuid.uuid4().hex[:12]}",
                jwks=self._jwks,
                **{"rows": 120, "tokens": 12, "apis": APIS[:1], **options},
            )
        )
        self.places[name] = Place(stack, Watched(self.folder / "controllers" / name, environment))
        self._know(name, stack)
        own = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        self._add_key(f"{name}: new key", own)
        change_secret(stack, value_from={"file": str(self._give(f"{name}.key", own))})
        self._keep_session_keys(name, stack)
        return self.places[name]

    def _give(self, name: str, text: str) -> Path:
        path = self.given / name
        path.touch(0o600)
        path.write_text(text + "\n")
        return path

    def _add_key(self, name: str, text: str) -> None:
        self.canaries.add(f"{name}, text", text)
        self.canaries.add(f"{name}, bytes", cells.parse_key(text))

    def _know(self, name: str, stack: Stack) -> None:
        database = stack.database
        for role, dsn in (("owner", database.owner_dsn), ("application", database.app_dsn)):
            self.canaries.add(f"{name}: password of the {role}", dsn.split(":")[2].split("@")[0])
        for number, token in enumerate(stack.seed.tokens):
            self.canaries.add(f"{name}: token {number}", token.token)
        key = stack.key()
        if key is not None:
            self._add_key(f"{name}: old key", base64.urlsafe_b64encode(key).decode().rstrip("="))

    def _keep_session_keys(self, name: str, stack: Stack) -> None:
        """Services that start in the middle of a run copy the keys that its hosts have then."""
        kept = self.given / f"{name}.session-keys"
        kept.mkdir(mode=0o700)
        script = self.given / f"{name}.py"
        script.write_text(_KEEP.format(folder=str(kept), hosts=str(stack.folder / "hosts")))
        variables = load(stack)
        for service in variables["keyturn_services"].values():
            service["start"] = [sys.executable, str(script), *service["start"]]
        edit(stack, variables)

    def learn(self) -> None:
        """Take in what was not known before the runs: keys that were made in them, and fingerprint keys."""
        for name, place in self.places.items():
            for number, path in enumerate(sorted((self.given / f"{name}.session-keys").iterdir())):
                self.canaries.add(f"{name}: session key {number}", path.read_bytes())
            fingerprint = place.stack.state_dir("db") / "fingerprint.key"
            if fingerprint.exists():
                self.canaries.add(f"{name}: fingerprint key", fingerprint.read_bytes())
            for host in place.stack.hosts:
                versions = place.stack.state_dir(host) / "secrets"
                for path in versions.rglob("new") if versions.is_dir() else ():
                    self._add_key(f"{name}: {path.parent.name} {host} new key", path.read_text())

    # -- the runs ------------------------------------------------------------------------------------------------

    def turn_and_retire(self) -> None:
        """A check, a rotation with every kind of probe, and its end."""
        place = self.place("turned", apis=APIS)
        probes = load(place.stack)["keyturn_secrets"][SECRET]["probes"]
        takes = {"version": "new"}
        url = f"{place.stack.url('api1')}/health"
        probes += [
            {"name": "takes", "hosts": "api1", "type": "command", "command": ["sh", "-c", "cat >&2"], **takes},
            {"name": "asks", "hosts": "api1", "type": "http", "url": url, "headers": {"X-Key": "{value}"}, **takes},
        ]
        change_secret(place.stack, probes=probes)
        place.run("check", "rotate", "--check")
        place.run("rotate", "rotate", reason="scheduled")
        place.run("status", "status")
        place.run("retire", "retire", confirm=SECRET)

    def adopt_and_go_back(self) -> None:
        """The first key, which the run makes, a row from then on, and back: that row's plaintext goes to the server."""
        place = self.place("adopted", {"ANSIBLE_DEBUG": "1"}, encrypted=False)
        change_secret(place.stack, value_from=None)
        place.run("rotate", "rotate")
        key = place.stack.key()
        assert key is not None, place.ended["rotate"].output[-3000:]
        self._add_key("adopted: key of the run", base64.urlsafe_b64encode(key).decode().rstrip("="))
        cell = cells.write_jwk({**self._jwks[0], "kid": str(uuid.uuid4()), "v": 0}, key)
        with psycopg.connect(place.stack.database.owner_dsn) as connection:
            connection.execute(
                "INSERT INTO jwks_keys (account_id, kid, public_jwk, private_jwk)"
                " VALUES (gen_random_uuid(), gen_random_uuid(), '{}', %s)",
                (cell,),
            )
        place.run("rollback", "rollback")

    def fail_in_restart(self) -> None:
        """A service refuses to start with another dotenv file than the one it has, and prints what it has read."""
        place = self.place("failed_in_restart", apis=APIS)
        env = place.stack.env_file("api2")
        script = self.given / "picky.py"
        script.write_text(_PICKY.format(path=str(env), digest=hashlib.sha256(env.read_bytes()).hexdigest()))
        variables = load(place.stack)
        service = variables["keyturn_services"]["api2"]
        service["start"] = [sys.executable, str(script), *service["start"]]
        edit(place.stack, variables)
        place.run("rotate", "rotate")

    def fail_in_verify(self) -> None:
        """A probe does not pass."""
        place = self.place("failed_in_verify")
        verify_impossible(place.stack)
        place.run("rotate", "rotate")

    def crash(self, phase: str) -> None:
        """A crash in a phase, the exception's text with a value in it."""
        path, lines = _CRASHES[phase]
        copy = copy_collection(self.folder / "collections" / phase, {path: lines})
        place = self.place(f"crashed_in_{phase}", {"ANSIBLE_COLLECTIONS_PATH": str(copy)})
        place.run("rotate", "rotate")

    def mishaps(self) -> None:
        """A value where none belongs, a broken connection string, and a broken dotenv file."""
        place = self.place("mishaps", apis=APIS)
        variables = load(place.stack)
        own = variables["keyturn_secrets"][SECRET].pop("value_from")
        key = place.stack.env_file("api1").read_text().split()[-1].partition("=")[2]
        for number, wrong in enumerate((key, {"file": str(self.given), "value": key})):
            variables["keyturn_secrets"][SECRET]["value_from"] = wrong
            edit(place.stack, variables)
            place.run(f"validate {number}", "validate")
        variables["keyturn_secrets"][SECRET]["value_from"] = own
        edit(place.stack, variables)
        path = place.stack.folder / "group_vars/all/secrets.yml"
        dsn = place.stack.database.owner_dsn
        path.write_text(yaml.safe_dump({"vault_app_dsn": f"{dsn}?{dsn}=1"}))
        place.run("broken connection string", "rotate")
        path.write_text(yaml.safe_dump({"vault_app_dsn": dsn}))
        text = place.stack.env_file("api2").read_text()
        place.stack.env_file("api2").write_text(re.sub(f"^{SECRET}=(.*)$", rf'{SECRET}="\1', text, flags=re.M))
        place.run("broken dotenv file", "rotate")

    def use_modules_alone(self) -> None:
        """Modules in a person's own playbook, with values as arguments; nothing is kept on hosts then.

        Task arguments that callbacks see are the playbook's own, so they are left out.
        """
        environment = {
            "ANSIBLE_KEEP_REMOTE_FILES": "0",
            "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "0",
            "KEYTURN_DUMP_ARGS": "0",
        }
        place = self.place("alone", environment)
        folder = self.given / "alone"
        folder.mkdir(mode=0o700)
        key = base64.urlsafe_b64encode(place.stack.key() or b"").decode().rstrip("=")
        own = (self.given / "alone.key").read_text().strip()
        for name, text in (("new", own), ("old", key), ("dsn", place.stack.database.owner_dsn)):
            self._give(f"alone/{name}", text)
        self._give("alone/.env", f"ALONE={key}")
        playbook = self.given / "alone.yml"
        playbook.write_text(Template(_ALONE).substitute(folder=folder))
        place.ended["alone"] = place.controller.playbook("alone", playbook, place.stack.inventory)

    def run_all(self) -> None:
        """Everything, two at a time."""
        jobs: list[Callable[[], None]] = [
            self.turn_and_retire,
            self.adopt_and_go_back,
            self.mishaps,
            self.use_modules_alone,
            self.fail_in_restart,
            self.fail_in_verify,
            *(partial(self.crash, phase) for phase in _CRASHES),
        ]
        with ThreadPoolExecutor(2) as workers:
            for job in [workers.submit(job) for job in jobs]:
                job.result()
        with psycopg.connect(self._server.admin_dsn) as connection:
            rows = connection.execute("SELECT query FROM pg_stat_activity").fetchall()
        self.activity = repr(rows).encode()
        self.learn()

    # -- what is searched ----------------------------------------------------------------------------------------

    def log(self) -> bytes:
        """What the database server has logged since the runs began."""
        with self._server.log.open("rb") as stream:
            stream.seek(self.log_from)
            return stream.read()

    def search(self) -> Search:
        """Search all that the runs have said and left."""
        found = Search()
        self.canaries.search_files(found, [self.folder / "stacks", self.folder / "controllers"])
        self.canaries.search_bytes(found, "database log", self.log())
        self.canaries.search_bytes(found, "pg_stat_activity", self.activity)
        for name, place in self.places.items():
            for run in place.ended:
                self.canaries.search_bytes(found, f"programs of {name}: {run}", place.controller.programs(run))
        return found


@pytest.fixture(scope="module")
def trial(
    tmp_path_factory: pytest.TempPathFactory, server: PostgresServer, jwks: list[dict[str, str]]
) -> Iterator[Trial]:
    """All runs, done once."""
    with ExitStack() as stacks:
        made = Trial(tmp_path_factory.mktemp("leaks"), server, jwks, stacks)
        made.run_all()
        yield made


@pytest.fixture(scope="module")
def searched(trial: Trial) -> Search:
    """The one search over everything."""
    return trial.search()


def belongs(path: Path, trial: Trial) -> bool:
    """Whether a file is meant to hold secrets."""
    try:
        parts = path.relative_to(trial.folder / "stacks").parts[1:]
    except ValueError:
        return False
    if parts in [("stack.json",), ("seed.json",), ("group_vars", "all", "secrets.yml")]:
        return True
    if parts[0] != "hosts":
        return False
    inside = parts[2:]
    return inside in [(".env",), ("state", "fingerprint.key")] or inside[:2] in [
        ("state", "secrets"),
        ("state", "backups"),
    ]


def test_the_runs_ended_as_they_should(trial: Trial) -> None:
    codes = {f"{name}: {run}": ended.code for name, place in trial.places.items() for run, ended in place.ended.items()}
    good = ("turned", "adopted", "alone")
    expected = {run: 0 if run.partition(":")[0] in good else 2 for run in codes}
    outputs = "".join(ended.output[-3000:] for place in trial.places.values() for ended in place.ended.values())
    assert codes == expected, outputs
    for phase in _CRASHES:
        place = trial.places[f"crashed_in_{phase}"]
        assert "internal error ValueError" in place.ended["rotate"].output
        assert status_of(place.stack) == ["rolled_back"]
    assert "its start command ended with exit code 1" in trial.places["failed_in_restart"].ended["rotate"].output
    assert "never: refused" in trial.places["failed_in_verify"].ended["rotate"].output
    assert "the connection string does not work" in trial.places["mishaps"].ended["broken connection string"].output


def test_every_kind_of_secret_is_known(trial: Trial) -> None:
    names = " ".join(sorted(trial.canaries.names))
    for kind in ("old key, text", "new key, bytes", "password of the owner", "password of the application", "token 0"):
        assert f"turned: {kind}" in names
    assert "turned: fingerprint key" in names
    assert "plaintext cell: jwk 0 d" in names
    assert "adopted: key of the run, bytes" in names
    for place in ("turned", "adopted", "failed_in_verify"):  # runs that came as far as a restart
        assert f"{place}: session key {len(trial.places[place].stack.hosts) - 1}" in names


def test_no_secret_is_anywhere_but_where_it_belongs(trial: Trial, searched: Search) -> None:
    leaks = {place: found for place, found in searched.found.items() if not belongs(Path(place), trial)}
    assert leaks == {}
    print(f"{len(trial.canaries.names)} secrets, {searched.files} files, {searched.size / 1e6:.0f} MB")


def test_files_with_secrets_are_private(searched: Search) -> None:
    loose = {}
    for place in searched.found:
        path = Path(place)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o177:
            loose[place] = oct(mode)
        folder = path.parent
        while "state" in folder.parts:
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode != 0o700:
                loose[str(folder)] = oct(mode)
            folder = folder.parent
    assert loose == {}


def test_a_run_leaves_no_key_of_its_own(trial: Trial) -> None:
    left = [path for path in trial.folder.rglob("session-*.key") if trial.given not in path.parents]
    assert left == []
    runs = set()
    for place in trial.places.values():
        runs |= set(
            re.findall(rb"/tmp/keyturn-check-[0-9a-f]+-[a-z0-9]+", (place.controller.left / "dump").read_bytes())
        )
    assert runs
    assert [path for path in runs if os.path.lexists(path)] == []


# -- the search itself ---------------------------------------------------------------------------------------------


def test_the_search_finds_secrets_where_they_belong(trial: Trial, searched: Search) -> None:
    stack = trial.places["failed_in_verify"].stack
    for path, words in {
        stack.env_file("api1"): ("failed_in_verify: old key, text", "failed_in_verify: password of the application"),
        stack.folder / "group_vars/all/secrets.yml": ("failed_in_verify: password of the owner",),
        stack.folder / "seed.json": ("failed_in_verify: token 0",),
        stack.state_dir("db") / "fingerprint.key": ("failed_in_verify: fingerprint key",),
    }.items():
        for word in words:
            assert word in " ".join(searched.found[str(path)])
    everywhere = " ".join(searched.found)
    for host in stack.apis:
        assert f"{stack.state_dir(host)}/secrets/" in everywhere
        assert f"{stack.state_dir(host)}/backups/" in everywhere


@pytest.mark.parametrize("form", sorted({*forms(b"\x00\xff\x10"), *forms(b"text")}))
@pytest.mark.parametrize("before", range(8))
def test_the_search_finds_every_form_at_every_place(form: str, before: int) -> None:
    value = secrets.token_urlsafe(24).encode() if form == "json" else secrets.token_bytes(32)
    canaries = Canaries()
    canaries.add("it", value)
    noise = secrets.token_bytes(100 + before)
    assert canaries.find(noise + forms(value)[form] + secrets.token_bytes(50))
    assert canaries.find(noise + secrets.token_bytes(50)) == set()


@pytest.mark.parametrize("before", range(3))
def test_the_search_finds_a_part_of_what_was_encoded_with_other_text(before: int) -> None:
    value = secrets.token_bytes(32)
    canaries = Canaries()
    canaries.add("it", value)
    assert canaries.find(base64.b64encode(secrets.token_bytes(before) + value + b"and more"))
    assert canaries.find(value[:19])
    assert canaries.find(value.hex()[3:22].encode())


def test_what_is_planted_is_found_in_every_place(tmp_path: Path, server: PostgresServer, trial: Trial) -> None:
    planted = secrets.token_urlsafe(32)
    controller = Watched(tmp_path / "controller")
    playbook = tmp_path / "planted.yml"
    playbook.write_text(Template(_PLANTED).substitute(planted=planted, folder=controller.home))
    ended = controller.playbook("planted", playbook, trial.places["turned"].stack.inventory)
    assert ended.code == 0, ended.output
    canaries, found, log_from = Canaries(), Search(), server.log.stat().st_size
    canaries.add("it", planted)
    with psycopg.connect(server.admin_dsn) as connection:
        connection.execute("SELECT %s::text", (planted,))
    with server.log.open("rb") as log:
        log.seek(log_from)
        canaries.search_bytes(found, "database log", log.read())
    canaries.search_bytes(found, "programs", controller.programs("planted"))
    canaries.search_files(found, [controller.left])
    places = {"/".join(Path(place).relative_to(controller.left).parts[:1]) for place in found.found if "/" in place}
    assert places == {"async", "dump", "facts", "log", "output", "remote", "tmp"}
    assert {"database log", "programs"} <= set(found.found)
    assert json.dumps({"text": planted})[1:-1] in ended.output  # set_stats
    assert list((controller.left / "local").iterdir()) == []
