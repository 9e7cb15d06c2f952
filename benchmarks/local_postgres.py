"""A PostgreSQL server as others run it: on a TCP port, with passwords and an ordinary user; to be tried and killed."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import psutil
import psycopg

from backends.pgvector.postmaster import _identity, _programs

USER, PASSWORD = "ann", "p@ss:w/rd %"
QUOTED = "p%40ss%3Aw%2Frd%20%25"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
"""
# The socket is for the test itself, as superuser; everyone else comes by TCP with a password.
_ACCESS = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Server:
    """One server in `folder`, started at once; `stop` it, `kill` it, `start` it again."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "pg"
        self.programs = _programs(self.data)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(folder=self.data, port=self.port))
        (self.data / "pg_hba.conf").write_text(_ACCESS)
        self._databases = 0
        self.start()
        with self.admin() as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def _control(self, *arguments: str) -> None:
        subprocess.run(
            [str(self.programs.bin_path / "pg_ctl"), "-s", "-w", "-D", "pg", *arguments],
            cwd=self.data.parent,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_identity(self.programs),
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for attempt in range(10):
            try:
                self._control("-l", "pg/log", "start")
            except subprocess.CalledProcessError:
                # After a kill its shared memory is released a moment later.
                if attempt == 9:
                    raise AssertionError((self.data / "log").read_text()[-2000:]) from None
                time.sleep(0.3)
            else:
                return

    def stop(self, mode: str = "fast") -> None:
        """End it in one of pg_ctl's modes, and wait for the end."""
        self._control("-m", mode, "stop")

    def kill(self) -> None:
        """End the server as ``kill -9`` does, and wait until its processes are gone."""
        first = psutil.Process(int((self.data / "postmaster.pid").read_text().split("\n")[0]))
        everyone = [first, *first.children(recursive=True)]
        first.kill()
        deadline = time.monotonic() + 20
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in everyone):
            assert time.monotonic() < deadline, "the processes of a killed server do not end"
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def admin(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A connection as superuser."""
        return psycopg.connect(host=str(self.data), port=self.port, user="postgres", dbname=database, autocommit=True)

    def database(self, extension: bool = True) -> str:
        """The name of a new database owned by the ordinary user."""
        self._databases += 1
        name = f"db{self._databases}"
        with self.admin() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {USER}")
        if extension:
            with self.admin(name) as connection:
                connection.execute("CREATE EXTENSION vector")
        return name

    def url(self, database: str, password: str = QUOTED) -> str:
        """The URL of a database for the ordinary user."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"
