# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL for tests, behind the database engine of a real OpenBao: users that live as long as their lease.

It refuses to run as root, and runs as nobody then, in a folder of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from tests import laptop, openbao
from tests.kube import apiserver, lifeline

_NOBODY = 65_534
START_SECONDS = 60.0


def _programs() -> pathlib.Path:
    found = importlib.util.find_spec("pgserver")
    origin = found.origin if found is not None else None
    assert origin is not None, "pgserver is not installed: run `make install`"
    return pathlib.Path(origin).parent / "pginstall" / "bin"


class Postgres:
    """`start` it, `close` it at the end. `password` is the superuser's."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="outrider-postgres-"))
        self.port = apiserver.free_port()
        self.password = secrets.token_hex(16)
        self._programs = _programs()
        self._lifeline = lifeline.Lifeline()
        self._process: subprocess.Popen[bytes] | None = None
        self._as = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

    def start(self) -> Postgres:
        data, password = self.folder / "data", self.folder / "password"
        password.write_text(self.password)
        if self._as:
            shutil.chown(self.folder, _NOBODY, _NOBODY)
            password.chmod(0o644)
        line = ["initdb", "-D", data, "-U", "postgres", "--auth-local=reject", "--auth-host=scram-sha-256"]
        made = self._run([*line, f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C"])
        assert made.returncode == 0, made.stderr
        line = ["postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder, "-F"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._programs / line[0], *line[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=self.folder, **self._as,
            )  # fmt: skip
        self._lifeline.hold(self._process.pid)
        laptop.until(lambda: self.lets_in("postgres", self.password), "PostgreSQL is ready", START_SECONDS)
        return self

    def lets_in(self, user: str, password: str) -> bool:
        """Whether it does, asked with psql."""
        line = [
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            user,
            "-d",
            "postgres",
            "-tAc",
            "select 1",
        ]
        return self._run(line, {"PGPASSWORD": password}).stdout.strip() == "1"

    def users(self) -> set[str]:
        """Names of those that an engine made."""
        line = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres", "-tAc"]
        ran = self._run([*line, "select usename from pg_user"], {"PGPASSWORD": self.password})
        return {each for each in ran.stdout.split() if each != "postgres"}

    def behind(self, bao: openbao.Vault, mount: str) -> None:
        """Mounts a database engine there that makes users in this server."""
        bao.call("POST", f"sys/mounts/{mount}", {"type": "database"})
        bao.call(
            "POST", f"{mount}/config/pg",
            {
                "plugin_name": "postgresql-database-plugin", "allowed_roles": ["*"], "username": "postgres",
                "password": self.password,
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{self.port}/postgres?sslmode=disable",
            },
        )  # fmt: skip

    def maker(self, bao: openbao.Vault, mount: str, role: str, *, ttl: str, most: str) -> None:
        """A role of that engine: users who live so long, and may be renewed for so long at most."""
        made = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
        bao.call(
            "POST", f"{mount}/roles/{role}",
            {"db_name": "pg", "creation_statements": [made], "default_ttl": ttl, "max_ttl": most},
        )  # fmt: skip

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()
        self._lifeline.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, line: list[object], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._programs / str(line[0])), *(str(each) for each in line[1:])], cwd=self.folder, check=False,
            capture_output=True, text=True, env={**os.environ, **(env or {})}, **self._as,
        )  # fmt: skip


def running() -> Iterator[Postgres]:
    """For fixtures."""
    made = Postgres()
    try:
        yield made.start()
    finally:
        made.close()
