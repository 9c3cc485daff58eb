"""What each task's container is given, whichever scheduler starts it."""

from __future__ import annotations

import dataclasses
import re
import shlex

from common.command import flag
from common.errors import UsageError
from pipeline.cloud.stage_graph import Task

# As the images of infra/docker/ have it; written out, since Kubeflow cannot see an image's own.
ENTRY_POINT = ("python", "-m", "pipeline.job")

# What each container finds in its environment: log lines that Cloud Logging and others can read.
ENVIRONMENT = {"LOG_FORMAT": "json"}

# The forms that Kubernetes takes; what breaks them it refuses only when the files are applied.
QUANTITY = re.compile(r"[1-9][0-9]*[MGT]i?")
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
OBJECT_NAME = re.compile(rf"(?!.{{254}}){_SUBDOMAIN}")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
QUALIFIED_NAME = re.compile(rf"({_SUBDOMAIN}/)?{LABEL_VALUE.pattern}")
# Capitals are no image's, but stand for what is to be filled in: PROJECT, REPOSITORY.
_PART = r"[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*"
_IMAGE = re.compile(
    rf"({_PART}(:[0-9]+)?/)?{_PART}(/{_PART})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(@sha256:[0-9a-f]{64})?"
)


def require_form(name: str, value: str, form: re.Pattern[str], wanted: str) -> None:
    """Checks the value of the flag `name`.

    Raises:
        UsageError: it is not of that form; the message says what is wanted.
    """
    if not form.fullmatch(value):
        raise UsageError(f"--{name}={shlex.quote(value)} must be {wanted}")


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
        require_form("memory", self.memory, QUANTITY, "an amount such as 16Gi")
        if self.train_memory:
            require_form("train_memory", self.train_memory, QUANTITY, "an amount such as 64Gi")
        require_form("image", self.image, _IMAGE, "an image such as REGISTRY/train-gpu:1")
        require_form(
            "gpu_type", self.gpu_type, QUALIFIED_NAME, "a name such as nvidia.com/gpu or NVIDIA_L4"
        )

    def resources(self, task: Task) -> Resources:
        """What the task's containers ask for: accelerators are for training alone."""
        if not task.trains:
            return Resources(self.cpus, self.memory, 0)
        cpus, memory = self.train_cpus or self.cpus, self.train_memory or self.memory
        return Resources(cpus, memory, self.gpus)
