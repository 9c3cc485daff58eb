"""The tables of machines: against each other, their names, and what a GPU can serve."""

import math
import re

import pytest

from common.errors import UsageError
from pipeline.cloud.machines import MACHINE_TYPES
from pipeline.cloud.topologies import (
    BUILD,
    EVALUATOR,
    REDUCTION_SERVER,
    TOPOLOGIES,
    find_topology,
)

# CPUs that one GPU of N1 machines serves at most, from Compute Engine's documentation on GPUs.
CPUS_A_GPU = {"NVIDIA_TESLA_P4": 24, "NVIDIA_TESLA_T4": 24, "NVIDIA_TESLA_V100": 12}
# Gbit/s that a machine sends at most, from Compute Engine's documentation on networks.
BANDWIDTH = {"a2-highgpu-8g": 100, "n1-highcpu-16": 32}


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_a_replica_for_each_device(topology):
    machine = topology.machine
    layout = [int(n) for n in re.findall(r"\d+", machine.tpu_topology)]
    devices = math.prod(layout) if layout else max(1, machine.accelerator_count)
    assert topology.replicas == topology.num_hosts * devices
    kind = machine.accelerator_type.partition("_")[0]
    expected = {"": "tpu" if layout else "cpu", "NVIDIA": "gpu", "TPU": "tpu"}
    assert topology.image == expected[kind]


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_the_strategy_suits_the_devices(topology):
    if topology.image == "tpu":
        assert topology.strategy == "tpu"
    elif topology.num_hosts > 1:
        assert topology.strategy == "multi_worker"
    else:
        assert topology.strategy == ("mirrored" if topology.replicas > 1 else "default")


def test_reduction_servers_send_as_much_as_the_workers():
    topologies = [t for t in TOPOLOGIES.values() if t.reduction_servers]
    assert topologies
    for topology in topologies:
        workers = topology.num_hosts * BANDWIDTH[topology.machine.machine_type]
        each = BANDWIDTH[REDUCTION_SERVER.machine_type]
        assert (topology.reduction_servers - 1) * each < workers
        assert topology.reduction_servers * each >= workers


def test_pools_are_chief_workers_reduction_servers_and_evaluator():
    a100, nothing = TOPOLOGIES["gpu-8"].machine, 0
    assert TOPOLOGIES["gpu-8"].pools == ((a100, 1),)
    assert TOPOLOGIES["gpu-4x8"].pools == ((a100, 1), (a100, 3))
    assert TOPOLOGIES["gpu-4x8-reduction"].pools[2] == (REDUCTION_SERVER, 13)
    pools = TOPOLOGIES["gpu-4x8-evaluator"].pools
    assert [count for _, count in pools] == [1, 3, nothing, 1]
    assert pools[3][0] == EVALUATOR
    assert BUILD.pools == ((BUILD.machine, 1),)


def test_an_unknown_topology_is_told_with_those_there_are():
    with pytest.raises(UsageError, match=r"unknown topology 'gpu-9': there are cpu, gpu-1, "):
        find_topology("gpu-9")


@pytest.mark.parametrize("name", [n for n in MACHINE_TYPES if re.search(r"\dg$|\dt$", n)])
def test_a_machine_that_is_named_by_its_accelerators_has_so_many(name):
    number = int(re.search(r"(\d+)[gt]$", name)[1])
    known = MACHINE_TYPES[name]
    for layout in known.tpu_topologies:
        assert math.prod(map(int, layout.split("x"))) == number
    assert all(counts == (number,) for counts in known.counts.values())
    assert bool(known.counts) != bool(known.tpu_topologies)


@pytest.mark.parametrize("name", [n for n in MACHINE_TYPES if n.startswith("n1-")])
def test_a_machine_of_n1_has_gpus_enough_for_its_cpus(name):
    cpus = int(name.rpartition("-")[2])
    assert MACHINE_TYPES[name].counts.keys() == CPUS_A_GPU.keys()
    for gpu, counts in MACHINE_TYPES[name].counts.items():
        there_are = (1, 2, 4, 8) if gpu == "NVIDIA_TESLA_V100" else (1, 2, 4)
        assert counts == tuple(n for n in there_are if n * CPUS_A_GPU[gpu] >= cpus)
