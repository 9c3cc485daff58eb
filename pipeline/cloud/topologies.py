"""On which machines a job runs: one row a topology."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Machine:
    """One kind of machine.

    Attributes:
        machine_type: Compute Engine's or Vertex AI's name for it.
        accelerator_type: Vertex AI's name of its accelerators; empty for none.
        accelerator_count: how many of them it has; cores for TPU v2 and v3, chips for v5e.
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


_L4 = Machine("g2-standard-16", "NVIDIA_L4", 1)
_A100_X8 = Machine("a2-highgpu-8g", "NVIDIA_TESLA_A100", 8)

TOPOLOGIES = {
    topology.name: topology
    for topology in (
        Topology("cpu", "smoke test", Machine("n2-standard-8"), image="cpu"),
        Topology("gpu-1", "fine-tuning", _L4),
        Topology("gpu-1-spot", "fine-tuning, for less", _L4, spot=True),
        Topology("gpu-8", "one host", _A100_X8, strategy="mirrored", replicas=8),
        Topology("gpu-4x8", "four hosts", _A100_X8, 4, "multi_worker", 32),
        Topology(
            "gpu-4x8-reduction",
            "four hosts, gradients summed by machines of their own",
            *(_A100_X8, 4, "multi_worker", 32),
            reduction_servers=8,
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
