"""How many images a second a job trains on, from published figures.

The only published rates of training MobileNets are timm's, of one RTX 3090. Other accelerators are
told relative to that card, by what has been published of both for a network of the same kind:
EfficientNet-B0, which is made of the same blocks and has about as many parameters as V3-Large, so
that its gradients take as long to exchange. Every figure says how it was come by.
"""

from __future__ import annotations

import dataclasses
import math

from pipeline.cloud.topologies import Machine, Topology
from training.config import AugmentationFlags, ModelFlags, Recipe
from training.models.complexity import convolutions

# Images a second by model and width, at 224 pixels: timm's results/benchmark-train-amp-nhwc-pt112-
# cu113-rtx3090.csv, in mixed precision.
MODEL_RATES = {
    ("mobilenet_v2", 0.5): 4_051,
    ("mobilenet_v2", 1.0): 2_313,
    ("mobilenet_v2", 1.4): 1_638,
    ("mobilenet_v3_large", 0.75): 3_095,
    ("mobilenet_v3_large", 1.0): 2_732,
    ("mobilenet_v3_small", 1.0): 8_035,
}
_TIMM = "timm, one RTX 3090, mixed precision"
_B0_3090 = 1_752  # EfficientNet-B0 in the same file

# Models of which nobody has published a rate, and whose they take: V1 and EdgeTPU have no
# squeeze-and-excitation and no hard-swish, as V2; the minimalistic ones their siblings', which is
# slower for each value.
_LIKE = {
    "mobilenet_v1": "mobilenet_v2",
    "mobilenet_edgetpu": "mobilenet_v2",
    "mobilenet_v3_large_minimalistic": "mobilenet_v3_large",
    "mobilenet_v3_small_minimalistic": "mobilenet_v3_small",
}

# Milliseconds of one virtual core for one image, measured on 2 virtual cores of an EPYC. Decoding a
# crop, resizing and flipping it, and the preprocessing of an evaluation: ImageNet's own photos of
# 110 kB. A transform of RandAugment, and AutoAugment's two: the mean over what they draw.
CROP_MS, EVALUATION_MS = 1.4, 1.6
RANDAUGMENT_LAYER_MS, AUTOAUGMENT_MS = 1.0, 1.9

# A step goes forward, and backward through weights and through activations.
FORWARDS_IN_A_STEP = 3


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """How fast one is beside an RTX 3090 in mixed precision.

    Attributes:
        float32: its part of that card's rate in float32 (TF32 where it has that).
        mixed: in bfloat16 or float16.
        how: where both are known from.
        in_host: for (float32, mixed), what 8 of a host do of 8 times one.
    """

    float32: float
    mixed: float
    how: str
    in_host: tuple[float, float] = (1.0, 1.0)

    def relative(self, precision: str) -> float:
        return self.float32 if precision == "float32" else self.mixed

    def of_eight(self, precision: str) -> float:
        return self.in_host[0 if precision == "float32" else 1]


# NVIDIA DeepLearningExamples, TF2 EfficientNet_v1, B0 with auto-augmentation, images a second of 1,
# 8 and 16 A100-80G, in TF32 and in mixed precision.
_A100_TF32, _A100_MIXED = (1_209, 9_119, 17_815), (3_454, 20_647, 40_644)
_IN_HOST = (_A100_TF32[1] / (8 * _A100_TF32[0]), _A100_MIXED[1] / (8 * _A100_MIXED[0]))
_TWO_HOSTS = (_A100_TF32[2] / (2 * _A100_TF32[1]), _A100_MIXED[2] / (2 * _A100_MIXED[1]))
_SAME_HOST = "EfficientNet-B0's, NVIDIA DeepLearningExamples"
_V100 = (752, 868)

# 23 hours on a v2-8 for 350 epochs, for one of its 8 cores.
_V2_CORE = 350 * 1_281_167 / (23 * 3600) / 8
_NO_MEASUREMENT = "; float32 by the A100's ratio of both; no measurement is published"


def _by_memory(gigabytes_per_second: float, name: str) -> Accelerator:
    """A card told by its memory alone."""
    mixed = gigabytes_per_second / 936
    return Accelerator(
        mixed * _A100_TF32[0] / _A100_MIXED[0],
        mixed,
        f"{name}: memory bandwidth, {gigabytes_per_second:g} of the RTX 3090's 936 GB/s"
        f"{_NO_MEASUREMENT}",
        _IN_HOST,
    )


_A100_80GB = Accelerator(
    _A100_TF32[0] / _B0_3090,
    _A100_MIXED[0] / _B0_3090,
    "A100 of 80 GB: EfficientNet-B0 at 1,209 images/s in TF32 and 3,454 in mixed precision (NVIDIA"
    " DeepLearningExamples, TF2) against timm's 1,752 on the RTX 3090",
    _IN_HOST,
)
_V2 = Accelerator(
    _V2_CORE / _B0_3090,
    _V2_CORE / _B0_3090,
    "TPU v2: EfficientNet-B0 in 23 hours on 8 cores (arXiv:2011.00071) for 350 epochs"
    " (tensorflow/tpu#546), 5,416 images/s, against timm's 1,752; in which precision is not told",
)

ACCELERATORS = {
    "NVIDIA_A100_80GB": _A100_80GB,
    "NVIDIA_TESLA_A100": dataclasses.replace(
        _A100_80GB,
        float32=_A100_80GB.float32 * 1555 / 2039,
        mixed=_A100_80GB.mixed * 1555 / 2039,
        how=f"{_A100_80GB.how}; times 1,555 of 2,039 GB/s for the card of 40 GB, since depthwise"
        " networks wait for memory",
    ),
    "NVIDIA_TESLA_V100": Accelerator(
        _V100[0] / _B0_3090,
        _V100[1] / _B0_3090,
        "V100: EfficientNet-B0 at 752 images/s in float32 and 868 in mixed precision (NVIDIA"
        " DeepLearningExamples, TF2, held back by its input) against timm's 1,752",
        (4_504 / (8 * 752), 4_880 / (8 * 868)),
    ),
    "NVIDIA_L4": _by_memory(300, "L4"),
    "NVIDIA_TESLA_T4": _by_memory(320, "T4"),
    "TPU_V2": _V2,
    "TPU_V3": dataclasses.replace(
        _V2,
        float32=_V2.float32 * 900 / 700,
        mixed=_V2.mixed * 900 / 700,
        how=f"{_V2.how}; times 900 of v2's 700 GB/s a chip",
    ),
    "TPU_V5E": dataclasses.replace(
        _V2,
        float32=_V2.float32 * 2 * 819 / 700,
        mixed=_V2.mixed * 2 * 819 / 700,
        how=f"{_V2.how}; a chip is two cores of v2, times 819 of 700 GB/s",
    ),
    "": Accelerator(
        32 / 0.985 / 2 / MODEL_RATES["mobilenet_v3_large", 1.0],
        32 / 0.985 / 2 / MODEL_RATES["mobilenet_v3_large", 1.0],
        "processors: V3-Large in float32 at 985 ms a step of 32 images on 2 virtual cores of an"
        " EPYC (measured), as much for each other core",
    ),
}


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Images a second of a whole job.

    Attributes:
        devices: what its accelerators could take; without any, its processors for a step alone.
        input: what the processors of all hosts can decode.
        binds: 'devices', 'input', or 'processors' where they do both.
        how: how both were come by.
        mixed_gain: how many times as much its accelerators would take in mixed precision, if they
            do not work in that; else 1.
    """

    devices: float
    input: float
    binds: str
    how: tuple[str, ...]
    mixed_gain: float = 1.0

    @property
    def images_per_second(self) -> float:
        if self.binds == "processors":
            return 1 / (1 / self.devices + 1 / self.input)
        return min(self.devices, self.input)


def training_throughput(recipe: Recipe, topology: Topology, num_vcpus: int) -> Throughput | None:
    """What a job trains on; None for an accelerator of which nothing is known.

    Args:
        recipe: what is trained.
        topology: on what.
        num_vcpus: virtual cores of one host.
    """
    milliseconds = CROP_MS + policy_ms(recipe.augmentation)
    return _throughput(recipe, topology, num_vcpus, milliseconds, 1)


def evaluation_throughput(recipe: Recipe, topology: Topology, num_vcpus: int) -> Throughput | None:
    """The same for an evaluation: other preprocessing, and the forward pass alone."""
    return _throughput(recipe, topology, num_vcpus, EVALUATION_MS, FORWARDS_IN_A_STEP)


def policy_ms(flags: AugmentationFlags) -> float:
    """Milliseconds of a virtual core for what is done to an image beyond the crop.

    Colours, mixing and erasing are done on the device and count nothing.
    """
    if flags.augmentation == "randaugment":
        return RANDAUGMENT_LAYER_MS * flags.randaugment_layers
    return AUTOAUGMENT_MS if flags.augmentation == "autoaugment" else 0.0


def reference_rate(model: ModelFlags) -> tuple[float, str]:
    """Images a second of one RTX 3090 in mixed precision, and how that is known.

    It is the published figure where there is one. Else it is that of the model's nearest width, or
    of the model that is like it, divided by how many more values this one's convolutions put out:
    what goes through memory is what takes the time, and the published widths of a model agree with
    that within 5 %.
    """
    like = _LIKE.get(model.model_name, model.model_name)
    widths = [width for name, width in MODEL_RATES if name == like]
    width = min(widths, key=lambda known: abs(math.log(known / model.width_multiplier)))
    published = MODEL_RATES[like, width]
    known = f"{like} {width:g} at {published:,.0f} images/s ({_TIMM})"
    factor = _outputs(model) / _outputs(ModelFlags(model_name=like, width_multiplier=width))
    if factor == 1:
        return published, known
    return published / factor, (
        f"{model.model_name} {model.width_multiplier:g} at {model.resolution} pixels from {known},"
        f" divided by {factor:.2f} for the values that its convolutions put out"
    )


def devices_of(machine: Machine) -> tuple[str, int]:
    """The name in `ACCELERATORS`, and how many a host has; ("", 0) for none."""
    if machine.tpu_topology:
        return "TPU_V5E", math.prod(int(side) for side in machine.tpu_topology.split("x"))
    return machine.accelerator_type, machine.accelerator_count


def in_host_efficiency(accelerator: Accelerator, count: int, precision: str) -> float:
    """What several accelerators of a host do of one, times their number.

    Between one and eight, of which figures are published, each doubling costs the same part.
    """
    return accelerator.of_eight(precision) ** (math.log2(count) / 3) if count > 1 else 1.0


def between_hosts_efficiency(num_hosts: int, precision: str) -> float:
    """What several hosts do of one, times their number; each doubling costs what the first does."""
    return _TWO_HOSTS[0 if precision == "float32" else 1] ** math.log2(num_hosts)


def _throughput(
    recipe: Recipe, topology: Topology, num_vcpus: int, milliseconds: float, speed_up: float
) -> Throughput | None:
    name, count = devices_of(topology.machine)
    accelerator = ACCELERATORS.get(name)
    if accelerator is None:
        return None
    hosts, precision = topology.num_hosts, recipe.distribution.precision
    reference, how_model = reference_rate(recipe.model)
    number = (count or num_vcpus) * hosts

    def together(precision: str) -> float:
        one = reference * accelerator.relative(precision) * speed_up
        host = in_host_efficiency(accelerator, count, precision)
        return number * one * host * between_hosts_efficiency(hosts, precision)

    host = in_host_efficiency(accelerator, count, precision)
    hosts_together = between_hosts_efficiency(hosts, precision)
    how = [how_model, accelerator.how]
    if host != 1:
        how.append(f"{count} in a host do {host:.2f} of {count} times one ({_SAME_HOST})")
    if hosts > 1:
        how.append(
            f"{hosts} hosts do {hosts_together:.2f} of {hosts} times one: for each doubling what 16"
            f" A100s do beside 8 ({_SAME_HOST}, on a network made for it)"
        )
    binds = "processors"
    devices = together(precision)
    fed = hosts * num_vcpus * 1000 / milliseconds
    if name:
        binds = "devices" if devices <= fed else "input"
    return Throughput(devices, fed, binds, tuple(how), together("bfloat16") / devices)


def _outputs(model: ModelFlags) -> int:
    """Values that all convolutions of a model put out for one image."""
    return sum(c.positions * c.channels for c in convolutions(model.config(1000)))
