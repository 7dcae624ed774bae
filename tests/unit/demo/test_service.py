# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running service answers, and how it starts and ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from demo import cells, jws
from demo.daemon import PidFile, stop
from demo.postgres import free_port
from demo.stack import SECRET, Stack, StackError

from tests.unit.demo.asking import ask

_SERVICE = [sys.executable, "-m", "demo.service"]


def _until(condition: Any) -> None:
    """Wait for something that must come; a failure is a hang that the deadline ends."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def _one(stack: Stack, statement: Any, *values: object) -> Any:
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as connection:
        row = connection.execute(statement, values).fetchone()
    assert row is not None
    return row[0]


def _run(stack: Stack, statement: Any, *values: object) -> int:
    with psycopg.connect(stack.database.owner_dsn, autocommit=True) as connection:
        return connection.execute(statement, values).rowcount


def _change_key(stack: Stack, text: str) -> None:
    """Another value for the key in every dotenv file; none when the text is empty."""
    for host in ("api1", "api2"):
        lines = stack.env_file(host).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.startswith(SECRET)]
        stack.env_file(host).write_text("\n".join([*kept, f"{SECRET}={text}"]), encoding="utf-8")


_OTHER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


# -- answers -----------------------------------------------------------------------------------------------------------


def test_a_signature_needs_a_token_and_a_readable_key(common_stack: Stack) -> None:
    """Both instances sign with the account's newest key."""
    token = common_stack.seed.tokens[0]
    newest = _one(
        common_stack,
        "SELECT kid::text FROM jwks_keys WHERE account_id = %s ORDER BY created_at DESC LIMIT 1",
        token.account_id,
    )
    body = {"account_id": token.account_id, "payload": {"sub": "a"}}
    for url in common_stack.urls:
        status, answer = ask(url, "POST", "/sign", body, token.token)
        assert (status, answer["kid"]) == (200, newest)
        published = {key["kid"]: key for key in ask(url, "GET", f"/jwks/{token.account_id}")[1]["keys"]}
        assert jws.verify(answer["jws"], published[newest]) == {"sub": "a"}
        assert set(published[newest]) == {"alg", "kty", "n", "e", "kid", "iat"}


#: An id that no row has; the same in every process, since it stands in test names.
_NOBODY = "00000000-0000-4000-8000-00000000dead"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/sign", {}, 400, "id"),
        ("POST", "/sign", {"account_id": str(uuid.uuid4())}, 400, "payload"),
        ("POST", "/sign", {"account_id": str(uuid.uuid4()), "payload": {}}, 401, "token"),
        ("POST", "/keys", {"account_id": str(uuid.uuid4()), "v": "1"}, 400, "v"),
        ("GET", f"/keys/{_NOBODY}", None, 404, "id"),
        ("PUT", f"/keys/{_NOBODY}", {"v": 1}, 404, "id"),
        ("PUT", f"/keys/{_NOBODY}", {"v": True}, 400, "v"),
        ("DELETE", f"/keys/{_NOBODY}", None, 404, "id"),
        ("DELETE", "/keys/nonsense", None, 400, "id"),
        ("GET", "/nowhere", None, 404, "path"),
    ],
)
def test_what_cannot_be_done_is_refused(
    common_stack: Stack, method: str, path: str, body: dict[str, Any] | None, status: int, error: str
) -> None:
    """With the reason in one word."""
    assert ask(common_stack.urls[0], method, path, body) == (status, {"error": error})


def test_a_token_of_another_account_is_refused(common_stack: Stack) -> None:
    """A good token is not enough."""
    first, other = common_stack.seed.tokens[0], common_stack.seed.tokens[1]
    assert first.account_id != other.account_id
    body = {"account_id": other.account_id, "payload": {}}
    assert ask(common_stack.urls[0], "POST", "/sign", body, first.token) == (403, {"error": "account"})


def test_a_row_is_made_changed_shown_and_deleted(common_stack: Stack) -> None:
    """Through both instances; it lies encrypted under the held key, and only kid and counter are told."""
    one, two = common_stack.urls
    account = common_stack.seed.accounts[0]
    row_id = str(uuid.uuid4())
    status, made = ask(one, "POST", "/keys", {"id": row_id, "account_id": account, "v": 5})
    assert (status, set(made), made["v"]) == (201, {"id", "kid", "v"}, 5)
    assert ask(two, "POST", "/keys", {"id": row_id, "account_id": account}) == (409, {"error": "id"})
    assert ask(two, "PUT", f"/keys/{row_id}", {"v": 6}) == (200, {**made, "v": 6})
    assert ask(one, "GET", f"/keys/{row_id}") == (200, {**made, "v": 6})
    cell = _one(common_stack, "SELECT private_jwk FROM jwks_keys WHERE id = %s", row_id)
    assert not cells.is_plaintext(cell)
    assert cells.read_jwk(cell, common_stack.key())["v"] == 6
    assert ask(one, "DELETE", f"/keys/{row_id}") == (200, {"id": row_id})
    assert ask(two, "GET", f"/keys/{row_id}") == (404, {"error": "id"})


def test_a_row_in_clear_is_encrypted_when_it_is_changed(stack: Stack) -> None:
    """Both forms are read; a change writes under the held key."""
    with psycopg.connect(stack.database.owner_dsn) as connection:
        found = connection.execute(r"SELECT id::text, private_jwk FROM jwks_keys WHERE left(private_jwk, 1) = '{'")
        rows = found.fetchall()
    assert sorted("__plain__" in cell for _first, cell in rows) == [False, False, True, True]
    for row_id, _rest in rows:
        assert ask(stack.urls[0], "GET", f"/keys/{row_id}")[1]["v"] == stack.seed.rows[row_id]
        assert ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 7})[0] == 200
        assert not cells.is_plaintext(_one(stack, "SELECT private_jwk FROM jwks_keys WHERE id = %s", row_id))


def test_a_missing_lookup_is_filled_on_use(stack: Stack) -> None:
    """Slow once, then fast; the log says which."""
    assert _run(stack, "UPDATE api_tokens SET token_lookup = NULL") == 30
    token = stack.seed.tokens[25]  # its digest is under bcrypt
    body = {"account_id": token.account_id, "payload": {}}
    log = stack.log_file("api1")
    assert ask(stack.urls[0], "POST", "/sign", body, token.token)[0] == 200
    assert "auth.token phase=full_scan" in log.read_text(encoding="utf-8")
    assert "auth.token phase=fast_lookup hit=true" not in log.read_text(encoding="utf-8")
    key = stack.key()
    assert key is not None
    stored = _one(stack, "SELECT token_lookup FROM api_tokens WHERE token_id = %s", token.token_id)
    assert stored == cells.token_lookup(token.token, key)
    assert ask(stack.urls[0], "POST", "/sign", body, token.token)[0] == 200
    assert "auth.token phase=fast_lookup hit=true" in log.read_text(encoding="utf-8")


def test_trap_21_a_lookup_filled_by_an_old_service_stays_stale(stack: Stack) -> None:
    """Cleared too early, it is filled under the old key; the new service hides that by a scan, the judge sees it."""
    token = stack.seed.tokens[0]
    body = {"account_id": token.account_id, "payload": {}}
    _run(stack, "UPDATE api_tokens SET token_lookup = NULL")
    assert ask(stack.urls[0], "POST", "/sign", body, token.token)[0] == 200
    _run(stack, "DELETE FROM jwks_keys WHERE left(private_jwk, 1) <> '{'")  # what is left needs no key
    _change_key(stack, _OTHER_KEY)
    stack.restart_services()
    assert stack.verify_lookups().problems == {token.token_id: "stale-lookup"}
    before = stack.log_file("api1").read_text(encoding="utf-8").count("auth.token phase=full_scan")
    ask(stack.urls[0], "POST", "/sign", body, token.token)
    after = stack.log_file("api1").read_text(encoding="utf-8").count("auth.token phase=full_scan")
    assert after == before + 1
    assert stack.verify_lookups().problems == {token.token_id: "stale-lookup"}


def test_trap_13_the_key_is_read_once_at_the_start(stack: Stack) -> None:
    """A changed file changes nothing until the restart; then the old rows are unreadable: 500 and unhealthy."""
    row_id = next(row_id for row_id, v in stack.seed.rows.items() if v == 20)
    token = stack.seed.tokens[0]
    body = {"account_id": token.account_id, "payload": {}}
    _change_key(stack, _OTHER_KEY)
    assert ask(stack.urls[0], "GET", f"/keys/{row_id}")[0] == 200
    assert ask(stack.urls[0], "GET", "/health") == (200, {"status": "ok"})
    stack.restart_services()
    for method, path, sent in (
        ("GET", f"/keys/{row_id}", None),
        ("PUT", f"/keys/{row_id}", {"v": 1}),
        ("POST", "/keys", {"account_id": token.account_id}),
        ("POST", "/sign", body),
    ):
        assert ask(stack.urls[0], method, path, sent, token.token) == (500, {"error": "decrypt"})
    assert ask(stack.urls[0], "GET", "/health") == (503, {"status": "decrypt"})


def test_without_a_key_rows_are_written_in_clear(stack: Stack) -> None:
    """Plaintext mode: marked JSON, no lookups; encrypted rows are unreadable."""
    _change_key(stack, "")
    _run(stack, "DELETE FROM jwks_keys WHERE left(private_jwk, 1) <> '{'")
    _run(stack, "UPDATE api_tokens SET token_lookup = NULL")
    stack.restart_services()
    assert ask(stack.urls[0], "GET", "/health") == (200, {"status": "ok"})
    token = stack.seed.tokens[0]
    made = ask(stack.urls[0], "POST", "/keys", {"account_id": token.account_id, "v": 3})[1]
    cell = json.loads(_one(stack, "SELECT private_jwk FROM jwks_keys WHERE id = %s", made["id"]))
    assert (cell["__plain__"], cell["jwk"]["v"]) == (True, 3)
    body = {"account_id": token.account_id, "payload": {}}
    assert ask(stack.urls[0], "POST", "/sign", body, token.token)[0] == 200
    assert _one(stack, "SELECT count(token_lookup) FROM api_tokens") == 0


def test_without_the_database_it_is_unhealthy_and_comes_back_by_itself(stack: Stack) -> None:
    """503 means that nothing was done; a crash of the database does not need a restart of the service."""
    row_id = next(iter(stack.seed.rows))
    assert ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 1})[0] == 200
    stack.crash_database()
    try:
        assert ask(stack.urls[0], "GET", "/health") == (503, {"status": "database"})
        assert ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 2}) == (503, {"error": "database"})
    finally:
        stack.restart_database()
    assert ask(stack.urls[0], "GET", "/health") == (200, {"status": "ok"})
    assert ask(stack.urls[0], "GET", f"/keys/{row_id}")[1]["v"] == 1


_CUT_IN_COMMIT = """
CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER cut AFTER UPDATE ON jwks_keys DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION cut();
"""


def test_a_connection_lost_in_the_commit_is_told_apart(stack: Stack) -> None:
    """504: the change may have happened; 503 would say that it did not."""
    _run(stack, _CUT_IN_COMMIT)
    row_id = next(iter(stack.seed.rows))
    assert ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 1}) == (504, {"error": "uncertain"})


def test_trap_25_nothing_secret_is_logged(stack: Stack) -> None:
    """No key, token, private member or password in the log of the service or of the database."""
    token = stack.seed.tokens[0]
    body = {"account_id": token.account_id, "payload": {}}
    row_id = next(iter(stack.seed.rows))
    for sent in (body, {"account_id": "x"}):
        ask(stack.urls[0], "POST", "/sign", sent, token.token)
    ask(stack.urls[0], "POST", "/sign", body, "d2_unknown-token")
    ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 1})
    jwk = cells.read_jwk(_one(stack, "SELECT private_jwk FROM jwks_keys WHERE id = %s", row_id), stack.key())
    key_line = stack.env_file("api1").read_text(encoding="utf-8").split(f"{SECRET}=")[1].strip()
    password = stack.database.app_dsn.split(":")[2].split("@")[0]
    written = stack.log_file("api1").read_text(encoding="utf-8")
    assert "path=/sign status=200" in written
    for secret in (token.token, "d2_unknown-token", key_line, jwk["d"], jwk["p"], password):
        assert secret not in written
    server_log = stack.server.log.read_text(encoding="utf-8", errors="replace")
    assert "CREATE ROLE" in server_log
    assert password not in server_log, "trap 45"


def test_odd_requests_do_no_harm(common_stack: Stack) -> None:
    """Bad JSON, a body that is no object, one that is too long."""
    for raw, status in ((b"{", 400), (b"[1]", 400), (b"x" * 70_000, 413)):
        port = int(common_stack.urls[0].rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest("POST", "/keys")
        connection.putheader("Content-Length", str(len(raw)))
        connection.endheaders()
        if status == 400:
            connection.send(raw)
        assert connection.getresponse().status == status
        connection.close()
    assert ask(common_stack.urls[0], "GET", "/health")[0] == 200


# -- start and stop ----------------------------------------------------------------------------------------------------


def _pid(stack: Stack) -> int:
    return int((stack.host_folder("api1") / "service.pid").read_text(encoding="utf-8"))


def _is_free(path: Path) -> bool:
    """Whether no process holds this pid file."""
    pid_file = PidFile(path)
    try:
        return pid_file.try_lock()
    finally:
        pid_file.close()


def test_starting_and_stopping_twice_changes_nothing(stack: Stack) -> None:
    """The same process goes on; what is stopped stays stopped."""
    pid = _pid(stack)
    stack.start_services()
    assert _pid(stack) == pid
    stack.stop_services()
    stack.stop_services()
    with pytest.raises(ConnectionRefusedError):
        ask(stack.urls[0], "GET", "/health")
    assert _is_free(stack.host_folder("api1") / "service.pid")
    stack.start_services("api1")
    assert ask(stack.urls[0], "GET", "/health")[0] == 200
    assert _pid(stack) != pid


def test_a_pid_left_by_a_killed_service_deceives_nobody(stack: Stack) -> None:
    """Neither start nor stop takes it, or whoever has that pid now, for the service."""
    os.kill(_pid(stack), signal.SIGKILL)
    pid_file = stack.host_folder("api1") / "service.pid"
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        _until(lambda: _is_free(pid_file))
        pid_file.write_text(f"{bystander.pid}\n", encoding="utf-8")
        assert stop(pid_file) is False
        assert bystander.poll() is None
        pid_file.write_text(f"{bystander.pid}\n", encoding="utf-8")
        stack.start_services("api1")
        assert ask(stack.urls[0], "GET", "/health")[0] == 200
        stack.stop_services("api1")
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")


def test_stopping_finishes_the_open_requests(stack: Stack) -> None:
    """A change that waits for a row is answered before the process ends."""
    row_id = next(iter(stack.seed.rows))
    answers: list[tuple[int, dict[str, Any]]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(stack.urls[0], "PUT", f"/keys/{row_id}", {"v": 9})))
    stopping = threading.Thread(target=lambda: stack.stop_services("api1"))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def refuses() -> bool:
        try:
            ask(stack.urls[0], "GET", "/health")
        except OSError:
            return True
        return False

    with psycopg.connect(stack.database.owner_dsn) as holder:
        holder.execute("SELECT 1 FROM jwks_keys WHERE id = %s FOR UPDATE", [row_id])
        asking.start()
        _until(lambda: _one(stack, waiting) == 1)
        stopping.start()
        _until(refuses)
        assert answers == []
    asking.join()
    stopping.join()
    assert [status for status, _body in answers] == [200]
    assert ask(stack.urls[1], "GET", f"/keys/{row_id}")[1]["v"] == 9


def test_a_start_that_fails_says_why_without_the_value(stack: Stack) -> None:
    """A bad key, a missing file, a port that is taken: exit 1, nothing runs."""
    stack.stop_services("api1")
    _change_key(stack, "c2hvcnQ")
    with pytest.raises(StackError, match="JWK_AES_KEY: the key has 5 bytes, not 32") as caught:
        stack.start_services("api1")
    assert "c2hvcnQ" not in str(caught.value)
    stack.env_file("api1").write_text("X=1\n", encoding="utf-8")
    with pytest.raises(StackError, match="DATABASE_URL is missing"):
        stack.start_services("api1")
    stack.env_file("api1").write_text(stack.env_file("api2").read_text(encoding="utf-8"), encoding="utf-8")
    _change_key(stack, _OTHER_KEY)
    taken = stack.urls[1].rsplit(":", 1)[1]
    folder = stack.host_folder("api1")
    files = ["--env", str(stack.env_file("api1")), "--log", str(folder / "x.log"), "--pid-file", str(folder / "x.pid")]
    result = subprocess.run([*_SERVICE, *files, "--port", taken], capture_output=True, text=True, check=False)
    assert (result.returncode, f"port {taken}: Address already in use" in result.stderr) == (1, True)
    assert stop(folder / "x.pid") is False


def test_it_runs_in_the_foreground_too(common_stack: Stack, tmp_path: Path) -> None:
    """Until SIGTERM, with exit 0; a second one beside it is refused."""
    port = str(free_port())
    command = [
        *_SERVICE,
        "--foreground",
        "--env",
        str(common_stack.env_file("api1")),
        "--pid-file",
        str(tmp_path / "f.pid"),
    ]
    process = subprocess.Popen([*command, "--port", port], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert f"listening port={port} encrypted=true" in process.stderr.readline()
    assert ask(f"http://127.0.0.1:{port}", "GET", "/health")[0] == 200
    second = subprocess.run([*command, "--port", port], capture_output=True, text=True, check=False)
    assert (second.returncode, "running already" in second.stderr) == (1, True)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].strip().endswith("ended")
    assert process.returncode == 0


def test_starting_needs_its_options(tmp_path: Path) -> None:
    """Exit 2 and a word about them."""
    result = subprocess.run([*_SERVICE, "--pid-file", str(tmp_path / "p")], capture_output=True, text=True, check=False)
    assert (result.returncode, "--env, --port and --log" in result.stderr) == (2, True)
