"""Programs of other users that impersonate the server, and folders that other users can read or replace."""

import fcntl
import json
import os
import signal
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
from tests.local.clients import LocalServer, run_server
from tests.polling import wait_until

NOBODY_UID = 65534
requires_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@contextmanager
def run_impostor(answer: Mapping[str, Any] | str, port: int = 0) -> Iterator[str]:
    """Run a program that answers each request with the JSON `answer`, or relays each request to the URL `answer`."""

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


def run_microjobs(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MICROJOBS_HOME": str(home.root)}
    return subprocess.run(["microjobs", *arguments], env=environment, capture_output=True, text=True, check=False)


def replace_server_address(server: LocalServer, url: str) -> None:
    """Replace the server's address in the file from which commands read it."""
    content = json.loads(server.home.server_file.read_text())
    server.home.server_file.write_text(json.dumps({**content, "url": url}))


@pytest.fixture
def crashed_home(tmp_path: Path) -> Iterator[tuple[Home, str]]:
    """Yield a home whose server was killed, and the URL of an impostor that listens on the server's port."""
    with run_server(tmp_path / "home", runtime="process") as server:
        os.kill(server.address.pid, signal.SIGKILL)
        wait_until(lambda: home_lock.find_holder(server.home), lambda pid: pid is None)
        port = int(server.address.url.rpartition(":")[2])
        with run_impostor({"status": "ok", "pid": server.address.pid, "proof": "0" * 64}, port) as url:
            yield server.home, url


@pytest.mark.parametrize("command", [("status",), ("env",)])
def test_commands_detect_an_impostor_after_a_crash(crashed_home: tuple[Home, str], command: tuple[str, ...]) -> None:
    home, url = crashed_home
    result = run_microjobs(home, "local", *command)
    assert result.returncode == 1
    assert "no server runs for" in result.stdout + result.stderr
    assert url not in result.stdout


def test_run_detects_an_impostor_after_a_crash(crashed_home: tuple[Home, str]) -> None:
    home, url = crashed_home
    with control.use_server(home, Config(port=0, runtime="process")) as address:
        assert address.url != url


@contextmanager
def impersonate(server: LocalServer, answer: Mapping[str, Any]) -> Iterator[None]:
    """Run a program that gives this health response with the server's process id. Commands use the program's address in
    place of the server's."""
    with run_impostor({**answer, "pid": server.address.pid}) as url:
        replace_server_address(server, url)
        try:
            yield
        finally:
            replace_server_address(server, server.address.url)


@pytest.mark.parametrize("proof", [{}, {"proof": None}, {"proof": ""}, {"proof": "é"}, {"proof": "0" * 64}])
def test_health_response_without_proof_is_refused(process_server: LocalServer, proof: Mapping[str, Any]) -> None:
    with (
        impersonate(process_server, {"status": "ok", **proof}),
        pytest.raises(control.ServerError, match="does not know the secret"),
    ):
        control.find_server(process_server.home)


@pytest.mark.parametrize("command", [("local", "status"), ("local", "env"), ("run", "straight-line")])
def test_commands_refuse_an_impostor(process_server: LocalServer, command: tuple[str, ...]) -> None:
    with impersonate(process_server, {"status": "ok", "proof": "0" * 64}):
        result = run_microjobs(process_server.home, *command)
    assert (result.returncode, "does not know the secret" in result.stderr) == (1, True), result


def test_relayed_proof_is_refused(process_server: LocalServer) -> None:
    with run_impostor(process_server.address.url) as url:
        replace_server_address(process_server, url)
        try:
            with pytest.raises(control.ServerError, match="does not know the secret"):
                control.find_server(process_server.home)
        finally:
            replace_server_address(process_server, process_server.address.url)
    assert control.find_server(process_server.home) == process_server.address


def test_proof_depends_on_each_argument(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"key": "k", "home": tmp_path, "pid": 1, "nonce": "0" * 64, "port": "1"}
    changes: list[dict[str, Any]] = [
        {"key": "l"},
        {"home": tmp_path / "a"},
        {"pid": 2},
        {"nonce": "1" * 64},
        {"port": "2"},
    ]
    assert len({identity.prove_identity(**arguments | change) for change in [{}, *changes]}) == len(changes) + 1


@pytest.mark.parametrize("nonce", ["", "0", "0" * 63, "0" * 65, "G" * 64, "0" * 63 + "%0A"])
def test_server_sends_a_proof_only_for_a_nonce(process_server: LocalServer, nonce: str) -> None:
    with urllib.request.urlopen(f"{process_server.address.url}/health?nonce={nonce}") as answer:
        assert "proof" not in json.load(answer)


def test_only_a_locked_file_names_the_server(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.lock.write_text(f"{os.getpid()} 1")
    assert home_lock.find_holder(home) is None  # no process holds the lock
    with home.lock.open() as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        # The process with this id did not start at the recorded time.
        assert home_lock.find_holder(home) is None
    with home_lock.hold(home):
        assert home_lock.find_holder(home) == os.getpid()


# --- the server's folder ---


def test_permissions_of_an_open_home_are_restricted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.credentials()
    home.root.chmod(0o755)
    (home.root / "credentials.json").chmod(0o644)
    (home.root / "runs").mkdir()
    result = run_microjobs(home, "local", "up", "--detach", "--port", "0", "--runtime", "process")
    try:
        assert home.root.stat().st_mode & 0o777 == 0o700
        assert (home.root / "credentials.json").stat().st_mode & 0o777 == 0o600
        assert (home.root / "server.key").stat().st_mode & 0o777 == 0o600
        warnings = [line for line in result.stderr.splitlines() if "was open to other users" in line]
        assert len(warnings) == 2
    finally:
        control.stop(home)
    home.create()  # the second call prints no warnings


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_home_that_others_can_replace_is_refused(tmp_path: Path, mode: int) -> None:
    home = Home(tmp_path / "open" / "project" / "home")
    home.root.mkdir(parents=True, mode=0o700)
    (tmp_path / "open").chmod(mode)
    for use in (home.create, lambda: control.find_server(home), lambda: control.stop(home)):
        with pytest.raises(HomeError, match="all users can replace files in"):
            use()
    (tmp_path / "open").chmod(mode | 0o1000)  # with the sticky bit, which /tmp has, the folder is accepted
    home.create()


@requires_root
def test_home_of_another_user_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    os.chown(home.root, NOBODY_UID, NOBODY_UID)
    for command in (("status",), ("env",), ("up", "--detach"), ("down",)):
        result = run_microjobs(home, "local", *command)
        assert (result.returncode, "belongs to another user" in result.stderr) == (1, True), result


@requires_root
def test_link_of_another_user_is_refused(tmp_path: Path) -> None:
    Home(tmp_path / "real").create()
    home = Home(tmp_path / "link")
    home.root.symlink_to(tmp_path / "real")
    os.lchown(home.root, NOBODY_UID, NOBODY_UID)
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


@requires_root
@pytest.mark.parametrize("file", ["credentials.json", "server.key"])
def test_secret_of_another_user_is_refused(tmp_path: Path, file: str) -> None:
    home = Home(tmp_path / "home")
    home.create()
    (home.root / file).write_text("planted")
    os.chown(home.root / file, NOBODY_UID, NOBODY_UID)
    with pytest.raises(HomeError, match="belongs to another user"):
        home.create()
