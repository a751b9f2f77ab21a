"""Tests of the Docker runtime without a server."""

import contextlib
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
from microjobs_orchestrator.local.runtimes.docker.images import make_missing_image_remedy
from microjobs_orchestrator.local.runtimes.docker.labels import HOME_LABEL, PLAN_LABEL, Labels
from microjobs_orchestrator.local.runtimes.docker.networks import Networks, find_ipv4_interface
from microjobs_orchestrator.local.runtimes.docker.overlays import Overlays
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from tests.conftest import make_image_name
from tests.local.machine import list_containers, open_engine
from tests.local.trees import copy_from_host, write_tree
from tests.polling import wait_until
from tests.push import tiny_image

LAYOUT = Layout()
INPUT_PATH = str(LAYOUT.channel("train"))
"""The path of the input in a host."""


def make_plan(tmp_path: Path, script: str, name: str = "job/a", image: str = "serve") -> Plan:
    files, data = tmp_path / "files", tmp_path / "data"
    for folder in (files / "model", data):
        folder.mkdir(parents=True, exist_ok=True)
    (data / "x").write_text("original")
    inputs = (Input(INPUT_PATH, data),)
    return Plan(
        name,
        (HostPlan("algo-1", make_image_name(image), files, inputs, entrypoint=("/bin/sh", "-c"), arguments=(script,)),),
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
    assert remedy in make_missing_image_remedy(image)
    assert ("microjobs build" in remedy) == ("microjobs build" in make_missing_image_remedy(image))


def test_guard_runs_the_smallest_image_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_image(name: str) -> str:
        if name == DEFAULT_IMAGE:
            raise ImageNotFound("not found")
        return name

    monkeypatch.delenv("PYTHON_IMAGE", raising=False)
    monkeypatch.delenv(IMAGE_VARIABLE, raising=False)
    image_summaries = [
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
        api=SimpleNamespace(images=lambda filters: image_summaries if filters else []),
        version=dict,
    )
    assert Guards(cast("Any", client))._image == "serve"


def test_variables_of_the_image_replace_defaults(tmp_path: Path) -> None:
    environments: list[Mapping[str, str]] = []
    image = SimpleNamespace(attrs={"Config": {"Env": ["B=image", "C=image", "D"]}})
    client = SimpleNamespace(
        info=lambda: {"MemTotal": 2},
        version=dict,
        images=SimpleNamespace(get=lambda _: image),
        containers=SimpleNamespace(create=lambda *_, environment, **__: environments.append(environment)),
    )
    host = HostPlan(
        "a", "image", tmp_path, default_variables=dict.fromkeys("ABC", "default"), environment={"C": "request"}
    )
    DockerRuntime(Home(tmp_path / "home"), cast("Any", client))._create(Plan("job/a", (host,)), host, {}, [])
    assert environments == [{"A": "default", "C": "request"}]


def make_podman(**apis: Any) -> Any:
    """Return a stub of a client that is connected to Podman."""
    return SimpleNamespace(version=lambda: {"Components": [{"Name": "Podman Engine"}]}, **apis)


def make_docker(*security_options: str, **apis: Any) -> Any:
    """Return a stub of a client that is connected to Docker."""
    return SimpleNamespace(version=dict, info=lambda: {"SecurityOptions": security_options}, **apis)


def test_podman_and_rootless_docker_overlay_only_read_only_inputs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    inputs = [Input("/a", data), Input("/b", data, read_only=True)]
    assert Overlays(make_docker()).divide(inputs) == (inputs, [])
    for engine in (make_podman(), make_docker("name=rootless")):
        assert Overlays(engine).divide(inputs) == ([inputs[1]], [inputs[0]])


@pytest.mark.parametrize("security_options", [(), ("name=rootless",)])
def test_only_an_engine_of_root_gets_overlays_whose_folders_can_be_renamed(security_options: tuple[str, ...]) -> None:
    """The kernel refuses the option `redirect_dir` to users other than root."""
    volume_options: list[str] = []

    def create(driver_opts: Mapping[str, str] | None = None, **_: Any) -> Any:
        volume_options.append((driver_opts or {}).get("o", ""))
        return SimpleNamespace(name="n", attrs={"Mountpoint": "/m"})

    engine = make_docker(*security_options, volumes=SimpleNamespace(create=create))
    Overlays(engine).make_volume(Path("/data"), {})
    assert ("redirect_dir=on" in volume_options[-1]) == (not security_options)


def test_limits_that_the_engine_ignores_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_docker("name=rootless")
    engine.info = lambda: {"SecurityOptions": ["name=rootless"], "CgroupVersion": "1"}
    runtime = DockerRuntime(Home(tmp_path / "home"), engine)
    unlimited_host = HostPlan("algo-1", "image", tmp_path)
    for host in (unlimited_host, replace(unlimited_host, limits=HostLimits(cpus=1))):
        with contextlib.suppress(AttributeError):  # the engine cannot start containers
            runtime.start(Plan("job/a", (host,)))
    assert caplog.messages == [f"job/a: {docker_engine.NO_LIMITS_MESSAGE}"]


@pytest.mark.parametrize("isolated", [True, False])
def test_hosts_on_podman_know_the_addresses_of_each_other(tmp_path: Path, isolated: bool) -> None:
    """The container gets the addresses as extra hosts, because Podman's internal networks have no name server, and the
    name server of other networks is slow under load.

    The addresses begin after the address of the gateway, which is this machine.
    """
    one_host = make_plan(tmp_path, "exit 0")
    two_hosts = replace(
        one_host, isolated=isolated, hosts=(one_host.hosts[0], replace(one_host.hosts[0], name="algo-2"))
    )
    config = {"Subnet": "10.89.0.0/24", "Gateway": "10.89.0.1"}
    network = cast("Any", SimpleNamespace(name="n", attrs={"IPAM": {"Config": [config]}}))
    client = make_podman(api=SimpleNamespace(create_endpoint_config=dict))
    options = Networks(client, make_home_labels(tmp_path)).make_container_options(
        two_hosts, two_hosts.hosts[1], network, "10.88.0.1"
    )
    assert options["extra_hosts"] == {"algo-1": "10.89.0.2", "algo-2": "10.89.0.3"}
    assert options["networking_config"]["n"] == {"aliases": ["algo-2"], "ipv4_address": "10.89.0.3"}
    assert list(options["networking_config"]) == (["n"] if isolated else ["n", "podman"])
    assert find_ipv4_interface(network) == "10.89.0.1/24"


def test_podman_volumes_of_other_plans_are_not_removed(tmp_path: Path) -> None:
    labels = make_home_labels(tmp_path).make_common_labels("job/a")
    removed_volumes: list[str] = []
    volumes = [
        SimpleNamespace(attrs={"Labels": volume_labels}, remove=lambda name=name: removed_volumes.append(name))
        for name, volume_labels in {
            "job/a": labels,
            "job/b": {**labels, PLAN_LABEL: "job/b"},
            "another home's job/a": {**labels, HOME_LABEL: "1"},
            "without labels": None,
        }.items()
    ]

    def list_nothing(**_: Any) -> list[Any]:
        return []

    client = make_podman(  # Podman lists the volumes that have any of the labels
        info=dict,
        volumes=SimpleNamespace(list=lambda **_: volumes if not removed_volumes else []),
        containers=SimpleNamespace(list=list_nothing),
        networks=SimpleNamespace(list=list_nothing),
    )
    DockerRuntime(Home(tmp_path / "home"), client).remove("job/a")
    assert removed_volumes == ["job/a"]


def make_home_labels(tmp_path: Path) -> Labels:
    """Return the labels of the home that `docker_runtime` has."""
    return Labels(Home(tmp_path / "home"))


def read_lines(host: Host) -> list[bytes]:
    return [line.text for line in host.lines()]


@pytest.mark.engine
def test_inputs_are_copied_where_they_cannot_be_overlaid(
    tmp_path: Path, docker_runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes: list[str] = []
    monkeypatch.setattr(Overlays, "make_volume", lambda *_: _make_broken_volume(volumes))
    (host,) = docker_runtime.start(
        make_plan(tmp_path, f"cd {INPUT_PATH} && cat x && echo changed > x && echo && cat x")
    )
    assert (host.wait().code, read_lines(host)) == (0, [b"original", b"changed"])
    assert (tmp_path / "data" / "x").read_text() == "original"
    docker_runtime.remove("job/a")
    with open_engine() as engine:
        for volume in volumes:
            engine.volumes.get(volume).remove()


def _make_broken_volume(volumes: list[str]) -> str:
    """Create an overlay volume that the engine cannot mount, as if its folders were on another machine."""
    options = {"type": "overlay", "device": "overlay", "o": "lowerdir=/nowhere,upperdir=/nowhere,workdir=/nowhere"}
    with open_engine() as engine:
        volumes.append(engine.volumes.create(driver="local", driver_opts=options).name)
    return volumes[-1]


@pytest.mark.engine
def test_long_line_is_not_split(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(
        make_plan(tmp_path, "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end; printf 'no end'")
    )
    assert read_lines(host) == [b"x" * 100_000, b"end", b"no end"]


@pytest.mark.engine
def test_lines_are_the_same_on_each_call(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(make_plan(tmp_path, "for n in 1 2 3; do echo $n; sleep 0.2; done"))
    assert [line.text for line in host.lines()] == read_lines(host) == [b"1", b"2", b"3"]


@pytest.mark.engine
def test_exhausted_memory_is_reported(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    template = make_plan(tmp_path, "exec python3 -c 'x = bytearray(10**9)'")
    limited_plan = replace(
        template, hosts=(replace(template.hosts[0], limits=HostLimits(cpus=1, memory_bytes=50 << 20)),)
    )
    (host,) = docker_runtime.start(limited_plan)
    exit_ = host.wait()
    assert (exit_.code, exit_.reason) == (137, "it ran out of memory")


@pytest.mark.engine
def test_container_that_another_program_removes_ends_the_host(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(make_plan(tmp_path, "sleep 60"))
    (container,) = list_containers(Home(tmp_path / "home"))
    container.remove(force=True)
    assert host.wait().code == 137
    docker_runtime.remove("job/a")  # the container's volumes still exist


@pytest.mark.engine
def test_remove_deletes_the_volumes_of_the_image(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    with open_engine() as engine:
        container = engine.containers.create(make_image_name("serve"))
        image = container.commit(changes="VOLUME /scratch")
        container.remove()
        template = make_plan(tmp_path, "exit 0")
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
        other_architecture = "arm64" if machine == "amd64" else "amd64"
        tiny_image.load(name, [b"layer"], "", architecture=other_architecture)
        try:
            note = docker_runtime.prepare(name)
            assert docker_engine.list_emulated_images(engine)[name] == other_architecture
        finally:
            engine.images.remove(name)
    assert note is not None
    assert f"image {name} is for {other_architecture}, but the engine's machine is {machine}: it runs emulated" in note
    assert docker_runtime.prepare(make_image_name("serve")) is None


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
def test_images_for_compatible_architectures_are_native(architecture: str, machine: str, is_native: bool) -> None:
    assert docker_engine.is_native(architecture, machine) == is_native


@pytest.mark.engine
def test_plan_that_cannot_start_leaves_nothing(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    host = HostPlan("algo-1", make_image_name("serve"), tmp_path, entrypoint=("/no/such/program",))
    with pytest.raises(CannotRunError, match="no such file or directory"):
        docker_runtime.start(Plan("job/b", (host,)))
    assert docker_runtime.find_hosts() == {}


@pytest.mark.engine
def test_start_waits_for_the_removal_of_an_earlier_container(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    """If the connection of a request breaks, the engine may create the container later, even after the removal of the
    plan. Until this container is removed, no new container can have its name."""
    job_plan = make_plan(tmp_path, "exit 0")
    client = docker.from_env()
    earlier_container = client.containers.create(
        make_image_name("serve"), name=make_home_labels(tmp_path).make_container_name(job_plan, "algo-1")
    )
    removal = threading.Timer(1.0, lambda: earlier_container.remove(force=True))
    removal.start()
    (host,) = docker_runtime.start(job_plan)
    assert host.wait().code == 0
    removal.join()
    client.close()


@pytest.mark.engine
def test_find_hosts_ignores_containers_that_were_not_started(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    """The engine reports exit code 0 for such a container, as if its host had succeeded."""
    job_plan = make_plan(tmp_path, "exit 0")
    docker_runtime._create(job_plan, job_plan.hosts[0], {}, [])
    assert docker_runtime.find_hosts() == {"job/a": ()}


@pytest.mark.engine
def test_find_hosts_returns_no_hosts_if_one_is_missing(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    one_host = make_plan(tmp_path, "sleep 60")
    two_hosts = replace(one_host, hosts=(one_host.hosts[0], replace(one_host.hosts[0], name="algo-2")))
    docker_runtime.start(two_hosts)
    client = docker.from_env()
    client.containers.get(make_home_labels(tmp_path).make_container_name(two_hosts, "algo-2")).remove(
        force=True, v=True
    )
    client.close()
    assert docker_runtime.find_hosts() == {"job/a": ()}


@pytest.mark.engine
def test_find_hosts_finds_volumes_and_networks_without_containers(
    tmp_path: Path, docker_runtime: DockerRuntime
) -> None:
    job_plan = replace(make_plan(tmp_path, "exit 0"), isolated=True)
    labels = make_home_labels(tmp_path)
    docker_runtime._networks.create(job_plan, labels.make_plan_labels(job_plan, 1), guarded=False)
    docker_runtime._overlays.make_volume(tmp_path / "data", labels.make_plan_labels(replace(job_plan, name="job/b"), 1))
    assert docker_runtime.find_hosts() == {"job/a": (), "job/b": ()}
    docker_runtime.remove("job/a")
    docker_runtime.remove("job/b")
    assert docker_runtime.find_hosts() == {}


@pytest.mark.engine
def test_plans_of_another_home_are_not_touched(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    docker_runtime.start(make_plan(tmp_path, "sleep 60"))
    other_runtime = DockerRuntime(Home(tmp_path / "other"))
    other_runtime.remove("job/a")
    assert (list(other_runtime.find_hosts()), list(docker_runtime.find_hosts())) == ([], ["job/a"])
    other_runtime.close()


@pytest.mark.engine
def test_files_belong_to_the_caller(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    (host,) = docker_runtime.start(
        make_plan(tmp_path, f"umask 077; echo w > {LAYOUT.model}/w; chown 1234 {LAYOUT.model}/w")
    )
    host.wait()
    assert copy_from_host(host, str(LAYOUT.model), tmp_path / "copied")
    status = (tmp_path / "copied" / "w").stat()
    assert status.st_uid == tmp_path.stat().st_uid
    assert not copy_from_host(host, str(LAYOUT.code), tmp_path / "none")


@pytest.mark.engine
def test_folders_are_added_to_a_running_container_and_removed(tmp_path: Path, docker_runtime: DockerRuntime) -> None:
    source, models = tmp_path / "source", f"{LAYOUT.root}/models"
    (source / "code").mkdir(parents=True)
    (source / "code" / "a.txt").write_text("1")
    (host,) = docker_runtime.start(make_plan(tmp_path, "exec sleep 60"))
    for round_ in ("first", "second"):  # the removal leaves an empty file, which the second addition replaces
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


def make_archive(*members: tarfile.TarInfo) -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return [file.getvalue()]


def make_member(name: str, member_type: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = member_type, target
    info.size = 1 if member_type == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "invalid_member",
    [
        make_member("model/../../escape"),
        make_member("model/link", tarfile.SYMTYPE, "/etc/passwd"),
        make_member("model/link", tarfile.SYMTYPE, "../../outside"),
        make_member("model/device", tarfile.CHRTYPE),
    ],
    ids=["path", "absolute link", "link outside", "device"],
)
def test_devices_and_members_that_lead_out_of_the_folder_are_left_out(
    tmp_path: Path, invalid_member: tarfile.TarInfo
) -> None:
    tree = unpack(
        make_archive(make_member("model", tarfile.DIRTYPE), invalid_member, make_member("model/good")), tmp_path / "to"
    )
    assert list(tree) == ["good"]
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_links_inside_the_folder_stay_links(tmp_path: Path) -> None:
    archive = make_archive(
        make_member("m/a"), make_member("m/soft", tarfile.SYMTYPE, "a"), make_member("m/hard", tarfile.LNKTYPE, "m/a")
    )
    write_tree(unpack(archive, tmp_path / "contents"), tmp_path)
    assert (tmp_path / "soft").is_symlink()
    assert (tmp_path / "hard").read_text() == (tmp_path / "soft").read_text() == "x"


def test_packed_files_belong_to_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "a" / "x").touch(mode=0o600)
    with pack([(tmp_path / "a", "/some/where")]) as file, tarfile.open(fileobj=file) as tar:
        owners_and_modes = {item.name: (item.uid, oct(item.mode)) for item in tar}
    assert owners_and_modes == {"some": (0, "0o755"), "some/where": (0, "0o755"), "some/where/x": (0, "0o644")}


@pytest.mark.engine
def test_port_is_reached_through_the_engine_if_no_address_is_reachable(
    tmp_path: Path, docker_runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("microjobs_orchestrator.local.runtimes.docker.guards._connect", refuse)
    content = bytes(range(256)) * 4096
    server_plan = make_plan(tmp_path, f"cd {INPUT_PATH} && exec python3 -m http.server 8080")
    (tmp_path / "data" / "content").write_bytes(content)
    (host,) = docker_runtime.start(replace(server_plan, hosts=(replace(server_plan.hosts[0], port=8080),)))
    wait_until(lambda: _get(host, "/x"), lambda answer: answer is not None)
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
