"""Tests of the Docker runtime without a server."""

import io
import secrets
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import ImageNotFound, NotFound

from microjobs.contract import Layout
from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.archives import pack, unpack
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, HostLimits, HostPlan, Input, Plan
from microjobs_orchestrator.local.runtimes.docker.guards import DEFAULT_IMAGE, IMAGE_VARIABLE, Guards
from microjobs_orchestrator.local.runtimes.docker.images import missing_image_remedy
from microjobs_orchestrator.local.runtimes.docker.labels import HOME_LABEL, PLAN_LABEL, Labels
from microjobs_orchestrator.local.runtimes.docker.networks import Networks, ipv4_gateway
from microjobs_orchestrator.local.runtimes.docker.overlays import Overlays
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.conftest import image_name
from tests.local.clients import wait_until
from tests.local.machine import list_containers, open_engine
from tests.local.trees import copy_from_host, write_tree
from tests.push import tiny_image

LAYOUT = Layout()
DATA = str(LAYOUT.channel("train"))


def plan(tmp_path: Path, script: str, name: str = "job/a", image: str = "serve") -> Plan:
    files, data = tmp_path / "files", tmp_path / "data"
    for folder in (files / "model", data):
        folder.mkdir(parents=True, exist_ok=True)
    (data / "x").write_text("original")
    inputs = (Input(DATA, data),)
    return Plan(
        name, (HostPlan("algo-1", image_name(image), files, inputs, entrypoint=("/bin/sh", "-c"), arguments=(script,)),)
    )


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        ("microjobs/serve:dev", "run `microjobs build serve`"),
        ("microjobs/train-pytorch:dev-cuda", "run `microjobs build train-pytorch --variant cuda`"),
        ("microjobs/mine:dev", "log in (`docker login`) and start the job again"),
        ("example.com:5000/serve:1", "build it (`docker build --tag example.com:5000/serve:1 FOLDER`)"),
        ("serve", "build it (`docker build --tag serve FOLDER`)"),
        (
            "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:0.23-1-cpu-py3",
            "start the server with --framework-images to run preprocess in its place, or build it",
        ),
    ],
)
@pytest.mark.parametrize("registry", [None, ""])
def test_remedy_for_a_missing_image_names_its_builder(
    registry: str | None, image: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY", raising=False)
    if registry is not None:
        monkeypatch.setenv("REGISTRY", registry)
    assert remedy in missing_image_remedy(image)
    assert ("microjobs build" in remedy) == ("microjobs build" in missing_image_remedy(image))


def test_guard_runs_the_smallest_and_oldest_image_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_image(name: str) -> str:
        if name == DEFAULT_IMAGE:
            raise ImageNotFound("not found")
        return name

    monkeypatch.delenv("PYTHON_IMAGE", raising=False)
    monkeypatch.delenv(IMAGE_VARIABLE, raising=False)
    listed = [
        {"Id": id_, "Size": size, "Created": created, "RepoTags": tags}
        for id_, size, created, tags in (
            ("unnamed", 1, 1, []),
            ("derived", 1, 1, ["mine:dev"]),
            ("serve", 2, 5, ["microjobs/serve:dev"]),
            ("train", 3, 1, ["microjobs/train-pytorch:dev"]),
        )
    ]
    client = SimpleNamespace(
        images=SimpleNamespace(get=get_image),
        api=SimpleNamespace(images=lambda filters: listed if filters else []),
        version=dict,
    )
    assert Guards(cast("Any", client))._image == "serve"


def test_variables_of_the_image_replace_defaults(tmp_path: Path) -> None:
    created: list[Mapping[str, str]] = []
    image = SimpleNamespace(attrs={"Config": {"Env": ["B=image", "C=image", "D"]}})
    client = SimpleNamespace(
        info=lambda: {"MemTotal": 2},
        version=dict,
        images=SimpleNamespace(get=lambda _: image),
        containers=SimpleNamespace(create=lambda *_, environment, **__: created.append(environment)),
    )
    host = HostPlan("a", "image", tmp_path, defaults=dict.fromkeys("ABC", "default"), environment={"C": "request"})
    DockerRuntime(Home(tmp_path / "home"), cast("Any", client))._create(Plan("job/a", (host,)), host, {}, [])
    assert created == [{"A": "default", "C": "request"}]


def make_podman(**apis: Any) -> Any:
    """Return a client of an engine that is Podman."""
    return SimpleNamespace(version=lambda: {"Components": [{"Name": "Podman Engine"}]}, **apis)


def test_podman_overlays_only_what_hosts_cannot_change(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    inputs = [Input("/a", data), Input("/b", data, read_only=True)]
    assert Overlays(make_podman()).divide(inputs) == ([inputs[1]], [inputs[0]])
    docker = SimpleNamespace(version=dict)
    assert Overlays(cast("Any", docker)).divide(inputs) == (inputs, [])


@pytest.mark.parametrize("isolated", [True, False])
def test_hosts_on_podman_know_the_addresses_of_each_other(tmp_path: Path, isolated: bool) -> None:
    """Podman's internal networks have no name server, and the one of other networks is slow under load.

    The gateway is this machine.
    """
    one = plan(tmp_path, "exit 0")
    two = replace(one, isolated=isolated, hosts=(one.hosts[0], replace(one.hosts[0], name="algo-2")))
    config = {"Subnet": "10.89.0.0/24", "Gateway": "10.89.0.1"}
    network = cast("Any", SimpleNamespace(name="n", attrs={"IPAM": {"Config": [config]}}))
    client = make_podman(api=SimpleNamespace(create_endpoint_config=dict))
    options = Networks(client, home_labels(tmp_path)).container_options(two, two.hosts[1], network, "10.88.0.1")
    assert options["extra_hosts"] == {"algo-1": "10.89.0.2", "algo-2": "10.89.0.3"}
    assert options["networking_config"]["n"] == {"aliases": ["algo-2"], "ipv4_address": "10.89.0.3"}
    assert list(options["networking_config"]) == (["n"] if isolated else ["n", "podman"])
    assert ipv4_gateway(network) == "10.89.0.1/24"


def test_podman_volumes_of_other_plans_are_not_removed(tmp_path: Path) -> None:
    labels = home_labels(tmp_path).common_labels("job/a")
    removed: list[str] = []
    volumes = [
        SimpleNamespace(attrs={"Labels": own}, remove=lambda name=name: removed.append(name))
        for name, own in {
            "job/a": labels,
            "job/b": {**labels, PLAN_LABEL: "job/b"},
            "another home's job/a": {**labels, HOME_LABEL: "1"},
            "without labels": None,
        }.items()
    ]

    def list_nothing(**_: Any) -> list[Any]:
        return []

    client = make_podman(  # it lists the volumes that have any of the labels
        info=dict,
        volumes=SimpleNamespace(list=lambda **_: volumes if not removed else []),
        containers=SimpleNamespace(list=list_nothing),
        networks=SimpleNamespace(list=list_nothing),
    )
    DockerRuntime(Home(tmp_path / "home"), client).remove("job/a")
    assert removed == ["job/a"]


def home_labels(tmp_path: Path) -> Labels:
    """Return the labels of the home that `docker_runtime` has."""
    return Labels(Home(tmp_path / "home"))


def lines(host: Host) -> list[bytes]:
    return [line.text for line in host.lines()]


@pytest.mark.engine
def test_inputs_are_copied_where_they_cannot_be_overlaid(
    tmp_path: Path, docker_runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes: list[str] = []
    monkeypatch.setattr(Overlays, "volume", lambda *_: _broken_volume(volumes))
    (host,) = docker_runtime.start(plan(tmp_path, f"cd {DATA} && cat x && echo changed > x && echo && cat x"))
    assert (host.wait().code, lines(host)) == (0, [b"original", b"changed"])
    assert (tmp_path / "data" / "x").read_text() == "original"
    docker_runtime.remove("job/a")
    with open_engine() as engine:
        for volume in volumes:
            engine.volumes.get(volume).remove()


def _broken_volume(volumes: list[str]) -> str:
    """Create an overlay volume that the engine cannot mount, as if its folders were on another machine."""
    options = {"type": "overlay", "device": "overlay", "o": "lowerdir=/nowhere,upperdir=/nowhere,workdir=/nowhere"}
    with open_engine() as engine:
        volumes.append(engine.volumes.create(driver="local", driver_opts=options).name)
    return volumes[-1]


@pytest.mark.engine
def test_long_line_is_not_split(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(
        plan(tmp_path, "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end; printf 'no end'")
    )
    assert lines(host) == [b"x" * 100_000, b"end", b"no end"]


@pytest.mark.engine
def test_lines_are_the_same_on_each_call(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(plan(tmp_path, "for n in 1 2 3; do echo $n; sleep 0.2; done"))
    assert [line.text for line in host.lines()] == lines(host) == [b"1", b"2", b"3"]


@pytest.mark.engine
def test_exhausted_memory_is_reported(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    template = plan(tmp_path, "exec python3 -c 'x = bytearray(10**9)'")
    small = replace(template, hosts=(replace(template.hosts[0], limits=HostLimits(1, 50 << 20)),))
    (host,) = docker_runtime.start(small)
    ended = host.wait()
    assert (ended.code, ended.reason) == (137, "it ran out of memory")


@pytest.mark.engine
def test_container_that_another_program_removes_ends_the_host(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(plan(tmp_path, "sleep 60"))
    (container,) = list_containers(Home(tmp_path / "home"))
    container.remove(force=True)
    assert host.wait().code == 137
    docker_runtime.remove("job/a")  # its volumes still exist


@pytest.mark.engine
def test_remove_deletes_the_volumes_of_the_image(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    with open_engine() as engine:
        container = engine.containers.create(image_name("serve"))
        image = container.commit(changes="VOLUME /scratch")
        container.remove()
        template = plan(tmp_path, "exit 0")
        docker_runtime.start(replace(template, hosts=(replace(template.hosts[0], image=str(image.id)),)))
        (container,) = list_containers(Home(tmp_path / "home"))
        (volume,) = (mount["Name"] for mount in container.attrs["Mounts"] if mount["Destination"] == "/scratch")
        docker_runtime.remove(template.name)
        engine.images.remove(str(image.id))
        with pytest.raises(NotFound):
            engine.volumes.get(volume)


@pytest.mark.engine
def test_image_for_another_architecture_is_reported(docker_runtime: DockerRuntime) -> None:
    name = f"microjobs-test-{secrets.token_hex(4)}:1"
    with open_engine() as engine:
        machine = engine.version()["Arch"]
        other = "arm64" if machine == "amd64" else "amd64"
        tiny_image.load(name, [b"layer"], "", architecture=other)
        try:
            note = docker_runtime.prepare(name)
            assert docker_engine.list_emulated_images(engine)[name] == other
        finally:
            engine.images.remove(name)
    assert note is not None
    assert f"image {name} is for {other}, but the engine's machine is {machine}: it runs emulated" in note
    assert docker_runtime.prepare(image_name("serve")) is None


@pytest.mark.parametrize(
    ("architecture", "machine", "is_native"),
    [
        ("amd64", "amd64", True),
        ("arm64", "amd64", False),
        ("amd64", "arm64", False),
        ("386", "amd64", True),
        ("arm", "arm64", True),
        ("arm", "amd64", False),
        ("", "arm64", True),
        ("amd64", "", True),
    ],
)
def test_machine_runs_its_own_architecture(architecture: str, machine: str, is_native: bool) -> None:
    assert docker_engine.is_native(architecture, machine) == is_native


@pytest.mark.engine
def test_plan_that_cannot_start_leaves_nothing(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    broken = Plan("job/b", (HostPlan("algo-1", image_name("serve"), tmp_path, entrypoint=("/no/such/program",)),))
    with pytest.raises(CannotRunError, match="no such file or directory"):
        docker_runtime.start(broken)
    assert docker_runtime.find_hosts() == {}


@pytest.mark.engine
def test_start_waits_for_the_removal_of_an_earlier_container(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    """The engine completes a request whose connection broke, maybe after the plan was removed."""
    made = plan(tmp_path, "exit 0")
    client = docker.from_env()
    earlier = client.containers.create(image_name("serve"), name=home_labels(tmp_path).container_name(made, "algo-1"))
    removal = threading.Timer(1.0, lambda: earlier.remove(force=True))
    removal.start()
    (host,) = docker_runtime.start(made)
    assert host.wait().code == 0
    removal.join()
    client.close()


@pytest.mark.engine
def test_find_hosts_ignores_containers_that_were_not_started(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    """The engine reports exit code 0 for such a container."""
    made = plan(tmp_path, "exit 0")
    docker_runtime._create(made, made.hosts[0], {}, [])
    assert docker_runtime.find_hosts() == {"job/a": ()}


@pytest.mark.engine
def test_find_hosts_returns_no_hosts_if_one_is_missing(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    one = plan(tmp_path, "sleep 60")
    two = replace(one, hosts=(one.hosts[0], replace(one.hosts[0], name="algo-2")))
    docker_runtime.start(two)
    client = docker.from_env()
    client.containers.get(home_labels(tmp_path).container_name(two, "algo-2")).remove(force=True, v=True)
    client.close()
    assert docker_runtime.find_hosts() == {"job/a": ()}


@pytest.mark.engine
def test_find_hosts_finds_volumes_and_networks_without_containers(
    tmp_path: Path, docker_runtime: DockerRuntime
) -> None:
    made = replace(plan(tmp_path, "exit 0"), isolated=True)
    labels = home_labels(tmp_path)
    docker_runtime._networks.create(made, labels.plan_labels(made, 1), guarded=False)
    docker_runtime._overlays.volume(tmp_path / "data", labels.plan_labels(replace(made, name="job/b"), 1))
    assert docker_runtime.find_hosts() == {"job/a": (), "job/b": ()}
    docker_runtime.remove("job/a")
    docker_runtime.remove("job/b")
    assert docker_runtime.find_hosts() == {}


@pytest.mark.engine
def test_plans_of_another_home_are_not_touched(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    docker_runtime.start(plan(tmp_path, "sleep 60"))
    other = DockerRuntime(Home(tmp_path / "other"))
    other.remove("job/a")
    assert (list(other.find_hosts()), list(docker_runtime.find_hosts())) == ([], ["job/a"])
    other.close()


@pytest.mark.engine
def test_files_belong_to_the_caller(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(plan(tmp_path, f"umask 077; echo w > {LAYOUT.model}/w; chown 1234 {LAYOUT.model}/w"))
    host.wait()
    assert copy_from_host(host, str(LAYOUT.model), tmp_path / "copied")
    found = (tmp_path / "copied" / "w").stat()
    assert found.st_uid == tmp_path.stat().st_uid
    assert not copy_from_host(host, str(LAYOUT.code), tmp_path / "none")


@pytest.mark.engine
def test_folders_are_added_to_a_running_container_and_removed(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    source, models = tmp_path / "source", f"{LAYOUT.root}/models"
    (source / "code").mkdir(parents=True)
    (source / "code" / "a.txt").write_text("1")
    (host,) = docker_runtime.start(plan(tmp_path, "exec sleep 60"))
    for round_ in ("first", "second"):  # the empty file that remains is no obstacle
        host.add_folder(source, f"{models}/one/model")
        assert copy_from_host(host, models, tmp_path / f"{round_} added")
        assert (tmp_path / f"{round_} added" / "one" / "model" / "code" / "a.txt").read_text() == "1"
        host.remove_folder(f"{models}/one")
        assert copy_from_host(host, models, tmp_path / f"{round_} removed")
        assert (tmp_path / f"{round_} removed" / "one").read_bytes() == b""
    docker_runtime.remove("job/a")
    host.remove_folder(models)
    with pytest.raises(CannotRunError, match="was removed"):
        host.add_folder(source, models)


def archive(*members: tarfile.TarInfo) -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return [file.getvalue()]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("model/../../escape"),
        member("model/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("model/link", tarfile.SYMTYPE, "../../outside"),
        member("model/device", tarfile.CHRTYPE),
    ],
    ids=["path", "absolute link", "link outside", "device"],
)
def test_links_out_of_the_folder_are_left_out(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    tree = unpack(archive(member("model", tarfile.DIRTYPE), bad, member("model/good")), tmp_path / "to")
    assert list(tree) == ["good"]
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_links_inside_stay_links(tmp_path: Path) -> None:
    found = archive(member("m/a"), member("m/soft", tarfile.SYMTYPE, "a"), member("m/hard", tarfile.LNKTYPE, "m/a"))
    write_tree(unpack(found, tmp_path / "contents"), tmp_path)
    assert (tmp_path / "soft").is_symlink()
    assert (tmp_path / "hard").read_text() == (tmp_path / "soft").read_text() == "x"


def test_packed_files_belong_to_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "a" / "x").touch(mode=0o600)
    with pack([(tmp_path / "a", "/some/where")]) as file, tarfile.open(fileobj=file) as tar:
        found = {item.name: (item.uid, oct(item.mode)) for item in tar}
    assert found == {"some": (0, "0o755"), "some/where": (0, "0o755"), "some/where/x": (0, "0o644")}


@pytest.mark.engine
def test_port_is_reached_through_the_engine_if_no_address_is_reachable(
    tmp_path: Path, docker_runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("microjobs_orchestrator.local.runtimes.docker.guards._connect", refuse)
    content = bytes(range(256)) * 4096
    server = plan(tmp_path, f"cd {DATA} && exec python3 -m http.server 8080")
    (tmp_path / "data" / "content").write_bytes(content)
    (host,) = docker_runtime.start(replace(server, hosts=(replace(server.hosts[0], port=8080),)))
    wait_until(lambda: _get(host, "/x"), lambda answer: answer is not None, seconds=30)
    answers = [_get(host, "/content") for _ in range(3)]
    assert [answer and answer.endswith(b"\r\n\r\n" + content) for answer in answers] == [True] * 3


def _get(host: Host, path: str) -> bytes | None:
    """Return the response of the host's HTTP server; None if it does not listen."""
    try:
        connection = host.connect(10)
    except ConnectionRefusedError:
        return None
    with connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))
