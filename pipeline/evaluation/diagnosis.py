"""Why an accuracy is far off: what it would be if one thing were otherwise, found by trying.

Five things go wrong again and again when a model is read by other hands than those that trained it:
labels shifted by the background class, the range of the input, the order of the channels, the
preprocessing, and raw weights in place of their averages. Each is tried on a few hundred photos.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from pipeline.evaluation.predictors import Predictor
from pipeline.evaluation.statistics import wilson_interval
from training.image_ops import decode_for_evaluation, decode_whole
from training.shards import Shards

LABELS, INPUT_RANGE, CHANNELS = "labels", "input range", "channel order"
PREPROCESSING, WEIGHTS = "preprocessing", "weights"

NUM_IMAGES = 256
_BATCH = 32
_MOST_CAUSES = 2  # that are found one on top of the other
# Of a released model, what an accuracy must reach, with the upper end of its 95 % interval.
_SHARE_OF_PUBLISHED = 0.9
# Of all other models, this much of the way from chance to all right.
_ABOVE_CHANCE = 0.1
# How many standard deviations of chance a cause must explain.
_SIGNIFICANT = 3.0

_WHOLE = "whole"
_PREPROCESSINGS = {
    "inception": "the central 87.5 % of each side, resized bilinearly as in slim",
    "bicubic": "a square of 87.5 % of the shorter side, resized bicubically with its proportions",
    _WHOLE: "the whole photo without a crop, resized bilinearly",
}
_IMAGENET = "ImageNet's mean and standard deviation"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_USUAL_RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Finding:
    """A cause, and what the accuracy would be without it.

    Attributes:
        cause: LABELS, INPUT_RANGE, CHANNELS, PREPROCESSING or WEIGHTS.
        explanation: what is otherwise than the model expects, and what to change.
        top_1: on the photos that were tried, with this and the findings before it mended.
        top_1_before: on the same photos, without.
        num_examples: how many they are.
    """

    cause: str
    explanation: str
    top_1: float
    top_1_before: float
    num_examples: int


@dataclasses.dataclass(frozen=True)
class _Setting:
    """One way of reading a photo and a label.

    Attributes:
        preprocessing: key of `_PREPROCESSINGS`.
        low: the value of a black pixel, by channel.
        high: the value of a white pixel, by channel.
        is_bgr: whether blue comes first.
        weights: 'averages' or 'raw'.
        shift: what is added to a label.
    """

    preprocessing: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    weights: str
    is_bgr: bool = False
    shift: int = 0


def is_far_off(correct: int, count: int, num_classes: int, published: float | None = None) -> bool:
    """Whether an accuracy is so low that something must be wrong.

    Of a released model: its 95 % interval lies below nine tenths of the published figure. Others:
    it is less than a tenth of the way from chance to all right.
    """
    if published is not None:
        return wilson_interval(correct, count)[1] < _SHARE_OF_PUBLISHED * published
    chance = 1 / num_classes
    return correct / count < chance + _ABOVE_CHANCE * (1 - chance)


def diagnose(
    predictor: Predictor,
    shards: Shards,
    published: float | None = None,
    is_thorough: bool = False,
    num_images: int = NUM_IMAGES,
) -> list[Finding]:
    """Tries what may be wrong, on photos spread evenly over `shards`.

    Args:
        predictor: the model.
        shards: what it was evaluated on.
        published: top-1 that was published of it, a fraction; None where none was.
        is_thorough: whether to look for another cause even where the accuracy is not far off any
            more with the first one mended.
        num_images: how many photos are tried.

    Returns:
        The cause that explains most, if there is one; and another one on top of it.
    """
    trials = _Trials(predictor, shards, num_images)
    reading = predictor.reading
    setting = _Setting(
        reading.preprocessing,
        (reading.input_range[0],) * 3,
        (reading.input_range[1],) * 3,
        predictor.weights,
    )
    correct = trials.correct(setting)
    findings: list[Finding] = []
    while len(findings) < _MOST_CAUSES:
        tried = [
            (cause, explanation, other, trials.correct(other))
            for cause, explanation, other in _changes(setting, predictor)
            if cause not in {finding.cause for finding in findings}
        ]
        cause, explanation, better, now = max(tried, key=lambda trial: trial[3].sum())
        if not _is_better(correct, now):
            break
        findings.append(
            Finding(cause, explanation, float(now.mean()), float(correct.mean()), len(now))
        )
        setting, correct = better, now
        is_off = is_far_off(int(now.sum()), len(now), len(shards.classes), published)
        if not (is_off or is_thorough):
            break
    return findings


def _is_better(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether more photos have become right than chance explains (McNemar's test)."""
    gained, lost = np.count_nonzero(after & ~before), np.count_nonzero(before & ~after)
    return gained - lost > _SIGNIFICANT * np.sqrt(gained + lost)


def _changes(setting: _Setting, predictor: Predictor) -> Iterator[tuple[str, str, _Setting]]:
    """Everything that differs from `setting` in one thing, with the cause and what to do."""
    for shift in (-1, 1):
        if setting.shift == 0:
            yield LABELS, _of_shift(predictor, shift), dataclasses.replace(setting, shift=shift)
    shown = f"[{setting.low[0]:g}, {setting.high[0]:g}]"
    for low, high in _USUAL_RANGES:
        if not np.allclose(
            (setting.low[0], setting.high[0]), (low, high), atol=0.02 * (high - low)
        ):
            yield (
                INPUT_RANGE,
                f"the model was made for pixels in [{low:g}, {high:g}], and is given {shown}:"
                f" --input_range={low:g},{high:g}",
                dataclasses.replace(setting, low=(low,) * 3, high=(high,) * 3),
            )
    mean, std = np.array(_IMAGENET_MEAN), np.array(_IMAGENET_STD)
    yield (
        INPUT_RANGE,
        f"the model was made for pixels normalised by {_IMAGENET}, and is given {shown}: normalise"
        " them within the model, or convert its first kernel",
        dataclasses.replace(setting, low=tuple(-mean / std), high=tuple((1 - mean) / std)),
    )
    yield (
        CHANNELS,
        "the model was made for BGR images, and is given RGB: swap the channels of its first kernel"
        if not setting.is_bgr
        else "the model was made for RGB images",
        dataclasses.replace(setting, is_bgr=not setting.is_bgr),
    )
    for name, what in _PREPROCESSINGS.items():
        if name != setting.preprocessing:
            remedy = "" if name == _WHOLE else f": --preprocessing={name}"
            yield (
                PREPROCESSING,
                f"the model was made for {what}, and is given"
                f" {_PREPROCESSINGS[setting.preprocessing]}{remedy}",
                dataclasses.replace(setting, preprocessing=name),
            )
    if predictor.open_other_weights is not None:
        other = "raw" if setting.weights == "averages" else "averages"
        yield (
            WEIGHTS,
            f"the {setting.weights} weights are worse than the {other} ones of the same checkpoint:"
            f" --weights={other}",
            dataclasses.replace(setting, weights=other),
        )


def _of_shift(predictor: Predictor, shift: int) -> str:
    offset = predictor.reading.label_offset
    what = {-1: "one output earlier", 1: "one output later"}[shift]
    return (
        f"the model has each class {what} than output = class index + {offset}, which the data's"
        " class list gives: one of the two has a background class, or a class, too many"
    )


class _Trials:
    """Photos, and which of them a model is right on under any setting."""

    def __init__(self, predictor: Predictor, shards: Shards, num_images: int):
        self._predictor = predictor
        self._jpeg, self._classes = _sample(shards, num_images)
        self._pixels: dict[str, np.ndarray] = {}
        self._predicts: dict[str, Callable] = {}
        self._predicted: dict[_Setting, np.ndarray] = {}

    def correct(self, setting: _Setting) -> np.ndarray:
        """(photos,) bool."""
        wanted = self._classes + self._predictor.reading.label_offset + setting.shift
        return self._outputs(dataclasses.replace(setting, shift=0)) == wanted

    def _outputs(self, setting: _Setting) -> np.ndarray:
        """The output with the largest logit, by photo."""
        if setting not in self._predicted:
            predict = self._predict(setting.weights)
            pixels = self._decoded(setting.preprocessing)
            low, high = np.float32(setting.low), np.float32(setting.high)
            outputs = []
            for start in range(0, len(pixels), _BATCH):
                images = (
                    pixels[start : start + _BATCH].astype(np.float32) / 255 * (high - low) + low
                )
                images = images[..., ::-1] if setting.is_bgr else images
                logits = predict(tf.constant(images))
                outputs.append(np.argmax(logits, axis=1))
            self._predicted[setting] = np.concatenate(outputs)
        return self._predicted[setting]

    def _predict(self, weights: str) -> Callable:
        if weights not in self._predicts:
            is_own = weights == self._predictor.weights
            predict = self._predictor.predict if is_own else self._predictor.open_other_weights()
            if self._predictor.in_graph:
                shape = [None, *self._predictor.reading.resolution, 3]
                predict = tf.function(predict, input_signature=[tf.TensorSpec(shape)])
            self._predicts[weights] = predict
        return self._predicts[weights]

    def _decoded(self, preprocessing: str) -> np.ndarray:
        """(photos, height, width, 3) uint8: rounding to bytes changes no accuracy to speak of."""
        if preprocessing not in self._pixels:
            size = self._predictor.reading.resolution

            def decode(jpeg):
                if preprocessing == _WHOLE:
                    return decode_whole(jpeg, size)
                pixels = decode_for_evaluation(jpeg, size, (0.0, 255.0), preprocessing)
                return tf.cast(tf.round(pixels), tf.uint8)

            photos = tf.data.Dataset.from_tensor_slices(self._jpeg)
            photos = photos.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
            self._pixels[preprocessing] = np.stack(list(photos.as_numpy_iterator()))
        return self._pixels[preprocessing]


def _sample(shards: Shards, num_images: int) -> tuple[list[bytes], np.ndarray]:
    """JPEG bytes and class indices of examples that are spread evenly."""
    count = min(num_images, shards.num_examples)
    examples = shards.first_example + np.arange(count) * shards.num_examples // count
    jpeg, classes = [], []
    for shard, record in map(shards.place_of, examples.tolist()):
        example = shards.parse(tf.constant(shards.read(shard, record, 1)[0]))
        jpeg.append(example["jpeg"].numpy())
        classes.append(int(example["class_index"]))
    return jpeg, np.array(classes, np.int64)
