"""Writes the full-integer LiteRT file of a model."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np

from common.errors import UserError
from pipeline.formats.int8.conversion import Calibrated, quantize_by_own_ranges
from pipeline.formats.int8.drift import Drift, drift_between, find_wide_layers
from pipeline.formats.int8.flags import FLOAT32, Int8Flags
from pipeline.formats.int8.layers import Layer, find_layers
from pipeline.formats.int8.quantization_aware import with_constant_ranges
from pipeline.formats.int8.running import latency_ms, logits_of, operators
from pipeline.formats.litert import attach_record
from training.models import ModelRecord

_BATCH_SIZE = 32
_DEFAULTS = Int8Flags()
_HARD_SWISH = "HARD_SWISH"
_FLOAT_HARD_SWISH = "hard-swish in float (--int8_hard_swish=int8 for integer-only hardware)"


@dataclasses.dataclass(frozen=True)
class Int8Outcome:
    """What was written, and what keeping layers in float costs.

    Attributes:
        wider_layers: names of the layers that stayed float because they drift.
        agreement: part of the photos with the same top-1 class as the model; of photos that gave
            no ranges.
        bytes: size of the file.
        notes: the same in words, without what differs from run to run, and whether hard-swish is
            in float.
        num_photos: how many photos the agreement is of.
        narrow_agreement: the agreement without wider layers; hard-swish is as asked for.
        narrow_bytes: the size then.
        latency_ms: of one image on one thread.
        narrow_latency_ms: likewise, without wider layers.
    """

    wider_layers: tuple[str, ...]
    agreement: float
    bytes: int
    notes: str
    num_photos: int
    narrow_agreement: float
    narrow_bytes: int
    latency_ms: float
    narrow_latency_ms: float


@dataclasses.dataclass(frozen=True)
class _Converted:
    """Bytes of a file.

    Attributes:
        content: the file.
        narrow: the file without wider layers.
        wide: the wider layers.
        float_hard_swish: whether there are hard-swish operators, in float.
    """

    content: bytes
    narrow: bytes
    wide: Sequence[Layer] = ()
    float_hard_swish: bool = False


def write_int8(
    model: keras.Model,
    record: ModelRecord,
    photos: np.ndarray,
    path: str,
    flags: Int8Flags = _DEFAULTS,
) -> Int8Outcome:
    """Writes a LiteRT file whose weights and activations are 8-bit integers.

    Ranges come from every other photo; the rest tell how often the file answers as the model does.
    Where that is too seldom, the layers that drift stay float. Hard-swish is float unless the flags
    ask for integers. A quantisation-aware model has its own ranges but behind poolings, and no
    operator of it is kept wider.

    Args:
        model: gives logits: the deployment model; if quantisation-aware, the training model.
        record: its record.
        photos: (n, height, width, 3) float32, preprocessed; the same photos give the same bytes.
        path: the file.
        flags: what is asked of it.

    Raises:
        UserError: there are fewer than two photos, or the agreement cannot be reached.
    """
    if len(photos) < 2:
        raise UserError(
            f"an int8 file needs at least 2 photos to be calibrated and checked on, not"
            f" {len(photos)}: give a split that holds more"
        )
    seen, unseen = photos[0::2], photos[1::2]
    expected = model.predict(unseen, batch_size=_BATCH_SIZE, verbose=0)

    def drift_of(content: bytes) -> Drift:
        return drift_between(expected, logits_of(content, unseen))

    if record.config.quantization_aware:
        content = quantize_by_own_ranges(with_constant_ranges(model, record, seen), flags.int8_io)
        converted = _Converted(content, content)
    else:
        converted = _calibrated(model, seen, drift_of, flags)
    outcome = _outcome(converted, drift_of, len(unseen))
    if outcome.agreement < flags.int8_min_agreement and not record.config.quantization_aware:
        raise UserError(
            f"the int8 file agrees with the model on {outcome.agreement:.1%} of {len(unseen)}"
            f" photos, even with {len(converted.wide)} layers in float: lower --int8_min_agreement"
            f" ({flags.int8_min_agreement:g}), or export without litert_int8"
        )
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(converted.content)
    attach_record(path, record)
    logging.info("%s", _in_words(outcome))
    attached = os.path.getsize(path) - outcome.bytes
    return dataclasses.replace(
        outcome, bytes=outcome.bytes + attached, narrow_bytes=outcome.narrow_bytes + attached
    )


def _calibrated(
    model: keras.Model,
    photos: np.ndarray,
    drift_of: Callable[[bytes], Drift],
    flags: Int8Flags,
) -> _Converted:
    """The file of a float model, with ranges seen on `photos`, (n, height, width, 3) float32."""
    calibrated = Calibrated.on(model, photos)
    float_kinds = (_HARD_SWISH,) if flags.int8_hard_swish == FLOAT32 else ()

    def convert(wide: Sequence[Layer]) -> bytes:
        tensors = [tensor for layer in wide for tensor in layer.tensors]
        return calibrated.quantize(tensors, float_kinds, flags.int8_io)

    all_operators = operators(calibrated.quantize())
    wide = find_wide_layers(
        find_layers(model, all_operators),
        lambda layers: drift_of(convert(layers)),
        flags.int8_min_agreement,
    )
    float_hard_swish = any(kind in float_kinds for kind, _ in all_operators)
    return _Converted(convert(wide), convert([]), wide, float_hard_swish)


def _outcome(
    converted: _Converted, drift_of: Callable[[bytes], Drift], num_photos: int
) -> Int8Outcome:
    content, narrow, wide = converted.content, converted.narrow, converted.wide
    agreement, narrow_agreement = drift_of(content).agreement, drift_of(narrow).agreement
    notes = f"agrees with the model on {agreement:.1%} of {num_photos} photos"
    if wide:
        blocks = dict.fromkeys(layer.block for layer in wide)
        names = f"{len(wide)} layers of {', '.join(blocks)}"
        notes += (
            f"; kept in float: {names}, without which it would be {narrow_agreement:.1%} and"
            f" {len(content) - len(narrow):,} bytes less"
        )
    if converted.float_hard_swish:
        notes += f"; {_FLOAT_HARD_SWISH}"
    latency = latency_ms(content)
    return Int8Outcome(
        wider_layers=tuple(layer.name for layer in wide),
        agreement=agreement,
        bytes=len(content),
        notes=notes,
        num_photos=num_photos,
        narrow_agreement=narrow_agreement,
        narrow_bytes=len(narrow),
        latency_ms=latency,
        narrow_latency_ms=latency_ms(narrow) if wide else latency,
    )


def _in_words(outcome: Int8Outcome) -> str:
    cost = f", {outcome.latency_ms:.1f} ms an image"
    if outcome.wider_layers:
        cost += f" ({outcome.narrow_latency_ms:.1f} ms without these layers in float)"
    return f"int8: {outcome.notes}{cost}"
