# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of one instance of the sample service.

``python -m demo.service --env D/.env --port N --pid-file F --log L`` starts it in the background and returns when it
listens; ``python -m demo.service --stop --pid-file F`` ends it after its open requests. Both may be repeated.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from demo.daemon import DaemonError, PidFile, start, stop

__all__ = ["main"]

_HOST = "127.0.0.1"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.service", description="Start or stop the sample service.")
    parser.add_argument(
        "--env", type=Path, help="dotenv file with DATABASE_URL and, unless in plaintext mode, JWK_AES_KEY"
    )
    parser.add_argument("--port", type=int, help=f"port to listen on at {_HOST}")
    parser.add_argument("--pid-file", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="log file")
    parser.add_argument("--foreground", action="store_true", help="do not go to the background; log to standard error")
    parser.add_argument("--stop", action="store_true", help="end the running service")
    return parser


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _serve(env: Path, port: int, ready: Callable[[], None]) -> None:
    # Imported here so that stopping does not have to wait for the libraries.
    from demo.app import SettingsError, read_settings
    from demo.server import serve

    try:
        serve(read_settings(env), _HOST, port, ready)
    except SettingsError as error:
        raise DaemonError(str(error)) from None
    except OSError as error:
        raise DaemonError(f"port {port}: {error.strerror}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 wrong use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    pid_path = options.pid_file.absolute()
    try:
        if options.stop:
            print("stopped" if stop(pid_path) else "was not running")
            return 0
        if options.env is None or options.port is None or (options.log is None and not options.foreground):
            parser.error("--env, --port and --log are needed to start")
        env = options.env.absolute()
        if options.foreground:
            pid_file = PidFile(pid_path)
            if not pid_file.try_lock():
                raise DaemonError(f"{pid_path}: it is running already")
            pid_file.write()
            _serve(env, options.port, lambda: None)
            return 0
        import demo.server  # before the fork, so that the time it takes is not taken twice

        assert demo.server
        started = start(
            pid_path,
            options.log.absolute(),
            lambda ready: _serve(env, options.port, ready),
            lambda: _listens(options.port),
        )
        print("started" if started else "is running")
    except DaemonError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
