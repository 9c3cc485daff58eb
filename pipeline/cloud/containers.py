"""What each task's container is given, whichever scheduler starts it."""

from __future__ import annotations

import dataclasses
import re

from common.command import flag
from common.errors import UsageError
from pipeline.cloud.stage_graph import Task

# As the images of infra/docker/ have it; written out, since Kubeflow cannot see an image's own.
ENTRY_POINT = ("python", "-m", "pipeline.job")

_QUANTITY = re.compile(r"[1-9]\d*[MGT]i?")


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one container asks for."""

    cpus: int
    memory: str
    gpus: int


@dataclasses.dataclass(frozen=True)
class ContainerFlags:
    """The image, and how much each of its containers gets."""

    image: str = flag(help="image of infra/docker/ that runs all stages")
    cpus: int = flag(4, help="CPUs of each container")
    memory: str = flag("8Gi", help="memory of each container")
    train_cpus: int = flag(0, help="CPUs of each that trains; 0: as --cpus")
    train_memory: str = flag("", help="memory of each that trains; empty: as --memory")
    gpus: int = flag(0, help="GPUs of each container that trains")
    gpu_type: str = flag(
        "nvidia.com/gpu",
        help="what the scheduler calls a GPU; Vertex Pipelines want its own names, as NVIDIA_L4",
    )

    def __post_init__(self):
        for name, least in (("cpus", 1), ("train_cpus", 0), ("gpus", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("memory", "train_memory"):
            value = getattr(self, name)
            if not _QUANTITY.fullmatch(value) and (value or name == "memory"):
                raise UsageError(f"--{name}={value} is no amount of memory such as 16Gi")

    def resources(self, task: Task) -> Resources:
        """What the task's containers ask for: accelerators are for training alone."""
        if not task.trains:
            return Resources(self.cpus, self.memory, 0)
        cpus, memory = self.train_cpus or self.cpus, self.train_memory or self.memory
        return Resources(cpus, memory, self.gpus)
