"""Programs of other users that impersonate the server, and folders that other users can read or replace."""

import fcntl
import json
import os
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import control, home_lock, identity
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home, HomeError
from tests.local.clients import LocalServer, running_server, wait_until

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which root alone can")


@contextmanager
def impostor(answer: Mapping[str, Any] | str, port: int = 0) -> Iterator[str]:
    """Run a program that answers each request with the same JSON, or relays it to the server whose URL is `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            if isinstance(answer, str):
                with urllib.request.urlopen(f"{answer}{self.path}") as relayed:
                    self.wfile.write(relayed.read())
            else:
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Do not log."""

    listener = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.server_close()


def microjobs(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MICROJOBS_HOME": str(home.root)}
    return subprocess.run(["microjobs", *arguments], env=environment, capture_output=True, text=True, check=False)


def point_to(local: LocalServer, url: str) -> None:
    known = json.loads(local.home.server_file.read_text())
    local.home.server_file.write_text(json.dumps({**known, "url": url}))


@pytest.fixture
def crashed(tmp_path: Path) -> Iterator[tuple[Home, str]]:
    """Yield a home whose server was killed, while an impostor listens on the server's port."""
    with running_server(tmp_path / "home", runtime="process") as local:
        os.kill(local.address.pid, 9)
        wait_until(lambda: home_lock.find_holder(local.home), lambda pid: pid is None)
        port = int(local.address.url.rpartition(":")[2])
        with impostor({"status": "ok", "pid": local.address.pid, "proof": "0" * 64}, port) as url:
            yield local.home, url


@pytest.mark.parametrize("command", [("status",), ("env",)])
def test_commands_detect_an_impostor_after_a_crash(crashed: tuple[Home, str], command: tuple[str, ...]) -> None:
    home, url = crashed
    done = microjobs(home, "local", *command)
    assert done.returncode == 1
    assert "no server runs for" in done.stdout + done.stderr
    assert url not in done.stdout


def test_run_detects_an_impostor_after_a_crash(crashed: tuple[Home, str]) -> None:
    home, url = crashed
    with control.use_server(home, Config(port=0, runtime="process")) as address:
        assert address.url != url


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "ok"},
        {"status": "ok", "proof": None},
        {"status": "ok", "proof": ""},
        {"status": "ok", "proof": "é"},
        {"status": "ok", "proof": "0" * 64},
    ],
)
def test_health_response_without_proof_is_refused(process_server: LocalServer, answer: Mapping[str, Any]) -> None:
    with impostor({**answer, "pid": process_server.address.pid}) as url:
        point_to(process_server, url)
        try:
            with pytest.raises(control.ServerError, match="does not know the secret"):
                control.find_server(process_server.home)
            for command in (("local", "status"), ("local", "env"), ("run", "straight-line")):
                done = microjobs(process_server.home, *command)
                assert (done.returncode, "does not know the secret" in done.stderr) == (1, True), done
        finally:
            point_to(process_server, process_server.address.url)


def test_relayed_proof_is_refused(process_server: LocalServer) -> None:
    with impostor(process_server.address.url) as url:
        point_to(process_server, url)
        try:
            with pytest.raises(control.ServerError, match="does not know the secret"):
                control.find_server(process_server.home)
        finally:
            point_to(process_server, process_server.address.url)
    assert control.find_server(process_server.home) == process_server.address


def test_proof_depends_on_each_argument(tmp_path: Path) -> None:
    known: dict[str, Any] = {"key": "k", "home": tmp_path, "pid": 1, "nonce": "0" * 64, "port": "1"}
    changes: list[dict[str, Any]] = [
        {"key": "l"},
        {"home": tmp_path / "a"},
        {"pid": 2},
        {"nonce": "1" * 64},
        {"port": "2"},
    ]
    assert len({identity.prove(**known | change) for change in [{}, *changes]}) == len(changes) + 1


@pytest.mark.parametrize("nonce", ["", "0", "0" * 63, "0" * 65, "G" * 64, "0" * 63 + "%0A"])
def test_server_proves_only_nonces(process_server: LocalServer, nonce: str) -> None:
    with urllib.request.urlopen(f"{process_server.address.url}/health?nonce={nonce}") as answer:
        assert "proof" not in json.load(answer)


def test_only_a_locked_file_names_the_server(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.lock.write_text(f"{os.getpid()} 1")
    assert home_lock.find_holder(home) is None  # nobody holds it
    with home.lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        # The process with this id did not start at the recorded time.
        assert home_lock.find_holder(home) is None
    with home_lock.hold(home):
        assert home_lock.find_holder(home) == os.getpid()


# --- the folder ---


def test_permissions_of_an_open_home_are_restricted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.credentials()
    home.root.chmod(0o755)
    (home.root / "credentials.json").chmod(0o644)
    (home.root / "runs").mkdir()
    done = microjobs(home, "local", "up", "--detach", "--port", "0", "--runtime", "process")
    try:
        assert home.root.stat().st_mode & 0o777 == 0o700
        assert (home.root / "credentials.json").stat().st_mode & 0o777 == 0o600
        assert (home.root / "server.key").stat().st_mode & 0o777 == 0o600
        warnings = [line for line in done.stderr.splitlines() if "was open to other users" in line]
        assert len(warnings) == 2
    finally:
        control.stop(home)
    home.create()  # prints no further warnings


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_home_that_others_can_replace_is_refused(tmp_path: Path, mode: int) -> None:
    home = Home(tmp_path / "open" / "project" / "home")
    home.root.mkdir(parents=True, mode=0o700)
    (tmp_path / "open").chmod(mode)
    for use in (home.create, lambda: control.find_server(home), lambda: control.stop(home)):
        with pytest.raises(HomeError, match="all users can replace files in"):
            use()
    (tmp_path / "open").chmod(mode | 0o1000)  # as /tmp
    home.create()


@AS_ROOT
def test_home_of_another_user_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    os.chown(home.root, NOBODY, NOBODY)
    for command in (("status",), ("env",), ("up", "--detach"), ("down",)):
        done = microjobs(home, "local", *command)
        assert (done.returncode, "belongs to another user" in done.stderr) == (1, True), done


@AS_ROOT
def test_link_of_another_user_is_refused(tmp_path: Path) -> None:
    Home(tmp_path / "real").create()
    home = Home(tmp_path / "link")
    home.root.symlink_to(tmp_path / "real")
    os.lchown(home.root, NOBODY, NOBODY)
    with pytest.raises(HomeError, match="a link of another user"):
        home.create()


def test_link_of_the_same_user_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    home = Home(tmp_path / "link")
    home.root.symlink_to(tmp_path / "real")
    home.create()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("target", ["nowhere", "file"])
def test_home_that_is_not_a_folder_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    home = Home(tmp_path / "link")
    home.root.symlink_to(tmp_path / target)
    with pytest.raises(HomeError, match="is not a folder"):
        home.create()


@pytest.mark.parametrize(("mode", "file"), [(0o1777, "lock"), (0o755, "thesis.tex")])
def test_permissions_of_a_folder_with_other_files_are_kept(tmp_path: Path, mode: int, file: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / file).touch()
    (tmp_path / "shared").chmod(mode)
    with pytest.raises(HomeError, match="is open to other users"):
        Home(tmp_path / "shared").create()
    assert (tmp_path / "shared").stat().st_mode & 0o7777 == mode


@AS_ROOT
@pytest.mark.parametrize("file", ["credentials.json", "server.key"])
def test_secret_of_another_user_is_refused(tmp_path: Path, file: str) -> None:
    home = Home(tmp_path / "home")
    home.create()
    (home.root / file).write_text("planted")
    os.chown(home.root / file, NOBODY, NOBODY)
    with pytest.raises(HomeError, match="belongs to another user"):
        home.create()
