# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that keeps using both instances of the service and remembers what it wrote.

``python -m demo.client --url U1 --url U2 --seed seed.json --out F`` works until SIGTERM, then writes F: a summary and
the model. It prints ``running`` after its first served request. Each worker has rows of its own, so the model is exact;
a change whose answer was lost leaves both values possible, and that row is not touched again.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from demo import jws
from demo.schema import Seed, Token
from demo.verify import Report, verify, verify_lookups

__all__ = ["Client", "ClientOptions", "ClientProcess", "Outcome", "Report", "main", "verify", "verify_lookups"]

_WEIGHTS = {"sign": 30, "read": 30, "update": 25, "insert": 10, "delete": 5}
_REQUEST_SECONDS = 15.0
_PAUSE_SECONDS = 0.02
_SIGN_ATTEMPTS = 5

#: Status and body; None when the answer was lost.
_Reply = Optional[tuple[int, dict[str, Any]]]


class _StoppedError(Exception):
    """The client is to end; the request in hand was not carried out."""


@dataclass(frozen=True)
class ClientOptions:
    """How the client works.

    :param urls: base URLs of the instances.
    :param rate: requests a second, over all workers.
    :param failover: ask the other instance at once when one refuses, as a load balancer would.
    :param retry_seconds: how long a request that nobody takes is tried again before it counts as failed.
    """

    urls: Sequence[str]
    rate: float = 100.0
    workers: int = 4
    failover: bool = True
    retry_seconds: float = 30.0


class _Tally:
    """Counts that all workers share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = self._last = time.monotonic()
        self._gap = 0.0
        self._served: collections.Counter[str] = collections.Counter()
        self._failures: collections.Counter[str] = collections.Counter()
        self._retried = 0
        self._uncertain = 0
        self.first = threading.Event()

    def served(self, operation: str) -> None:
        with self._lock:
            now = time.monotonic()
            self._gap = max(self._gap, now - self._last)
            self._last = now
            self._served[operation] += 1
        self.first.set()

    def failed(self, operation: str, why: str) -> None:
        with self._lock:
            self._failures[f"{operation}: {why}"] += 1

    def retried(self) -> None:
        with self._lock:
            self._retried += 1

    def uncertain(self) -> None:
        with self._lock:
            self._uncertain += 1

    def summary(self) -> dict[str, Any]:
        with self._lock:
            now = time.monotonic()
            return {
                "served": sum(self._served.values()),
                "served_by_operation": dict(self._served),
                "failed": sum(self._failures.values()),
                "failures": dict(self._failures),
                "retried": self._retried,
                "uncertain": self._uncertain,
                "longest_gap_ms": round(max(self._gap, now - self._last) * 1000, 1),
                "seconds": round(now - self._started, 3),
            }


class _Worker:
    """One thread's work, on rows of its own.

    :param rows: id to the counter it has.
    """

    def __init__(
        self, options: ClientOptions, seed: Seed, rows: dict[str, int], tally: _Tally, ending: threading.Event
    ) -> None:
        self._options = options
        self._seed = seed
        self._rows = rows
        self._ids = list(rows)
        self._tally = tally
        self._ending = ending
        self._random = random.Random()
        self._turn = self._random.randrange(len(options.urls))
        self._public: dict[str, dict[str, Any]] = {}
        self.settled: dict[str, list[int | None]] = {}

    def model(self) -> dict[str, list[int | None]]:
        """What this worker's rows may be, those it deleted too."""
        return {**{row_id: [v] for row_id, v in self._rows.items()}, **self.settled}

    def run(self) -> None:
        """Work at the given rate until told to end."""
        pause = self._options.workers / self._options.rate
        due = time.monotonic() + self._random.random() * pause
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            operation = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            try:
                self._work(operation)
            except _StoppedError:
                break
            # A client that was held up does not make up for it: that would be a burst.
            due = max(due + pause, time.monotonic())

    def _work(self, operation: str) -> None:
        if operation == "sign" and self._seed.tokens:
            self._sign(self._random.choice(self._seed.tokens))
        elif operation == "insert" or not self._ids:
            self._insert()
        elif operation == "update":
            self._update(self._pick())
        elif operation == "delete":
            self._delete(self._pick())
        else:
            self._read(self._pick())

    # -- requests ------------------------------------------------------------------------------------------------

    def _ask(self, operation: str, method: str, path: str, body: dict[str, Any], token: str = "") -> _Reply:
        """Ask until somebody answers, for a bounded time.

        What was refused (no connection, or 503) was not carried out and is asked again. None when the answer to a
        change was lost; a lost answer to a mere question is asked again.
        """
        changing = operation in ("insert", "update", "delete")
        deadline = time.monotonic() + self._options.retry_seconds
        self._turn = (self._turn + 1) % len(self._options.urls)
        asked = 0
        while True:
            sent, reply = self._attempt(method, path, body, token)
            if reply is None or reply[0] == 504:
                if sent and changing:
                    return None
            elif reply[0] == 500 and reply[1].get("error") == "internal" and changing:
                self._tally.failed(operation, "500 internal")
                return None
            elif reply[0] != 503:
                return reply
            if time.monotonic() > deadline:
                return 503, {"error": "nobody answers"}
            self._tally.retried()
            asked += 1
            if self._options.failover:
                self._turn = (self._turn + 1) % len(self._options.urls)
            all_asked = not self._options.failover or asked % len(self._options.urls) == 0
            if all_asked and self._ending.wait(_PAUSE_SECONDS):
                raise _StoppedError

    def _attempt(self, method: str, path: str, body: dict[str, Any], token: str) -> tuple[bool, _Reply]:
        """One request: whether it may have reached the service, and its answer if one came."""
        address = urlsplit(self._options.urls[self._turn])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_REQUEST_SECONDS)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        sent = False
        try:
            connection.connect()
            sent = True
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return sent, None
        finally:
            connection.close()
        return sent, (response.status, answer)

    def _served(self, operation: str, reply: tuple[int, dict[str, Any]], status: int) -> bool:
        """Whether the answer is a good one; anything else is counted as failed."""
        if reply[0] == status:
            return True
        self._tally.failed(operation, f"{reply[0]} {reply[1].get('error', '')}".strip())
        return False

    # -- operations ----------------------------------------------------------------------------------------------

    def _pick(self) -> str:
        """One of the rows that are this worker's and certain."""
        return self._random.choice(self._ids)

    def _settle(self, row_id: str, allowed: list[int | None]) -> None:
        """Leave a row alone from now on."""
        self.settled[row_id] = allowed
        if self._rows.pop(row_id, None) is not None:
            self._ids.remove(row_id)

    def _lost(self, row_id: str, allowed: list[int | None]) -> None:
        self._tally.uncertain()
        self._settle(row_id, allowed)

    def _sign(self, token: Token) -> None:
        right = False
        for _ in range(_SIGN_ATTEMPTS):
            payload = {"sub": str(uuid.uuid4())}
            body = {"account_id": token.account_id, "payload": payload}
            reply = self._ask("sign", "POST", "/sign", body, token.token)
            if reply is not None and reply == (404, {"error": "key"}):
                return  # its last key was deleted; rows that were lost show when the rows are judged
            if reply is None or not self._served("sign", reply, 200):
                return
            try:
                kid = jws.unverified_kid(reply[1]["jws"])
                if kid not in self._public and not self._fetch_published(token.account_id):
                    return
                if kid in self._public:
                    right = jws.verify(reply[1]["jws"], self._public[kid]) == payload
                    break
            except (jws.SignatureError, KeyError):
                break
            # Not published: another worker may just have deleted the row that signed.
        if right:
            self._tally.served("sign")
        else:
            self._tally.failed("sign", "wrong answer")

    def _fetch_published(self, account: str) -> bool:
        """Note the account's published keys, and say whether they were to be had (if not, that was counted)."""
        reply = self._ask("jwks", "GET", f"/jwks/{account}", {})
        if reply is None or not self._served("jwks", reply, 200):
            return False
        self._public.update({entry["kid"]: entry for entry in reply[1]["keys"]})
        return True

    def _read(self, row_id: str) -> None:
        reply = self._ask("read", "GET", f"/keys/{row_id}", {})
        if reply is None or not self._served("read", reply, 200):
            return
        if reply[1].get("v") == self._rows[row_id]:
            self._tally.served("read")
        else:
            self._tally.failed("read", "wrong answer")

    def _update(self, row_id: str) -> None:
        before, after = self._rows[row_id], self._rows[row_id] + 1_000_000
        reply = self._ask("update", "PUT", f"/keys/{row_id}", {"v": after})
        if reply is None:
            self._lost(row_id, [before, after])
        elif self._served("update", reply, 200):
            self._rows[row_id] = after
            self._tally.served("update")

    def _insert(self) -> None:
        row_id, value = str(uuid.uuid4()), self._random.randrange(1_000_000)
        body = {"id": row_id, "account_id": self._random.choice(self._seed.accounts), "v": value}
        reply = self._ask("insert", "POST", "/keys", body)
        if reply is None:
            self._lost(row_id, [None, value])
        elif self._served("insert", reply, 201):
            self._rows[row_id] = value
            self._ids.append(row_id)
            self._tally.served("insert")
        else:
            self.settled[row_id] = [None]

    def _delete(self, row_id: str) -> None:
        reply = self._ask("delete", "DELETE", f"/keys/{row_id}", {})
        if reply is None:
            self._lost(row_id, [self._rows[row_id], None])
        elif self._served("delete", reply, 200):
            self._settle(row_id, [None])
            self._tally.served("delete")


@dataclass(frozen=True)
class Outcome:
    """What a client has to say at its end.

    :param summary: ``served``, ``served_by_operation``, ``failed`` (an answer of 500 and more, or a wrong one, or none
        within the time), ``failures`` by reason, ``retried``, ``uncertain`` (changes whose answer was lost),
        ``longest_gap_ms`` without any good answer, ``seconds``.
    :param model: row id to the counters it may have; see :data:`demo.verify.Model`.
    """

    summary: dict[str, Any]
    model: dict[str, list[int | None]]

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps({"summary": self.summary, "model": self.model}), encoding="utf-8")
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what :meth:`save` wrote."""
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(value["summary"], value["model"])


class Client:
    """The workers, in this process.

    :param model: where an earlier client of the same tables left off; the seed's rows by default.
    """

    def __init__(self, options: ClientOptions, seed: Seed, model: dict[str, list[int | None]] | None = None) -> None:
        self._tally = _Tally()
        self._ending = threading.Event()
        self._threads = ThreadPoolExecutor(options.workers)
        self._working: list[Future[None]] = []
        start: dict[str, list[int | None]] = model if model is not None else {i: [v] for i, v in seed.rows.items()}
        certain = {row_id: v[0] for row_id, v in start.items() if len(v) == 1 and v[0] is not None}
        self._apart = {row_id: allowed for row_id, allowed in start.items() if row_id not in certain}
        self._workers = [
            _Worker(
                options,
                seed,
                {row_id: v for number, (row_id, v) in enumerate(certain.items()) if number % options.workers == share},
                self._tally,
                self._ending,
            )
            for share in range(options.workers)
        ]

    @property
    def first(self) -> threading.Event:
        """Set once a request was served."""
        return self._tally.first

    def summary(self) -> dict[str, Any]:
        """What was done so far; see :class:`Outcome`."""
        return self._tally.summary()

    def start(self) -> None:
        """Begin to work."""
        self._working = [self._threads.submit(worker.run) for worker in self._workers]

    def stop(self) -> Outcome:
        """Finish the requests in hand and tell what was done; raises what a worker failed with."""
        self._ending.set()
        self._threads.shutdown()
        for working in self._working:
            working.result()
        model = dict(self._apart)
        for worker in self._workers:
            model.update(worker.model())
        return Outcome(self._tally.summary(), model)


class ClientProcess:
    """A client in a process of its own.

    :param out: where it writes its outcome.
    """

    def __init__(self, options: ClientOptions, seed: Path, out: Path, model: Path | None = None) -> None:
        self._out = out
        command = [sys.executable, "-m", "demo.client", "--seed", str(seed), "--out", str(out)]
        for url in options.urls:
            command += ["--url", url]
        command += ["--rate", str(options.rate), "--workers", str(options.workers)]
        command += ["--retry-seconds", str(options.retry_seconds)]
        command += ["--failover" if options.failover else "--no-failover"]
        if model is not None:
            command += ["--model", str(model)]
        root = str(Path(__file__).resolve().parent.parent)
        environment = {**os.environ, "PYTHONPATH": root}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)

    def wait_running(self) -> None:
        """Return once it was served for the first time.

        :raises RuntimeError: when it ended before.
        """
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "running\n":
            raise RuntimeError(f"the client ended with {self._process.wait()}")

    def stop(self) -> Outcome:
        """End it and read its outcome.

        :raises RuntimeError: when it failed.
        """
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if code != 0:
            raise RuntimeError(f"the client ended with {code}")
        return Outcome.load(self._out)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.client", description="Use the sample service until SIGTERM.")
    parser.add_argument("--url", action="append", required=True, help="base URL of an instance; may be repeated")
    parser.add_argument("--seed", type=Path, required=True, help="what lies in the tables, from demo.stack")
    parser.add_argument("--model", type=Path, help="the outcome of an earlier client, to go on from")
    parser.add_argument("--out", type=Path, required=True, help="where the outcome is written")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--retry-seconds", type=float, default=30.0)
    parser.add_argument("--failover", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _options(arguments)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    model = Outcome.load(options.model).model if options.model else None
    client = Client(
        ClientOptions(options.url, options.rate, options.workers, options.failover, options.retry_seconds),
        Seed.load(options.seed),
        model,
    )
    client.start()
    told = False
    while not ending.wait(0.02):
        if not told and client.first.is_set():
            print("running", flush=True)
            told = True
    client.stop().save(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
