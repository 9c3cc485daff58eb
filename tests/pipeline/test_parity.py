"""The parity gate: what agrees passes, and each way to break each format is named.

Artifacts are written from a model that is right or that was spoiled, and held against the right
one.
"""

import dataclasses
import json

import numpy as np
import pytest

from common.errors import UsageError, UserError
from pipeline import formats

from .parity import (
    FORMATS,
    LITERT,
    LOGITS,
    Trained,
    convert,
    gate,
    spoiled,
    write,
    write_beside,
)

pytest_plugins = ["tests.pipeline.parity"]

ROWS = [
    "checkpoint, restored",
    "saved_model, serving_default",
    "saved_model, serving_jpeg",
    *FORMATS[2:],
]


def test_a_right_export_passes_in_fresh_processes(learnt, tmp_path, capsys):
    import tensorflow as tf

    from pipeline.parity import require_parity

    limits = {f"min_agreement_{name}": 0.6 for name in LITERT[2:]}
    limits |= {f"max_accuracy_drop_{name}": 0.2 for name in LITERT[2:]}  # so few, so unsure answers
    rows = gate(learnt, tmp_path, write(learnt, tmp_path), **limits)
    assert list(rows) == ROWS
    assert not [row for row in rows.values() if not row.passed or row.first_divergence]
    require_parity(list(rows.values()))
    table = capsys.readouterr().out
    assert table.count("agrees") == len(ROWS)
    json.dumps([dataclasses.asdict(row) for row in rows.values()], allow_nan=False)
    # The figures, by hand.
    logits = learnt.model(learnt.images.images, training=False).numpy()
    right = np.mean(logits.argmax(axis=1) == learnt.images.class_index)
    assert rows["checkpoint, restored"].top_1 == right
    assert rows["checkpoint, restored"].largest_probability_difference == 0.0
    interpreter = tf.lite.Interpreter(str(tmp_path / formats.PATHS[formats.LITERT_FLOAT16]))
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.allocate_tensors()
    found = []
    for image in learnt.images.images:
        interpreter.set_tensor(given["index"], image[np.newaxis])
        interpreter.invoke()
        found.append(interpreter.get_tensor(taken["index"])[0])
    difference = np.abs(tf.nn.softmax(found) - tf.nn.softmax(logits)).max()
    row = rows[formats.LITERT_FLOAT16]
    assert row.largest_probability_difference == pytest.approx(difference, rel=0.1)


@pytest.mark.parametrize(
    ("changed", "change", "layer", "cause"),
    [
        pytest.param(
            "Conv2d_0.kernel",
            lambda kernel: kernel[:, :, ::-1],
            "Conv2d_0",
            "swapped order (BGR for RGB)",
            id="swapped channel order",
        ),
        pytest.param(
            "Conv2d_6_pointwise.kernel",
            lambda kernel: np.roll(kernel, 1, axis=-1),
            "Conv2d_6_pointwise",
            "Conv2d_6_pointwise",
            id="stale weights",
            marks=pytest.mark.long,
        ),
    ],
)
def test_every_format_of_another_model_is_named_with_layer_and_cause(
    trained, tmp_path, in_process, changed, change, layer, cause
):
    from pipeline.parity import require_parity

    other = spoiled(trained, {changed: change})
    rows = gate(trained, tmp_path, write(other, tmp_path))
    assert list(rows) == ROWS
    for name, row in rows.items():
        assert not row.passed, name
        assert row.first_divergence.startswith(f"{layer} ("), (name, row.first_divergence)
        assert cause in row.cause, (name, row.cause)
    assert rows["checkpoint, restored"].cause.startswith(
        "it takes" if layer == "Conv2d_0" else f"stale weights: {changed} is off by"
    )
    for name in ROWS:
        with pytest.raises(UserError) as raised:
            require_parity([rows[name]])
        assert str(raised.value).startswith(
            f"the export disagrees with the model and is not written: {name} is off by"
        )
        assert f"first diverging layer: {layer} (" in str(raised.value)


def test_other_preprocessing_in_the_jpeg_signature_is_named(trained, tmp_path, in_process):
    record = dataclasses.replace(trained.record, evaluation_preprocessing="bicubic")
    other = dataclasses.replace(trained, record=record)
    artifacts = write(other, tmp_path, [formats.SAVED_MODEL])
    with pytest.raises(UserError, match=r"model\.json says that evaluation_preprocessing"):
        gate(trained, tmp_path, artifacts)
    for directory in (tmp_path, tmp_path / "saved_model"):
        trained.record.write(str(directory))
    rows = gate(trained, tmp_path, artifacts)
    assert rows["saved_model, serving_default"].passed
    row = rows["saved_model, serving_jpeg"]
    assert not row.passed
    assert row.first_divergence.startswith("images (")
    assert row.cause == "its preprocessing is 'bicubic', the model's 'inception'"


@pytest.mark.long
def test_another_input_range_is_named(learnt, tmp_path, in_process, monkeypatch):
    """The preprocessing of what takes images: their range."""
    import keras

    from pipeline.formats import saved_model
    from pipeline.formats.deployment import build_deployment_model
    from pipeline.formats.litert import attach_record
    from pipeline.formats.onnx import write_onnx

    deployed = build_deployment_model(learnt.model, learnt.record.config)
    pixels = keras.Input(deployed.input_shape[1:], name="pixels")
    other = keras.Model(pixels, deployed(keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)))
    names = FORMATS[1:]
    # It looks into no model inside another.
    monkeypatch.setattr(
        saved_model, "weights_of", lambda model: {v.path: v for v in model.variables}
    )
    artifacts = [formats.Artifact(name, formats.PATHS[name], 0, "") for name in names]
    write_beside(learnt, tmp_path)
    (tmp_path / "litert").mkdir()
    photos = (learnt.images.images + 1) * 127.5
    for name in names:
        path = tmp_path / formats.PATHS[name]
        if name in LITERT:
            path.write_bytes(convert(other, name, photos))
            attach_record(str(path), learnt.record)
        elif name == formats.SAVED_MODEL:
            saved_model.write_saved_model(other, learnt.record, str(path))
        elif name == formats.KERAS:
            other.save(path)
        else:
            write_onnx(other, str(path))
    rows = gate(learnt, tmp_path, artifacts)
    assert list(rows) == ROWS[1:]
    assert not rows.pop("saved_model, serving_jpeg").passed  # it scales for the model, as it should
    for name, row in rows.items():
        assert not row.passed, name
        assert row.cause == "it expects images in [0, 255], not [-1, 1]", name
        assert row.first_divergence.startswith("Conv2d_0 ("), name


@pytest.fixture(scope="module")
def flat(learnt) -> Trained:
    """1001 classes that are all but equally likely, on any photo."""
    from training.models import build_model
    from training.models.mobilenet import weights_of

    config = learnt.record.config.replace(num_classes=1001, classifier_activation=None)
    model = build_model(config)
    values = {name: variable.numpy() for name, variable in weights_of(model).items()}
    values |= {name: v for name, v in learnt.values.items() if not name.startswith(LOGITS)}
    kernel = values[f"{LOGITS}.kernel"]
    random = np.random.default_rng(3)
    values[f"{LOGITS}.kernel"] = random.normal(0, 1e-5, kernel.shape).astype(np.float32)
    record = dataclasses.replace(
        learnt.record,
        config=learnt.record.config.replace(num_classes=1001),
        classes=tuple(f"class {i}" for i in range(1001)),
        labels=dataclasses.replace(learnt.record.labels, num_classes=1001),
    )
    return spoiled(dataclasses.replace(learnt, record=record, values=values), {})


STALE = {"Conv2d_6_pointwise.kernel": lambda kernel: np.roll(kernel, 1, axis=-1)}


@pytest.mark.long
def test_flat_probabilities_do_not_hide_stale_weights(flat, tmp_path, in_process):
    names = [formats.CHECKPOINT, formats.SAVED_MODEL, formats.KERAS, *LITERT[:3:2]]
    rows = gate(flat, tmp_path / "right", write(flat, tmp_path / "right", names))
    assert all(row.passed for row in rows.values()), rows
    rows = gate(flat, tmp_path / "stale", write(spoiled(flat, STALE), tmp_path / "stale"))
    assert list(rows) == ROWS
    for name, row in rows.items():
        assert not row.passed, name
        assert row.first_divergence.startswith("Conv2d_6_pointwise ("), name
        # What is asked of probabilities alone would let it pass.
        assert row.limit is None or row.largest_probability_difference < row.limit, name


@pytest.fixture
def judged(trained, tmp_path, monkeypatch):
    """The row of an artifact that gives these logits, where the model gives others."""
    from pipeline.parity import gate as module
    from pipeline.parity.runs import Found, Reference, softmax

    def judge(name, found, expected, on_changed=None):
        reference = Reference(
            trained.model, trained.record, trained.images, expected, softmax(expected), 0.0, 0.0
        )
        reference._on_changed[False] = on_changed or {"upside down": -expected}
        monkeypatch.setattr(module, "require_records", lambda *_: None)
        monkeypatch.setattr(module.Reference, "of", lambda *_: reference)
        monkeypatch.setattr(module, "run_artifact", lambda *_: [Found("", found, softmax(found))])
        monkeypatch.setattr(module, "explained", lambda row, *_: row)
        (row,) = gate(trained, tmp_path, [formats.Artifact(name, "", 0, "")]).values()
        return row

    return judge


@pytest.mark.parametrize("name", formats.PATHS)
def test_one_class_for_all_photos_is_no_agreement(judged, name):
    random = np.random.default_rng(0)
    expected = (random.normal(0, 1e-4, (24, 5)) + np.eye(5)[2]).astype(np.float32)
    assert judged(name, expected, expected).passed
    for found in (np.roll(expected, 1, axis=0), expected[:1].repeat(24, axis=0)):
        row = judged(name, found, expected)
        assert row.top_1_agreement == 1.0 and row.accuracy_drop == 0.0
        assert not row.passed


@pytest.mark.parametrize("name", LITERT[1:])
def test_photos_read_otherwise_are_found_within_coarse_limits(judged, name):
    """Mirrored photos for example, which a model is nearly blind to."""
    random = np.random.default_rng(0)
    expected = random.normal(0, 1, (24, 50)).astype(np.float32)
    expected[:, 7] += 9
    mirrored = (expected + random.normal(0, 0.05, expected.shape)).astype(np.float32)
    rounding = random.normal(0, 0.02, expected.shape).astype(np.float32)
    on_changed = {"it sees mirrored images": mirrored}
    assert judged(name, expected + rounding, expected, on_changed).passed
    row = judged(name, mirrored + rounding, expected, on_changed)
    assert row.correlation > 0.99 and row.top_1_agreement == 1.0
    assert not row.passed
    assert row.cause == "it sees mirrored images"


def test_logits_are_compared_by_what_differs_between_photos():
    from pipeline.parity.measures import correlation, logit_difference

    random = np.random.default_rng(0)
    expected = random.normal(size=(9, 4)).astype(np.float32)
    found = expected + 0.3 * random.normal(size=(9, 4)).astype(np.float32)
    parts = [x - x.mean(1, keepdims=True) for x in (found.astype(float), expected.astype(float))]
    apart = np.abs(parts[0] - parts[1]).max()
    parts = [x - x.mean(0) for x in parts]
    assert correlation(found, expected) == pytest.approx(
        np.corrcoef(parts[0].ravel(), parts[1].ravel())[0, 1]
    )
    assert logit_difference(found, expected) == pytest.approx(apart / np.std(parts[1]))
    by_photo = 5 * random.normal(size=(9, 1))  # which a softmax does not see
    assert correlation(expected + by_photo, expected) == pytest.approx(1.0)
    assert logit_difference(expected + by_photo, expected) == pytest.approx(0.0, abs=1e-6)
    same = expected[:1].repeat(9, axis=0)
    assert correlation(same, expected) == pytest.approx(0.0, abs=1e-6)
    assert correlation(expected, same) == 1.0  # nothing to follow
    assert logit_difference(same, same) == 0.0
    assert logit_difference(expected[:1], expected[:1]) == 0.0
    assert correlation(-expected[:1], expected[:1]) == pytest.approx(-1.0)


def nearly_tied(kernel: np.ndarray) -> np.ndarray:
    """Outputs in the thousands whose small differences decide."""
    random = np.random.default_rng(2)
    first = kernel[..., :1] * 1e4
    return first * (1 + 1e-6 * random.normal(size=kernel.shape)).astype(np.float32)


def test_a_model_with_huge_logits_is_held_to_its_own_noise(trained, tmp_path, in_process):
    huge = spoiled(trained, {f"{LOGITS}.kernel": nearly_tied, f"{LOGITS}.bias": np.zeros_like})
    artifacts = write(huge, tmp_path, [formats.KERAS])
    (row,) = gate(huge, tmp_path, artifacts).values()
    assert row.largest_probability_difference > 2e-5
    assert row.passed, row
    assert "raised to" in row.requirement
    (row,) = gate(trained, tmp_path, artifacts).values()
    assert not row.passed
    assert row.first_divergence.startswith(f"{LOGITS} (")


def test_a_diverged_model_is_not_exported(trained, tmp_path):
    model = spoiled(trained, {"Conv2d_0.kernel": lambda kernel: kernel * np.nan})
    write_beside(trained, tmp_path)
    with pytest.raises(UserError, match="diverged in training"):
        gate(model, tmp_path, [])


def test_images_come_from_all_over_the_split(data_dir, trained):
    import tensorflow as tf

    from pipeline.parity import ParityImages
    from preprocessing.examples import parse_example
    from training.shards import Shards

    shards = Shards.open(str(data_dir), "validation")
    found = ParityImages.read(shards, trained.record, 6)
    records = [parse_example(r) for r in tf.data.TFRecordDataset(list(shards.paths))]
    assert len(records) == 24
    places = [2, 6, 10, 14, 18, 22]
    assert found.jpeg == [records[place]["jpeg"].numpy() for place in places]
    assert found.class_index.tolist() == [int(records[p]["class_index"]) for p in places]
    assert found.images.shape == (6, 32, 32, 3)
    assert len(ParityImages.read(shards, trained.record, 1000).jpeg) == 24


@pytest.mark.parametrize("name", ["num_parity_images", "max_difference_keras"])
def test_flags_without_sense_are_refused(name):
    from pipeline.parity import ParityFlags

    with pytest.raises(UsageError, match=f"--{name}"):
        ParityFlags(**{name: -1})


def test_every_format_has_a_limit():
    from pipeline.parity import ParityFlags

    for name in formats.PATHS:
        limit = ParityFlags().limit(name)
        is_rounded = name in LITERT[1:]
        assert (limit.difference is None) == (name in LITERT[2:])
        assert (limit.logit_difference is None) == is_rounded
        for part in (limit.agreement, limit.accuracy_drop, limit.correlation):
            assert (part is None) != is_rounded
        assert name in limit.flags


def points_and_tensors():
    from pipeline.parity.divergence import Point

    random = np.random.default_rng(0)
    values = {name: random.normal(size=(2, 3, 3, 4)).astype(np.float32) for name in "abcdef"}
    points = [Point(name, value) for name, value in values.items()]
    # Under other names, and in another order.
    return points, {f"t{name}": value for name, value in reversed(values.items())}


def test_a_layer_that_was_fused_away_does_not_diverge():
    from pipeline.parity.divergence import first_divergence

    points, tensors = points_and_tensors()
    assert first_divergence(points, tensors, 1e-4).layer == ""
    del tensors["tc"]
    assert first_divergence(points, tensors, 1e-4).layer == ""


@pytest.mark.parametrize("first", range(6))
def test_the_first_layer_that_goes_its_own_way_is_found(first):
    from pipeline.parity.divergence import first_divergence

    points, tensors = points_and_tensors()
    for name in "abcdef"[first:]:
        tensors[f"t{name}"] = tensors[f"t{name}"] + np.float32(0.01)
    divergence = first_divergence(points, tensors, 1e-3)
    assert divergence.layer == "abcdef"[first]
    assert divergence.agreeing == first
    assert divergence.error == pytest.approx(0.01, rel=0.3)
    assert first_divergence(points, tensors, 0.1).layer == ""


@pytest.mark.parametrize(
    ("order", "words"),
    [((2, 0, 1, 3), "in another order"), ((3, 0, 1, 2), "shifted by +1"), ((0, 1, 2, 3), "")],
)
def test_reordered_outputs_are_named(order, words):
    from pipeline.parity.causes import likely_cause

    logits = np.random.default_rng(1).normal(size=(24, 4))
    found = logits[:, order] + (0.0 if words else 1.0)
    on_changed = {"of nothing": np.zeros((24, 4))}
    cause = likely_cause(found, logits, on_changed, formats.KERAS)
    assert words in cause
    assert bool(cause) == bool(words)
