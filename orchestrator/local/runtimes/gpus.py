"""The GPUs of a host: all of the machine, or those that the request selects with NVIDIA_VISIBLE_DEVICES.

https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
"""

import re
import shutil
import subprocess
from collections.abc import Sequence

from microjobs_orchestrator.local.runtimes.base import CannotRunError, GpuUsage, HostPlan

VARIABLE = "NVIDIA_VISIBLE_DEVICES"
CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"
ALL = "all"
NONE = ("", "none", "void")
NVIDIA_SMI_FORMAT = "--format=csv,noheader,nounits"
NVIDIA_SMI_SECONDS = 5.0

DEVICE = re.compile(r"\d+(:\d+)?|(GPU|MIG)-[\w/-]+")
"""Index of a GPU or of a part of it (MIG), or a UUID."""


def select_gpus(host: HostPlan) -> Sequence[str] | None:
    """Return the indices or UUIDs of a host's GPUs; None for all GPUs of the machine.

    Raises:
        CannotRunError: the request's selection is invalid.
    """
    selection = host.environment.get(VARIABLE, ALL).strip()
    if not host.gpus or selection in NONE:
        return ()
    if selection == ALL:
        return None
    devices = [device.strip() for device in selection.split(",")]
    if invalid := [device for device in devices if not DEVICE.fullmatch(device)]:
        raise CannotRunError(
            f"{VARIABLE} has {invalid[0]!r}: use indices or UUIDs of GPUs with commas, as `nvidia-smi -L` lists them, "
            f"or {ALL} or none"
        )
    return devices


def measure_gpus(devices: Sequence[str] | None) -> Sequence[GpuUsage]:
    """Return the use of GPUs of this machine; none if nvidia-smi is not installed or cannot measure them.

    Args:
        devices: indices or UUIDs; None for all GPUs.
    """
    program = shutil.which("nvidia-smi")
    if program is None or devices == ():
        return ()
    selection = [] if devices is None else [f"--id={','.join(devices)}"]
    command = [program, *selection, "--query-gpu=utilization.gpu,memory.used,memory.total", NVIDIA_SMI_FORMAT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_SECONDS)
        return [_parse_usage(line) for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError, ZeroDivisionError):  # such as `[N/A]` for parts of a GPU
        return ()


def _parse_usage(line: str) -> GpuUsage:
    """Parse a line such as `37, 1024, 81559`: percent, and MiB."""
    utilization, used, total = map(float, line.split(","))
    return GpuUsage(utilization, 100 * used / total)


def make_process_variables(host: HostPlan) -> dict[str, str]:
    """Return the variables with which CUDA in a process sees only the host's GPUs.

    As in a container, indices in the request's CUDA_VISIBLE_DEVICES count the selected GPUs only.
    """
    devices = select_gpus(host)
    if devices is None:
        return {}
    indices = host.environment.get(CUDA_VARIABLE, ",".join(map(str, range(len(devices))))).split(",")
    chosen = [devices[int(index)] for index in indices if index.isdigit() and int(index) < len(devices)]
    # nvidia-smi counts GPUs by their PCI address. CUDA would count the fastest one first.
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if chosen else {}
    return {**order, CUDA_VARIABLE: ",".join(chosen)}
