# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An issuer and gateways that others wrote, each with the cache it has: oidc-provider, Envoy, nginx with joserfc.

::

    with Peers(folder, dsn, example) as peers:
        token = peers.token()
        for gateway in peers.gateways:
            peers.present(gateway, token)
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from demo.postgres import free_port
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from psycopg.conninfo import conninfo_to_dict

from tests.setup.peers import ISSUER, NODE
from tests.support.endpoint import Asked, Endpoint, endpoint
from tests.support.signing import KEY

__all__ = ["AUDIENCE", "ISSUER_NAME", "LEEWAY", "Peers", "Process", "until", "verified_by_joserfc"]

#: Who the tokens say has issued them, and for whom.
ISSUER_NAME, AUDIENCE = "https://identity.example.com", "https://api.example.com"
#: By how many seconds a gateway lets clocks differ.
LEEWAY = 3
_CLIENT = ("reports", "the-secret-of-a-client-of-tests")
_PATIENCE = 180.0
_NGINX = """
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_cache_path cache keys_zone=jwks:1m;
    upstream issuer {{ server 127.0.0.1:{issuer}; }}
    upstream api {{ server 127.0.0.1:{api}; }}
    upstream verifier {{ server 127.0.0.1:{verifier}; }}
    server {{
        listen 127.0.0.1:{port};
{locations}
    }}
}}
"""


def until(shown: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not shown():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.05)


def verified_by_joserfc(token: str, jwks: Mapping[str, Any]) -> dict[str, Any] | None:
    """The claims of a token that a key of the set has signed and that is for us and valid now; else None."""
    rules = jwt.JWTClaimsRegistry(
        leeway=LEEWAY,
        iss={"essential": True, "value": ISSUER_NAME},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )
    try:
        found = jwt.decode(token, KeySet.import_key_set({"keys": list(jwks["keys"])}), algorithms=["RS256"])
        rules.validate(found.claims)
    except (JoseError, ValueError):
        return None
    return dict(found.claims)


class Process:
    """A program that runs until it is stopped, by its number."""

    def __init__(self, command: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "output.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until it can be used."""

        def _is_ready() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._process.args!r} did not start: {self.log.read_text()[-2000:]}")
            return ready()

        until(_is_ready, f"{self._process.args!r} to answer")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} of requirements-dev.txt is not installed")
    return Path(spec.origin).parent


class Peers:
    """One issuer and what stands in front of an API.

    :param folder: for configurations, logs and the key of the private parts.
    :param dsn: the database in which the issuer keeps its keys.
    :param provider: the provider ``identity`` of Envoy's ``jwt_authn``, as documented.
    :param locations: those of nginx, as documented.
    :param cache: seconds for which Envoy keeps keys.
    :param token_lifetime: seconds.
    """

    def __init__(
        self,
        folder: Path,
        dsn: str,
        provider: Mapping[str, Any],
        locations: str,
        cache: int = 6,
        token_lifetime: int = 6,
        max_age: int = 1,
    ) -> None:
        self.folder, self.dsn, self.token_lifetime = folder, dsn, token_lifetime
        self.provider, self.locations, self.cache, self.max_age = dict(provider), locations, cache, max_age
        self.env_file = folder / ".env"
        self._entered = ExitStack()
        self._issuer: Process | None = None
        self.ports: dict[str, int] = {}
        for name in (*self.gateways, "issuer", "envoy's statistics"):
            self.ports[name] = next(port for port in iter(free_port, 0) if port not in self.ports.values())
        self.api = self.verifier = Endpoint("", 0)

    # -- addresses -------------------------------------------------------------------------------------------------

    def url(self, peer: str, path: str = "") -> str:
        """An address at one of :attr:`ports`."""
        return f"http://127.0.0.1:{self.ports[peer]}{path}"

    @property
    def gateways(self) -> tuple[str, ...]:
        """The names of all that guard the API."""
        return ("envoy", "envoy, in the background", "nginx")

    @property
    def jwks(self) -> dict[str, str]:
        """The addresses that show the published keys."""
        return {"issuer": self.url("issuer", "/jwks"), "nginx": self.url("nginx", "/.well-known/jwks.json")}

    def published(self, by: str = "issuer") -> dict[str, Any]:
        """The published keys."""
        with urllib.request.urlopen(self.jwks[by], timeout=_PATIENCE) as answer:
            content: dict[str, Any] = json.load(answer)
        return content

    def kids(self, by: str = "issuer") -> list[str]:
        """Their kids."""
        return [key["kid"] for key in self.published(by)["keys"]]

    # -- what a client does ----------------------------------------------------------------------------------------

    def token(self) -> str:
        """A new one, by the grant of client credentials."""
        header = base64.b64encode(":".join(_CLIENT).encode()).decode()
        asked = urllib.request.Request(
            self.url("issuer", "/token"),
            urllib.parse.urlencode({"grant_type": "client_credentials", "scope": "api"}).encode(),
            {"Authorization": f"Basic {header}"},
        )
        with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:
            return str(json.load(answer)["access_token"])

    def present(self, gateway: str, token: str) -> int:
        """The status that a gateway answers to who brings a token."""
        asked = urllib.request.Request(self.url(gateway, "/api"), headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def fetches(self, how: str = "success") -> tuple[int, int]:
        """How often Envoy has fetched the keys: for a token that came, and ahead of time.

        :param how: ``success`` or ``failed``.
        """
        with urllib.request.urlopen(self.url("envoy's statistics", f"/stats?filter=jwks_fetch_{how}")) as answer:
            lines = answer.read().decode().splitlines()
        plain, ahead = (
            next(int(line.partition(": ")[2]) for line in lines if f".{name}." in line) for name in ("plain", "ahead")
        )
        return plain, ahead

    # -- starting --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Peers:
        """Start all of them."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.env_file.touch(0o600)
        self.env_file.write_text(f"JWK_AES_KEY={KEY}\n")
        with contextlib.ExitStack() as starting:
            self._entered = starting
            self.api = starting.enter_context(endpoint(lambda _asked: (200, {}, "welcome")))
            self.verifier = starting.enter_context(endpoint(self._verify))
            self.start_issuer()
            starting.callback(self.stop_issuer)
            self._start("nginx", self._nginx(), self.url("nginx"))
            self._start("envoy", self._envoy(), self.url("envoy"))
            self._entered = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all of them."""
        self._entered.close()

    def _start(self, name: str, command: list[str], url: str) -> None:
        process = Process(command, self.folder / name)
        self._entered.callback(process.stop)
        process.wait(lambda: _answers(url))

    def start_issuer(self) -> None:
        """Start the issuer; its first key is made when it has none."""
        parts = conninfo_to_dict(self.dsn)
        names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
        settings = {
            "port": self.ports["issuer"],
            "issuer": ISSUER_NAME,
            "audience": AUDIENCE,
            "client_id": _CLIENT[0],
            "client_secret": _CLIENT[1],
            "database": {names[part]: parts[part] for part in names if part in parts},
            "env_file": str(self.env_file),
            "token_lifetime": self.token_lifetime,
            "max_age": self.max_age,
            "watch_ms": 200,
        }
        path = self.folder / "issuer.json"
        path.touch(0o600)
        path.write_text(json.dumps(settings))
        links = ["--preserve-symlinks", "--preserve-symlinks-main"]
        self._issuer = Process([str(NODE), *links, str(ISSUER), str(path)], self.folder / "issuer")
        self._issuer.wait(lambda: _answers(self.jwks["issuer"]))

    def stop_issuer(self) -> None:
        """Stop the issuer."""
        if self._issuer is not None:
            self._issuer.stop()
            self._issuer = None

    def _verify(self, asked: Asked) -> tuple[int, Mapping[str, str], str]:
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        return (204 if verified_by_joserfc(token, self.published("nginx")) else 401), {}, ""

    def _nginx(self) -> list[str]:
        folder = self.folder / "nginx"
        folder.mkdir()
        ports = {"issuer": self.ports["issuer"], "api": self.api.port, "verifier": self.verifier.port}
        text = _NGINX.format(port=self.ports["nginx"], locations=self.locations, **ports)
        (folder / "nginx.conf").write_text(text if os.geteuid() == 0 else text.replace("user root;\n", ""))
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        return [program or "nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]

    def _envoy(self) -> list[str]:
        folder = self.folder / "envoy"
        folder.mkdir()
        remote = {**self.provider["remote_jwks"], "cache_duration": f"{self.cache}s"}
        remote["http_uri"] = {**remote["http_uri"], "timeout": f"{_PATIENCE:.0f}s"}  # a busy machine is no failed fetch
        plain = {**self.provider, "clock_skew_seconds": LEEWAY, "remote_jwks": remote}
        ahead = {**plain, "remote_jwks": {**remote, "async_fetch": {}}}
        content = {
            "admin": {"address": _address(self.ports["envoy's statistics"])},
            "static_resources": {
                "listeners": [
                    _listener("plain", self.ports["envoy"], plain),
                    _listener("ahead", self.ports["envoy, in the background"], ahead),
                ],
                "clusters": [_cluster("issuer", self.ports["issuer"]), _cluster("api", self.api.port)],
            },
        }
        (folder / "envoy.yaml").write_text(yaml.safe_dump(content))
        program = _package("envoy") / "_bin" / "envoy"
        return [str(program), "-c", "envoy.yaml", "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]


# -- the rest of Envoy's configuration -------------------------------------------------------------------------------

_TYPE = "type.googleapis.com/envoy.extensions.filters"


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    where = {"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{_PATIENCE:.0f}s",
        "load_assignment": {"cluster_name": name, "endpoints": [where]},
    }


def _listener(name: str, port: int, provider: Mapping[str, Any]) -> dict[str, Any]:
    guard = {
        "@type": f"{_TYPE}.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"identity": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "identity"}}],
        "stat_prefix": name,
    }
    router = {"@type": f"{_TYPE}.http.router.v3.Router"}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "api"}}]
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "api", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": guard},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": _address(port), "filter_chains": [{"filters": filters}]}
