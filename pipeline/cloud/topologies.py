"""On which machines a job runs: one row a topology."""

from __future__ import annotations

import dataclasses

from common.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Machine:
    """One kind of machine.

    Attributes:
        machine_type: Compute Engine's or Vertex AI's name for it.
        accelerator_type: Vertex AI's name of its accelerators; empty for none, and for a TPU v5e,
            whose machine type says what it has.
        accelerator_count: how many of them it has; cores for TPU v2 and v3, 0 for v5e.
        tpu_topology: how the chips of a v5e are laid out; empty for all else.
    """

    machine_type: str
    accelerator_type: str = ""
    accelerator_count: int = 0
    tpu_topology: str = ""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Machines that train together.

    Attributes:
        name: what --topology calls it.
        purpose: what it is for, in a few words.
        machine: what each of the hosts is.
        num_hosts: how many train together; the first is the chief.
        strategy: the training flag of that name.
        replicas: copies of the model, over all hosts.
        image: which of `infra/docker/` runs there: cpu, gpu or tpu.
        reduction_servers: machines that sum gradients for the others; 0 for none.
        spot: whether it runs on what others leave over, and may be stopped at any time.
        evaluator: one more machine that evaluates each checkpoint; None where the trainers do.
    """

    name: str
    purpose: str
    machine: Machine
    num_hosts: int = 1
    strategy: str = "default"
    replicas: int = 1
    image: str = "gpu"
    reduction_servers: int = 0
    spot: bool = False
    evaluator: Machine | None = None

    @property
    def pools(self) -> tuple[tuple[Machine, int], ...]:
        """Vertex AI's four worker pools, by their places: which machine, and how many of it.

        They are the chief, the other workers, the reduction servers and the evaluator. None are in
        a pool with 0 machines; pools at the end that have none are left out.
        """
        pools = [
            (self.machine, 1),
            (self.machine, self.num_hosts - 1),
            (REDUCTION_SERVER, self.reduction_servers),
            (self.evaluator or EVALUATOR, 1 if self.evaluator else 0),
        ]
        while pools[-1][1] == 0:
            pools.pop()
        return tuple(pools)


_L4 = Machine("g2-standard-16", "NVIDIA_L4", 1)
_A100_X8 = Machine("a2-highgpu-8g", "NVIDIA_TESLA_A100", 8)
EVALUATOR = _L4
# Vertex AI's documentation recommends it: much bandwidth for what it costs.
REDUCTION_SERVER = Machine("n1-highcpu-16")

_FOUR_HOSTS = Topology("gpu-4x8", "four hosts", _A100_X8, 4, "multi_worker", 32)

TOPOLOGIES = {
    topology.name: topology
    for topology in (
        Topology("cpu", "smoke test", Machine("n2-standard-8"), image="cpu"),
        Topology("gpu-1", "fine-tuning", _L4),
        Topology("gpu-1-spot", "short runs, for less", _L4, spot=True),
        Topology("gpu-8", "one host", _A100_X8, strategy="mirrored", replicas=8),
        _FOUR_HOSTS,
        dataclasses.replace(
            _FOUR_HOSTS,
            name="gpu-4x8-reduction",
            purpose="four hosts, gradients summed by machines of their own",
            # Together they must send what the workers do: 4 x 100 Gbit/s, at 32 Gbit/s each.
            reduction_servers=13,
        ),
        dataclasses.replace(
            _FOUR_HOSTS,
            name="gpu-4x8-evaluator",
            purpose="four hosts that are stopped at times, and one that evaluates",
            spot=True,
            evaluator=EVALUATOR,
        ),
        Topology("tpu-v2", "TPU", Machine("cloud-tpu", "TPU_V2", 8), 1, "tpu", 8, "tpu"),
        Topology("tpu-v3", "TPU", Machine("cloud-tpu", "TPU_V3", 8), 1, "tpu", 8, "tpu"),
        Topology(
            "tpu-v5e",
            "TPU",
            Machine("ct5lp-hightpu-4t", tpu_topology="2x2"),
            *(1, "tpu", 4, "tpu"),
        ),
    )
}

# Where a data set's build is started from. It lists the photos, waits for Dataflow's workers, and
# writes the manifest, which takes one machine without accelerators.
BUILD = Topology(
    "build", "start the build on Dataflow, and wait", Machine("n2-standard-4"), image="dataflow"
)


def find_topology(name: str) -> Topology:
    """The topology called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in TOPOLOGIES:
        raise UsageError(f"unknown topology {name!r}: there are {', '.join(TOPOLOGIES)}")
    return TOPOLOGIES[name]
