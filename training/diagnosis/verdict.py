"""Which part of training binds, what the machine could reach, and what to change.

Pure: measured rates in, words out.
"""

from __future__ import annotations

import dataclasses
import math

STAGES = ("read", "decode", "augment", "step", "host")

# The whole input pipeline reads and decodes as well. It is read, or decode, that binds it when
# these alone are hardly faster.
_READ_BINDS_BELOW = 1.15
_DECODE_BINDS_BELOW = 1.6
# The trainer may lose so much of what its parts could reach before the loop itself is at fault.
_HOST_IS_FINE_FROM = 0.9
# A setting is worth changing from this gain on; less is within the noise of short measurements.
_WORTH_CHANGING = 1.05
# Decoding reads this much less of shards whose photos were made smaller.
_SMALL_BATCH = 32
_FEW_STEPS_PER_CALL = 20
_SHORTER_SIDE_OVER_INPUT = 256 / 224


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What was measured: all rates in examples a second on this machine.

    Attributes:
        read: records read from the shards, and their checksums checked.
        decode: photos decoded, whole, and nothing else.
        augment: the whole input pipeline of training.
        step: training steps on a batch that is there already.
        host: the trainer's loop, from shards to weights.
        cores: of this machine.
        batch_size: the global batch.
        steps_per_call: steps without a return to Python.
        resolution: height of the input in pixels.
        shares_cores: input and step take the same cores: there is no accelerator.
        augmentation: name of the augmentation.
        settings: rates of the step under other settings, by what one would have to set.
    """

    read: float
    decode: float
    augment: float
    step: float
    host: float
    cores: int
    batch_size: int
    steps_per_call: int = 20
    resolution: int = 224
    shares_cores: bool = True
    augmentation: str = "inception"
    settings: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What follows from the measurements.

    Attributes:
        binds: the stage that binds, one of `STAGES`.
        reachable: examples a second that this machine could train on, if the loop cost nothing.
        efficiency: what the trainer's loop reaches, as a part of that.
        input_cores: cores that the input pipeline keeps busy when it keeps up with the step.
        summary: one line.
        remedies: what to change, what helps most first.
    """

    binds: str
    reachable: float
    efficiency: float
    input_cores: float
    summary: str
    remedies: tuple[str, ...]


def verdict(measured: Measurements) -> Verdict:
    """Names what binds, and the remedy."""
    reachable = reachable_rate(measured)
    binds = binding_stage(measured)
    input_cores = measured.cores * measured.step / measured.augment
    efficiency = measured.host / reachable
    words = {
        "read": f"reading the shards binds, at {measured.read:,.0f} records a second",
        "decode": f"decoding binds, at {measured.augment:,.0f} images a second",
        "augment": f"augmentation binds, at {measured.augment:,.0f} images a second",
        "step": f"the step binds, at {measured.step:,.0f} images a second, as it should",
        "host": (
            f"the loop on the host binds: {measured.host:,.0f} images a second of"
            f" {reachable:,.0f} that input and step allow"
        ),
    }
    summary = (
        f"{words[binds]}; this machine could train on {reachable:,.0f} images a second"
        f" ({efficiency:.0%} of it reached), and feeding the step at its full speed takes"
        f" {cores_in_words(input_cores)} for the input"
    )
    return Verdict(
        binds=binds,
        reachable=reachable,
        efficiency=efficiency,
        input_cores=input_cores,
        summary=summary,
        remedies=_remedies(measured, binds, input_cores),
    )


def reachable_rate(measured: Measurements) -> float:
    """Images a second if the loop itself cost nothing.

    Where input and step share the cores, an image takes the time of both, or less if each alone
    leaves a core idle now and then; an accelerator computes while the next batch is made.
    """
    if measured.shares_cores:
        estimate = 1.0 / (1.0 / measured.augment + 1.0 / measured.step)
    else:
        estimate = min(measured.augment, measured.step)
    return max(estimate, measured.host)


def binding_stage(measured: Measurements) -> str:
    """The stage of `STAGES` that takes most of the time of an image."""
    if measured.host < _HOST_IS_FINE_FROM * reachable_rate(measured):
        return "host"
    if measured.step <= measured.augment:
        return "step"
    if measured.read < _READ_BINDS_BELOW * measured.augment:
        return "read"
    if measured.decode < _DECODE_BINDS_BELOW * measured.augment:
        return "decode"
    return "augment"


def cores_in_words(cores: float) -> str:
    if cores < 0.95:
        return f"{cores:.1f} of a core"
    return f"{math.ceil(cores - 0.05)} core{'s' if cores > 1.05 else ''}"


def _remedies(measured: Measurements, binds: str, input_cores: float) -> tuple[str, ...]:
    found = {
        "read": _for_reading,
        "decode": _for_decoding,
        "augment": _for_augmentation,
        "step": lambda *_: [],
        "host": _for_host,
    }[binds](measured, input_cores)
    if binds in ("step", "host") or measured.shares_cores:
        found += _for_step(measured)
    return tuple(found)


def _for_reading(measured: Measurements, input_cores: float) -> list[str]:
    del measured, input_cores
    return [
        "copy the shards to a local disk, and give it as --data_dir",
        "build the shards with smaller photos (--shorter_side of preprocessing.build_dataset)",
        "read longer pieces: a larger --shuffle_window (it changes the order of the examples)",
    ]


def _for_decoding(measured: Measurements, input_cores: float) -> list[str]:
    side = math.ceil(measured.resolution * _SHORTER_SIDE_OVER_INPUT / 32) * 32
    return [
        f"build the shards with --shorter_side={side}: there is less to decode",
        _more_cores(measured, input_cores),
    ]


def _for_augmentation(measured: Measurements, input_cores: float) -> list[str]:
    found = []
    if measured.augmentation in ("randaugment", "autoaugment"):
        found.append(f"--augmentation=inception costs less than {measured.augmentation}")
    return [*found, *_for_decoding(measured, input_cores)]


def _for_host(measured: Measurements, input_cores: float) -> list[str]:
    del input_cores
    if measured.steps_per_call < _FEW_STEPS_PER_CALL:
        return [f"raise --steps_per_call from {measured.steps_per_call} to {_FEW_STEPS_PER_CALL}"]
    return [
        "raise --batch_size (and --lr with it): each step does more",
        "look for what else runs on this machine",
    ]


def _for_step(measured: Measurements) -> list[str]:
    found = [
        f"{setting} makes the step {rate / measured.step:.2f} times as fast"
        for setting, rate in sorted(measured.settings.items(), key=lambda item: -item[1])
        if rate >= _WORTH_CHANGING * measured.step
    ]
    if measured.batch_size < _SMALL_BATCH:
        found.append(f"raise --batch_size from {measured.batch_size} (and --lr with it)")
    return found


def _more_cores(measured: Measurements, input_cores: float) -> str:
    for_step = measured.cores if measured.shares_cores else 0
    there = cores_in_words(float(measured.cores))
    total = math.ceil(input_cores - 0.05) + for_step
    beside = f" beside the {for_step} of the step" if for_step else ""
    needed = cores_in_words(input_cores)
    return f"take a machine with {total} cores (this one has {there}): {needed} decode{beside}"
