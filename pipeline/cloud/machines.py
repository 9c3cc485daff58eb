"""Which accelerators each machine type of Vertex AI's training may have, and in which numbers.

From Vertex AI's documentation, "Configure compute resources for serverless training", as it was in
2026: the list of machine types, the table of valid numbers of GPUs, and the section on TPUs. The
types that nothing here would use (GB200, B200, H200, P100, large memory) are left out; they are
reported as not known, not as wrong.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class MachineType:
    """What may be asked of a machine type.

    Attributes:
        counts: by the accelerator's name in Vertex AI, the numbers of it that the machine may have.
        required: whether it cannot be had without one of them.
        tpu_topologies: for TPUs that are asked for by a layout, those of one machine.
    """

    counts: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    required: bool = False
    tpu_topologies: tuple[str, ...] = ()


def _plain() -> dict[str, MachineType]:
    """Machines that have no accelerators."""
    sizes = {
        "e2-standard": (4, 8, 16, 32),
        "e2-highmem": (2, 4, 8, 16),
        "e2-highcpu": (16, 32),
        "n2-standard": (4, 8, 16, 32, 48, 64, 80),
        "n2-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
        "n2-highcpu": (16, 32, 48, 64, 80),
        "n4-standard": (2, 4, 8, 16, 32, 48, 64, 80),
        "n4-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
        "n4-highcpu": (2, 4, 8, 16, 32, 48, 64, 80),
        "c2-standard": (4, 8, 16, 30, 60),
    }
    return {f"{family}-{n}": MachineType() for family, all_n in sizes.items() for n in all_n}


def _n1() -> dict[str, MachineType]:
    """The only machines to which GPUs are attached in a number of one's choice.

    There must be enough GPUs for the machine's CPUs and memory.
    """
    sizes = {
        "n1-standard": (4, 8, 16, 32, 64, 96),
        "n1-highmem": (2, 4, 8, 16, 32, 64, 96),
        "n1-highcpu": (16, 32, 64, 96),
    }
    small, middle, large = (1, 2, 4), (2, 4), (4,)
    v100 = ((16, (2, 4, 8)), (32, (4, 8)), (96, (8,)))  # up to so many CPUs
    machines = {}
    for family, all_n in sizes.items():
        for n in all_n:
            t4 = small if n <= 16 else middle if n == 32 else large
            many = next(counts for cpus, counts in v100 if n <= cpus)
            counts = {
                "NVIDIA_TESLA_P4": t4,
                "NVIDIA_TESLA_T4": t4,
                "NVIDIA_TESLA_V100": (1, *many) if n <= 8 else many,
            }
            machines[f"{family}-{n}"] = MachineType(counts)
    return machines


def _with_gpus() -> dict[str, MachineType]:
    """Machines that come with their GPUs."""
    h100 = {f"a3-highgpu-{n}g": ("NVIDIA_H100_80GB", n) for n in (1, 2, 4, 8)}
    a100 = {f"a2-highgpu-{n}g": ("NVIDIA_TESLA_A100", n) for n in (1, 2, 4, 8)}
    a100_80 = {f"a2-ultragpu-{n}g": ("NVIDIA_A100_80GB", n) for n in (1, 2, 4, 8)}
    l4 = {
        f"g2-standard-{cpus}": ("NVIDIA_L4", n)
        for cpus, n in ((4, 1), (8, 1), (12, 1), (16, 1), (24, 2), (32, 1), (48, 4), (96, 8))
    }
    more = {
        "a3-megagpu-8g": ("NVIDIA_H100_MEGA_80GB", 8),
        "a2-megagpu-16g": ("NVIDIA_TESLA_A100", 16),
    }
    return {
        name: MachineType({gpu: (n,)}, required=True)
        for name, (gpu, n) in (h100 | a100 | a100_80 | l4 | more).items()
    }


def _tpus() -> dict[str, MachineType]:
    """TPUs of one host. Pods, of several, are left out: training would need to be told of them."""
    return {
        "cloud-tpu": MachineType({"TPU_V2": (8,), "TPU_V3": (8,)}, required=True),
        "ct5lp-hightpu-1t": MachineType(tpu_topologies=("1x1",)),
        "ct5lp-hightpu-4t": MachineType(tpu_topologies=("2x2",)),
        "ct5lp-hightpu-8t": MachineType(tpu_topologies=("2x4",)),
    }


MACHINE_TYPES = _plain() | _n1() | _with_gpus() | _tpus()
