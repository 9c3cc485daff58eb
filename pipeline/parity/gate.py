"""The gate: nothing is published that disagrees with the model that was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from common.errors import UserError
from pipeline import formats
from pipeline.parity.causes import other_reading
from pipeline.parity.explain import explained
from pipeline.parity.images import ParityImages
from pipeline.parity.limits import Limit, ParityFlags
from pipeline.parity.measures import correlation, logit_difference
from pipeline.parity.records import require_records
from pipeline.parity.rows import ParityRow, show_parity
from pipeline.parity.runs import Found, Reference, run_artifact, softmax
from training.models import ModelRecord

# Limits of these leave room for photos that are read slightly otherwise, such as mirrored ones.
_COARSE = (formats.LITERT_FLOAT16, formats.LITERT_DYNAMIC, formats.LITERT_INT8)


def run_gate(
    directory: str,
    artifacts: Sequence[formats.Artifact],
    model: keras.Model,
    record: ModelRecord,
    images: ParityImages,
    flags: ParityFlags,
) -> list[ParityRow]:
    """Compares each artifact with the model, prints the table, and returns its rows.

    Args:
        directory: the export.
        artifacts: what is in it.
        model: the one that was trained, which gives logits.
        record: what the export should say of it.
        images: what is compared on.
        flags: the limits.

    Raises:
        UserError: labels or a record in the export are not the model's, an artifact does not run,
            or the model itself gives no numbers.
    """
    require_records(directory, artifacts, record)
    reference = Reference.of(model, record, images)
    noise = reference.noise, reference.logit_noise
    rows = [
        _judge(directory, artifact, found, reference, flags.limit(artifact.format, *noise))
        for artifact in artifacts
        for found in run_artifact(directory, artifact, images)
    ]
    show_parity(rows)
    return rows


def _judge(
    directory: str,
    artifact: formats.Artifact,
    found: Found,
    reference: Reference,
    limit: Limit,
) -> ParityRow:
    name = ", ".join(filter(None, (artifact.format, found.signature)))
    expected = reference.probabilities
    for values in (found.logits, found.probabilities):
        if values.shape != expected.shape:
            raise UserError(
                f"{name} gives outputs of the shape {list(values.shape)} for"
                f" {len(expected)} images, the model of {list(expected.shape)}"
            )
    labels = reference.images.class_index + reference.record.labels.offset
    by_image = np.max(
        [np.abs(p - expected).max(axis=1) for p in (found.probabilities, softmax(found.logits))],
        axis=0,
    )
    difference = float(by_image.max())
    answers, expected_answers = found.probabilities.argmax(axis=1), expected.argmax(axis=1)
    top_1 = float(np.mean(answers == labels))
    row = ParityRow(
        artifact=name,
        format=artifact.format,
        largest_probability_difference=difference,
        top_1_agreement=float(np.mean(answers == expected_answers)),
        top_1=top_1,
        accuracy_drop=float(np.mean(expected_answers == labels)) - top_1,
        largest_logit_difference=logit_difference(found.logits, reference.logits),
        correlation=correlation(found.logits, reference.logits),
        limit=limit.difference,
        requirement=limit.flags,
        passed=False,
    )
    if _keeps(row, limit) and np.isfinite(difference):
        if not (cause := _other_reading(row.format, found, reference)):
            return dataclasses.replace(row, passed=True)
        row = dataclasses.replace(row, cause=cause)
    return explained(row, directory, artifact, found, reference, by_image)


def _keeps(row: ParityRow, limit: Limit) -> bool:
    """Whether a row is within the limit; a difference that is no number is not."""
    # Equal top-1 classes are not asked where the same is computed: of two classes that are equally
    # likely either may come first.
    return (
        (limit.difference is None or row.largest_probability_difference <= limit.difference)
        and (
            limit.logit_difference is None or row.largest_logit_difference <= limit.logit_difference
        )
        and (limit.agreement is None or row.top_1_agreement >= limit.agreement)
        and (limit.accuracy_drop is None or row.accuracy_drop <= limit.accuracy_drop + 1e-9)
        and (limit.correlation is None or row.correlation >= limit.correlation)
    )


def _other_reading(format_name: str, found: Found, reference: Reference) -> str:
    """How an artifact in a coarse format reads photos, if that explains its outputs better."""
    if format_name not in _COARSE:
        return ""
    return other_reading(found.logits, reference.logits, reference.on_changed(from_jpeg=False))
