"""Who is alone, who joins whom: by variables, launchers and TPU machines; and what cannot be."""

import importlib.util

import pytest

from mmjax.errors import UserError
from mmjax.runtime.launch import Launch, announced

NO_TPU = {"TPU_SKIP_MDS_QUERY": "1"}  # jax sets it as it is imported, where it finds no TPU
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


def nobody(name: str) -> str | None:
    pytest.fail(f"asked a server for {name}")


@pytest.fixture
def with_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "libtpu" or None)


@pytest.mark.parametrize(
    "environment",
    [
        NO_TPU,
        {"JAX_NUM_PROCESSES": "1"},
        {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "localhost:1"},
        {**NO_TPU, "JAX_COORDINATOR_ADDRESS": " "},
        {**NO_TPU, "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"},  # a batch script, outside srun
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},  # a shell inside an allocation for two
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"},  # a pod's machine, used without its TPU
        {"COLAB_RELEASE_TAG": "release-colab-external"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("with_libtpu")
def test_a_machine_alone_is_left_alone_and_asks_nobody(environment):
    assert announced(environment, nobody) is None


def test_a_machine_without_libtpu_asks_nobody(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert announced({}, nobody) is None


def test_the_variables_say_who_joins_whom():
    environment = {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert announced(environment, nobody) == Launch("h:1", 4, 3)


def test_a_launcher_says_it_and_an_address_may_be_added():
    assert announced(SRUN, nobody) == Launch(None, 2, 1, detect=True)
    mpi = {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "5"}
    assert announced(mpi, nobody) == Launch(None, 8, 5, detect=True)
    assert announced({**mpi, "JAX_COORDINATOR_ADDRESS": "h:1"}, nobody) == Launch("h:1", 8, 5, detect=True)


@pytest.mark.usefixtures("with_libtpu")
@pytest.mark.parametrize(
    ("environment", "metadata", "several"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, {}, True),
        ({}, {"worker-network-endpoints": "w:0:10.0.0.1,w:1:10.0.0.2"}, True),
        ({}, {"worker-network-endpoints": "w:0:10.0.0.1"}, False),
        ({}, {"worker-network-endpoints": "a", "tpu-env": "X: '1'\nMEGASCALE_NUM_SLICES: '2'\n"}, True),
        ({}, {}, False),  # no such server
    ],
    ids=str,
)
def test_the_machines_of_a_pod_find_each_other(environment, metadata, several):
    assert announced(environment, metadata.get) == (Launch(detect=True) if several else None)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES=2, but JAX_COORDINATOR_ADDRESS isn't set: set it to HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' must be a whole number of at least 1"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES='0' must be a whole number of at least 1"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2 must be from 0 to 1, .* 2 processes"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID='-1' must be a whole number"),
        ({"JAX_PROCESS_ID": "1"}, "JAX_PROCESS_ID=1, but JAX_NUM_PROCESSES isn't set"),
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_COORDINATOR_ADDRESS=h:1, but JAX_NUM_PROCESSES isn't set"),
        (
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2"},
            "JAX_PROCESS_ID isn't set: set it to 0 on the first to 1 on the last",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "h", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "JAX_COORDINATOR_ADDRESS='h' must be HOST:PORT",
        ),
    ],
)
def test_a_wrong_setting_names_the_variable_its_value_and_what_is_allowed(environment, message):
    with pytest.raises(UserError, match=message):
        announced(environment, nobody)
