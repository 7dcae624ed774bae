# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker daemon of our own: private socket, private data, one rule in the firewall while it runs.

Its data stays between runs, so that images are made once. Where no registry is reachable the base image is made from
Debian packages and gets the name under which it would be pulled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

__all__ = ["BASE_IMAGE", "BRIDGE", "DockerError", "Dockerd", "build_image", "build_target"]

BASE_IMAGE = "debian:trixie-slim"
#: A bridge that lets the containers of its network reach each other; so does every other one that begins like it.
BRIDGE = "keyturn0"
_SUITE = "trixie"
_RULE = ("--in-interface", "keyturn+", "--out-interface", "keyturn+", "--jump", "ACCEPT")
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class DockerError(RuntimeError):
    """The daemon did not start, or an image could not be made."""


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise DockerError(f"{name} is missing: `make system-packages` installs it. Or set DOCKER_HOST to use a daemon.")
    return found


class Dockerd:
    """The daemon; used as a context manager.

    :param folder: keeps the daemon's data, a lock and a log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._log = self._folder / "dockerd.log"
        self._pid_file = self._folder / "dockerd.pid"
        self._runtime = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = -1

    @property
    def host(self) -> str:
        """What ``DOCKER_HOST`` has to be."""
        return f"unix://{self._runtime}/docker.sock"

    def __enter__(self) -> Dockerd:
        """Start it and make sure that it has the base image."""
        if os.geteuid() != 0:
            raise DockerError("a Docker daemon of our own needs root. Set DOCKER_HOST to use the one you have.")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # one daemon for one folder: another test run waits here
        self._end_stale()
        self._runtime = Path(tempfile.mkdtemp(prefix="keyturn-docker-"))
        try:
            self._let_through()
            self._start()
            self._remove_stale()
            self._make_base_image()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, its containers too, and leave no mount behind."""
        self._end()

    # -- life ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        command = [_program("dockerd"), "--host", self.host, "--data-root", str(self._data)]
        command += ["--exec-root", str(self._runtime / "exec"), "--pidfile", str(self._pid_file)]
        # Containers talk to each other and to this machine over a bridge; images are built on the host's network.
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._docker("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DockerError(f"dockerd does not run; {self._log} ends with:\n{self._log.read_text()[-1500:]}")
            time.sleep(0.1)

    def _let_through(self) -> None:
        """Let containers reach each other where the machine's firewall drops what it forwards."""
        self._shut()
        rule = [_program("iptables"), "--wait", "--insert", "FORWARD", *_RULE]
        added = subprocess.run(rule, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if added.returncode:
            raise DockerError(f"the firewall takes no rule: {added.stderr.decode(errors='replace')[-500:]}")

    def _shut(self) -> None:
        """Take the rule away, and those of killed runs."""
        rule = [_program("iptables"), "--wait", "--delete", "FORWARD", *_RULE]
        while subprocess.run(rule, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            pass

    def _end(self) -> None:
        if self._process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(_STOP_SECONDS)
        self._shut()
        self._unmount()
        shutil.rmtree(self._runtime, ignore_errors=True)
        os.close(self._lock)

    def _end_stale(self) -> None:
        """End the daemon that a killed test run left behind: we hold its lock, so nobody uses it."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(self._data) in words:
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + _STOP_SECONDS
                while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                    time.sleep(0.1)
        self._unmount()

    def _remove_stale(self) -> None:
        """Remove the containers and networks that a killed run left behind: their bridges would be in the way."""
        containers = self._docker("ps", "--all", "--quiet").stdout.decode().split()
        if containers:
            self._docker("rm", "--force", "--volumes", *containers)
        self._docker("network", "prune", "--force")

    def _unmount(self) -> None:
        """Unmount whatever is mounted below our folders, the deepest first."""
        ours = [str(folder) for folder in (self._data, self._runtime) if folder != Path()]
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in sorted(points, reverse=True):
            if any(point.startswith(f"{folder}/") for folder in ours):
                subprocess.run([_program("umount"), "--lazy", point], check=False, capture_output=True)

    # -- images --------------------------------------------------------------------------------------------------

    def _docker(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [_program("docker"), "--host", self.host, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def _make_base_image(self) -> None:
        """What ``docker pull`` would bring, made with debootstrap."""
        if self._docker("image", "inspect", BASE_IMAGE).returncode == 0:
            return
        root = self._runtime / "base"
        command = [_program("debootstrap"), "--variant=minbase", _SUITE, str(root)]
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if made.returncode:
            raise DockerError(f"debootstrap failed: {(made.stdout + made.stderr).decode(errors='replace')[-1500:]}")
        archives = root / "var" / "cache" / "apt" / "archives"
        for package in archives.glob("*.deb"):
            package.unlink()
        with subprocess.Popen(
            [_program("tar"), "--create", "--numeric-owner", "--directory", str(root), "."], stdout=subprocess.PIPE
        ) as tar:
            imported = subprocess.run(
                [_program("docker"), "--host", self.host, "import", "-", BASE_IMAGE],
                stdin=tar.stdout,
                capture_output=True,
                check=False,
            )
        if tar.returncode or imported.returncode:
            raise DockerError(f"the base image could not be made: {imported.stderr.decode(errors='replace')[-1500:]}")
        shutil.rmtree(root, ignore_errors=True)


def build_image(docker_host: str, name: str, dockerfile: str) -> str:
    """An image made of a Dockerfile without a context, on the host's network; made once. Returns its name with a tag.

    :raises DockerError: when it cannot be built.
    """
    tag = f"{name}:{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}"
    return _build(docker_host, tag, ["-"], dockerfile.encode())


def build_target(docker_host: str, name: str, context: Path, target: str) -> str:
    """The image of one stage of a folder's Dockerfile, made once; see :func:`build_image`.

    :raises DockerError: when it cannot be built.
    """
    files = sorted(path for path in context.iterdir() if path.is_file())
    content = b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files)
    tag = f"{name}-{target}:{hashlib.sha256(content).hexdigest()[:12]}"
    return _build(docker_host, tag, ["--target", target, str(context)])


def _build(docker_host: str, tag: str, arguments: list[str], given: bytes = b"") -> str:
    client = [_program("docker"), "--host", docker_host]
    if subprocess.run([*client, "image", "inspect", tag], capture_output=True, check=False).returncode == 0:
        return tag
    built = subprocess.run(
        [*client, "build", "--network=host", "--tag", tag, *arguments],
        input=given,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        check=False,
    )
    if built.returncode:
        raise DockerError(f"{tag} could not be built: {(built.stdout + built.stderr).decode(errors='replace')[-1500:]}")
    return tag
