"""A PostgreSQL server of the tests' own, reached by a socket in its folder alone."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path:
    """Folder of `initdb` and `pg_ctl`; installed if they are not there and we may."""
    for again in (True, False):
        for found in (shutil.which("pg_ctl"), *Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")):
            if found is not None:
                return Path(found).resolve().parent
        if again and os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "postgresql"], check=True)
    raise RuntimeError("no PostgreSQL here: install Debian's package postgresql")


@contextmanager
def server() -> Iterator[str]:
    """The URL of a database that is gone afterwards."""
    found = programs()
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # not under pytest's, which others may not enter
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses root
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def call(program: str, *arguments: str) -> None:
        command = [str(found / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout

    try:
        call("initdb", "--auth", "trust", "--username", "tests", "--no-sync")
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        call("pg_ctl", "--wait", "--log", str(folder / "log"), "-o", settings, "start")
        try:
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            call("pg_ctl", "--wait", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
