"""Tests of the selection of GPUs: the requests that the engine gets, and the variables of processes."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan, Plan
from microjobs_orchestrator.local.runtimes.docker.runtime import DockerRuntime
from microjobs_orchestrator.local.runtimes.gpus import make_process_variables

UUID = "GPU-8e2a6f2c-0c0b-4c1e-9a4c-2f9a3d0c7b11"


def make_host_plan(selection: str | None, *, has_gpus: bool = True, **environment: str) -> HostPlan:
    variables = {} if selection is None else {"NVIDIA_VISIBLE_DEVICES": selection}
    return HostPlan("algo-1", "image", Path("files"), has_gpus=has_gpus, environment={**variables, **environment})


def request_devices(folder: Path, host: HostPlan, runtimes: Sequence[str]) -> Any:
    """Return the device requests in the request that creates a host's container."""
    requests: list[dict[str, Any]] = []
    client = SimpleNamespace(
        info=lambda: {"MemTotal": 2, "Runtimes": dict.fromkeys(runtimes)},
        version=dict,
        images=SimpleNamespace(get=lambda _: SimpleNamespace(attrs={"Config": {}})),
        containers=SimpleNamespace(create=lambda *_, **options: requests.append(options)),
    )
    runtime = DockerRuntime(Home(folder / "home"), cast("Any", client))
    runtime._create(Plan("job/a", (host,)), host, {}, [])
    return requests[0].get("device_requests")


@pytest.mark.parametrize(
    ("selection", "count", "devices"),
    [(None, -1, None), ("all", -1, None), ("0", 0, ["0"]), ("1, 3", 0, ["1", "3"]), (UUID, 0, [UUID])],
)
def test_container_gets_the_selected_gpus(
    selection: str | None, count: int, devices: list[str] | None, tmp_path: Path
) -> None:
    (request,) = request_devices(tmp_path, make_host_plan(selection), ["runc", "nvidia"])
    assert (request["Count"], request["DeviceIDs"] or None) == (count, devices)
    assert request["Capabilities"] == [["gpu"]]


@pytest.mark.parametrize("host", [make_host_plan("none"), make_host_plan(""), make_host_plan("0", has_gpus=False)])
def test_container_gets_no_gpus(host: HostPlan, tmp_path: Path) -> None:
    assert request_devices(tmp_path, host, ["nvidia"]) is None


def test_engine_without_gpus_gets_no_request_for_them(tmp_path: Path) -> None:
    assert request_devices(tmp_path, make_host_plan("0"), ["runc"]) is None


@pytest.mark.parametrize(
    ("host", "visible_devices"),
    [
        (make_host_plan(None), None),
        (make_host_plan("all"), None),
        (make_host_plan("1"), "1"),
        (make_host_plan(f"2,{UUID}"), f"2,{UUID}"),
        (make_host_plan("none"), ""),
        (make_host_plan("0", has_gpus=False), ""),
        (make_host_plan("2,3", CUDA_VISIBLE_DEVICES="1"), "3"),
        (make_host_plan("2,3", CUDA_VISIBLE_DEVICES="5"), ""),
    ],
)
def test_process_sees_the_selected_gpus(host: HostPlan, visible_devices: str | None) -> None:
    variables = make_process_variables(host)
    assert variables.get("CUDA_VISIBLE_DEVICES") == visible_devices
    assert ("CUDA_DEVICE_ORDER" in variables) == bool(visible_devices)


@pytest.mark.parametrize("selection", ["first", "0,", "0;1", "-1"])
def test_invalid_selection_raises(selection: str) -> None:
    with pytest.raises(CannotRunError, match=r"NVIDIA_VISIBLE_DEVICES has .*: use indices or UUIDs of GPUs"):
        make_process_variables(make_host_plan(selection))
