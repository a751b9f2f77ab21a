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


def host_plan(selection: str | None, *, gpus: bool = True, **environment: str) -> HostPlan:
    selected = {} if selection is None else {"NVIDIA_VISIBLE_DEVICES": selection}
    return HostPlan("algo-1", "image", Path("files"), gpus=gpus, environment={**selected, **environment})


def request_devices(folder: Path, host: HostPlan, runtimes: Sequence[str]) -> Any:
    """Return the device requests in the request that creates a host's container."""
    created: list[dict[str, Any]] = []
    client = SimpleNamespace(
        info=lambda: {"MemTotal": 2, "Runtimes": dict.fromkeys(runtimes)},
        version=dict,
        images=SimpleNamespace(get=lambda _: SimpleNamespace(attrs={"Config": {}})),
        containers=SimpleNamespace(create=lambda *_, **options: created.append(options)),
    )
    runtime = DockerRuntime(Home(folder / "home"), cast("Any", client))
    runtime._create(Plan("job/a", (host,)), host, {}, [])
    return created[0].get("device_requests")


@pytest.mark.parametrize(
    ("selection", "count", "devices"),
    [(None, -1, None), ("all", -1, None), ("0", 0, ["0"]), ("1, 3", 0, ["1", "3"]), (UUID, 0, [UUID])],
)
def test_container_gets_the_selected_gpus(
    selection: str | None, count: int, devices: list[str] | None, tmp_path: Path
) -> None:
    (request,) = request_devices(tmp_path, host_plan(selection), ["runc", "nvidia"])
    assert (request["Count"], request["DeviceIDs"] or None) == (count, devices)
    assert request["Capabilities"] == [["gpu"]]


@pytest.mark.parametrize("host", [host_plan("none"), host_plan(""), host_plan("0", gpus=False)])
def test_container_gets_no_gpus(host: HostPlan, tmp_path: Path) -> None:
    assert request_devices(tmp_path, host, ["nvidia"]) is None


def test_engine_without_gpus_gets_no_request_for_them(tmp_path: Path) -> None:
    assert request_devices(tmp_path, host_plan("0"), ["runc"]) is None


@pytest.mark.parametrize(
    ("host", "visible"),
    [
        (host_plan(None), None),
        (host_plan("all"), None),
        (host_plan("1"), "1"),
        (host_plan(f"2,{UUID}"), f"2,{UUID}"),
        (host_plan("none"), ""),
        (host_plan("0", gpus=False), ""),
        (host_plan("2,3", CUDA_VISIBLE_DEVICES="1"), "3"),
        (host_plan("2,3", CUDA_VISIBLE_DEVICES="5"), ""),
    ],
)
def test_process_sees_the_selected_gpus(host: HostPlan, visible: str | None) -> None:
    variables = make_process_variables(host)
    assert variables.get("CUDA_VISIBLE_DEVICES") == visible
    assert ("CUDA_DEVICE_ORDER" in variables) == bool(visible)


@pytest.mark.parametrize("selection", ["first", "0,", "0;1", "-1"])
def test_invalid_selection_raises(selection: str) -> None:
    with pytest.raises(CannotRunError, match=r"NVIDIA_VISIBLE_DEVICES has .*: use indices or UUIDs of GPUs"):
        make_process_variables(host_plan(selection))
