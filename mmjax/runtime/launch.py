"""Finds out from the environment whether this process was started as one of several; touches no device.

In this order: the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; a launcher with several
tasks (Slurm's srun, Open MPI's mpirun); a TPU machine that belongs to a pod. Any other machine is alone.
"""

import importlib.util
import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmjax.errors import UserError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")  # set within srun
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
PATIENCE = 2.0  # seconds for the metadata server of a TPU machine, which answers in milliseconds where there is one


@dataclass(frozen=True)
class Launch:
    """The arguments of `jax.distributed.initialize`; None is left to jax. detect: whether jax may find them out."""

    address: str | None = None
    count: int | None = None
    index: int | None = None
    detect: bool = False

    def __str__(self) -> str:
        who = "the other hosts" if self.count is None else f"process {self.index} of {self.count}"
        return f"{who} at {self.address}" if self.address else who


def announced(
    environment: Mapping[str, str] | None = None, metadata: Callable[[str], str | None] | None = None
) -> Launch | None:
    """Finds out how this process joins the others; None where it is alone.

    environment: default, the process's own. metadata: returns the value that a TPU machine's metadata server has under
    a name, None where it has none.

    Raises:
        UserError: a variable has a value that it can't have, or lacks another one.
    """
    variables = os.environ if environment is None else environment
    set_here = {name: variables[name].strip() for name in (ADDRESS, COUNT, INDEX) if variables.get(name, "").strip()}
    launcher = _launcher(variables)
    if set_here:
        return _by_variables(set_here, launcher)
    if launcher is not None:
        return Launch(count=launcher[0], index=launcher[1], detect=True) if launcher[0] > 1 else None
    if _tpu_hosts(variables, metadata or _metadata) > 1:
        return Launch(detect=True)
    return None


def _by_variables(given: Mapping[str, str], launcher: tuple[int, int] | None) -> Launch | None:
    count = _number(given, COUNT, 1) if COUNT in given else launcher and launcher[0]
    index = _number(given, INDEX, 0) if INDEX in given else launcher and launcher[1]
    stated = " ".join(f"{name}={value}" for name, value in given.items())
    if count is None:
        raise UserError(f"{stated}, but {COUNT} isn't set: set it to the number of processes, or unset the others")
    if index is not None and index >= count:
        raise UserError(f"{INDEX}={index} must be from 0 to {count - 1}, since there are {count} processes")
    if count == 1:
        return None
    if ADDRESS not in given:
        raise UserError(f"{stated}, but {ADDRESS} isn't set: set it to HOST:PORT of process 0, a free port")
    if index is None:
        raise UserError(f"{stated}, but {INDEX} isn't set: set it to 0 on the first to {count - 1} on the last")
    if not re.fullmatch(r".+:[0-9]{1,5}", given[ADDRESS]):
        raise UserError(f"{ADDRESS}={given[ADDRESS]!r} must be HOST:PORT, such as 10.0.0.1:8476")
    return Launch(given[ADDRESS], count, index, detect=launcher is not None)  # a launcher assigns the devices


def _number(given: Mapping[str, str], name: str, least: int) -> int:
    if not re.fullmatch(r"[0-9]+", given[name]) or int(given[name]) < least:
        raise UserError(f"{name}={given[name]!r} must be a whole number of at least {least}")
    return int(given[name])


def _launcher(variables: Mapping[str, str]) -> tuple[int, int] | None:
    """The number of tasks and the index of this one, where a launcher started it."""
    if all(variables.get(name) for name in SLURM):  # a shell inside an allocation is a step of one task
        return int(variables.get("SLURM_STEP_NUM_TASKS") or variables["SLURM_NTASKS"]), int(variables["SLURM_PROCID"])
    if variables.get("OMPI_COMM_WORLD_SIZE") and variables.get("OMPI_COMM_WORLD_RANK"):
        return int(variables["OMPI_COMM_WORLD_SIZE"]), int(variables["OMPI_COMM_WORLD_RANK"])
    return None


def _tpu_hosts(variables: Mapping[str, str], metadata: Callable[[str], str | None]) -> int:
    """The number of hosts of the TPU that this machine is a part of; 1 where it has no TPU, or isn't to use it.

    A pod's machines on GKE know it by their environment, others on Google Cloud by their metadata. jax sets
    TPU_SKIP_MDS_QUERY where it finds no TPU, and notebooks with one set it too: nobody there waits for a server.
    """
    platforms = variables.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms.split(",")) or importlib.util.find_spec("libtpu") is None:
        return 1
    slices = int(variables.get("MEGASCALE_NUM_SLICES") or 1)
    names = variables.get("TPU_PROCESS_ADDRESSES") or variables.get("TPU_WORKER_HOSTNAMES")
    if names:
        return len(names.split(",")) * slices
    if "TPU_SKIP_MDS_QUERY" in variables or "COLAB_RELEASE_TAG" in variables:
        return 1
    workers = metadata("worker-network-endpoints")
    if workers is None:
        return 1
    found = re.search(r"MEGASCALE_NUM_SLICES\s*:\s*'?([0-9]+)", metadata("tpu-env") or "")
    return len(workers.split(",")) * (int(found[1]) if found else slices)


def _metadata(name: str) -> str | None:
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this very machine
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.read().decode()
    except OSError:
        return None
