"""Runs a user's command of a processing job on a Dask cluster of all hosts: `with-dask python3 script.py`.

All hosts run Dask workers until the command ends. The command itself runs on the first host only, where
`dask.distributed.Client()` connects to the cluster.
"""

import importlib.util
import logging
from collections.abc import Sequence

from microjobs.contract import Layout, read_processing_resource_config
from microjobs.dask_cluster import find_certificate
from microjobs.distributed import Program, launch
from microjobs.errors import UserError
from microjobs.interpreter import make_python_command

JOIN_SECONDS = 900.0
"""Seconds for which hosts wait for each other, because one host may need more time to install the requirements."""
GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL for the command when the job ends because of another host."""

logger = logging.getLogger("microjobs")


def run(command: Sequence[str]) -> None:
    """Run Dask workers on all hosts, and the command on the first host. Return when the command has ended.

    Raises:
        UserError: there is no command, the image has no Dask, or the job's certificate is incomplete.
        JobError: the command or a host failed; the reason is the same on all hosts.
        Stopped: the command failed after a stop signal.
    """
    if not command:
        raise UserError("with-dask needs a command: for example, `with-dask python3 script.py`")
    if importlib.util.find_spec("distributed") is None:
        raise UserError("with-dask is not available: this image has no Dask; use the image preprocess")
    layout = Layout.from_environment()
    find_certificate(layout)  # an incomplete certificate is reported before this host waits for the other hosts
    resources = read_processing_resource_config(layout)
    logger.info("Dask cluster of %d hosts: %s", len(resources.hosts), " ".join(command))
    program = Program(
        make_python_command("-m", "microjobs.dask_script_host", *command),
        grace_seconds=GRACE_SECONDS if resources.is_first else 0.0,
    )
    launch(program, resources, join_seconds=JOIN_SECONDS)
