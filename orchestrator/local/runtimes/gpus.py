"""The GPUs of a host: all GPUs of the machine, or the GPUs that the request selects with NVIDIA_VISIBLE_DEVICES.

https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
"""

import re
import shutil
import subprocess
from collections.abc import Sequence

from microjobs_orchestrator.local.runtimes.base import CannotRunError, GpuUsage, HostPlan

NVIDIA_VARIABLE = "NVIDIA_VISIBLE_DEVICES"
CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"
ALL_GPUS = "all"
NO_GPUS = ("", "none", "void")
"""Values of NVIDIA_VISIBLE_DEVICES that select all GPUs, or no GPU."""
NVIDIA_SMI_FORMAT = "--format=csv,noheader,nounits"
NVIDIA_SMI_SECONDS = 5.0
"""Time limit of the program nvidia-smi, in seconds."""

DEVICE_PATTERN = re.compile(r"\d+(:\d+)?|(GPU|MIG)-[\w/-]+")
"""Matches the index of a GPU or of a part of a GPU (MIG), or a UUID."""


def select_gpus(host: HostPlan) -> Sequence[str] | None:
    """Return the indices or UUIDs of a host's GPUs; None for all GPUs of the machine.

    Raises:
        CannotRunError: the request's selection is invalid.
    """
    selection = host.environment.get(NVIDIA_VARIABLE, ALL_GPUS).strip()
    if not host.has_gpus or selection in NO_GPUS:
        return ()
    if selection == ALL_GPUS:
        return None
    devices = [device.strip() for device in selection.split(",")]
    if invalid := [device for device in devices if not DEVICE_PATTERN.fullmatch(device)]:
        raise CannotRunError(
            f"{NVIDIA_VARIABLE} has {invalid[0]!r}: use indices or UUIDs of GPUs, separated by commas, as "
            f"`nvidia-smi -L` lists them, or {ALL_GPUS} or none"
        )
    return devices


def measure_gpus(devices: Sequence[str] | None) -> Sequence[GpuUsage]:
    """Return the use of GPUs of this machine; empty if nvidia-smi is not installed or cannot measure it.

    Args:
        devices: indices or UUIDs; None for all GPUs.
    """
    program = shutil.which("nvidia-smi")
    if program is None or devices == ():
        return ()
    selection = [] if devices is None else [f"--id={','.join(devices)}"]
    command = [program, *selection, "--query-gpu=utilization.gpu,memory.used,memory.total", NVIDIA_SMI_FORMAT]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_SECONDS)
        return [_parse_usage(line) for line in result.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError, ZeroDivisionError):
        # nvidia-smi prints values such as `[N/A]` for parts of a GPU
        return ()


def _parse_usage(line: str) -> GpuUsage:
    """Parse a line such as `37, 1024, 81559`: percent, and MiB."""
    utilization, used_mib, total_mib = map(float, line.split(","))
    return GpuUsage(utilization, 100 * used_mib / total_mib)


def make_process_variables(host: HostPlan) -> dict[str, str]:
    """Return the variables with which CUDA in a process sees only the host's GPUs.

    As in a container, an index in the request's CUDA_VISIBLE_DEVICES is a position in the list of the selected GPUs,
    not in the list of the machine's GPUs.
    """
    devices = select_gpus(host)
    if devices is None:
        return {}
    indices = host.environment.get(CUDA_VARIABLE, ",".join(map(str, range(len(devices))))).split(",")
    visible_devices = [devices[int(index)] for index in indices if index.isdigit() and int(index) < len(devices)]
    # nvidia-smi numbers GPUs by their PCI address. CUDA would begin with the fastest GPU.
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if visible_devices else {}
    return {**order, CUDA_VARIABLE: ",".join(visible_devices)}
