"""Full-integer LiteRT files: calibration, layers kept in float, ranges that were trained."""

import hashlib
import pathlib

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from common.errors import UsageError, UserError
from common.labels import LabelNumbering
from loaders.open import ModelRequest, open_checkpoint
from pipeline.formats.deployment import build_deployment_model
from pipeline.formats.int8 import Int8Flags, write_int8
from pipeline.formats.int8.drift import Drift, drift_between, find_wide_layers
from pipeline.formats.int8.layers import Layer, find_layers
from pipeline.formats.int8.running import logits_of, operators
from training.models import ModelRecord, build_model, make_config

DATA = pathlib.Path(__file__).parents[1] / "data"
NUM_CLASSES = 7


def record_of(name: str, size: int = 32) -> ModelRecord:
    config = make_config(
        name, num_classes=NUM_CLASSES, width_multiplier=0.25, input_shape=(size, size, 3)
    ).replace(classifier_activation=None, stddev=0.3)
    names = tuple(f"class {number}" for number in range(NUM_CLASSES))
    return ModelRecord(config, LabelNumbering(NUM_CLASSES, 0), names)


def deployed(record: ModelRecord) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_deployment_model(build_model(record.config), record.config)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Coloured patches, in [-1, 1]."""
    rng = np.random.default_rng(2)
    coarse = rng.uniform(-1, 1, (40, 4, 4, 3)).astype(np.float32)
    return np.clip(
        coarse.repeat(8, axis=1).repeat(8, axis=2) + rng.normal(0, 0.1, (40, 32, 32, 3)), -1, 1
    ).astype(np.float32)


@pytest.fixture(scope="module")
def v1(photos, tmp_path_factory):
    """A V1 as an 8-bit file: (record, model, path, outcome)."""
    record = record_of("mobilenet_v1")
    model = deployed(record)
    path = tmp_path_factory.mktemp("int8") / "litert" / "int8.tflite"
    outcome = write_int8(model, record, photos, str(path), Int8Flags(int8_min_agreement=0.0))
    return record, model, path, outcome


def details(path: pathlib.Path) -> tuple[dict, dict, list[dict]]:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    return given, answer, interpreter.get_tensor_details()


def weights_in(path: pathlib.Path, kind: type) -> int:
    """Values of the large constants of a type; activations have a leading 1."""
    return sum(
        int(np.prod(row["shape"]))
        for row in details(path)[2]
        if row["dtype"] == kind and "Conv" in row["name"] and len(row["shape"]) == 4
    )


def test_the_file_answers_as_the_model_does(v1, photos):
    _, model, path, outcome = v1
    expected = model.predict(photos, verbose=0)
    found = logits_of(path.read_bytes(), photos)
    assert found.shape == (40, NUM_CLASSES) and found.dtype == np.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] >= 0.99
    unseen = np.argmax(found[1::2], axis=1) == np.argmax(expected[1::2], axis=1)
    assert outcome.agreement == pytest.approx(np.mean(unseen))
    assert outcome.num_photos == 20
    assert "hard-swish" not in outcome.notes  # V1 has none
    assert outcome.wider_layers == ()
    assert outcome.bytes == outcome.narrow_bytes == path.stat().st_size


def test_all_operators_are_integer(v1):
    given, answer, tensors = details(v1[2])
    assert given["dtype"] == answer["dtype"] == np.float32
    floats = [row["name"] for row in tensors if row["dtype"] == np.float32]
    assert set(floats) == {given["name"], answer["name"]}
    kernels = [row for row in tensors if row["dtype"] == np.int8 and row["shape"][-1] > 100]
    assert any(len(row["quantization_parameters"]["scales"]) > 1 for row in kernels)


def test_the_same_photos_give_the_same_bytes(v1, photos, tmp_path):
    record, model, path, _ = v1
    again, other = tmp_path / "again.tflite", tmp_path / "other.tflite"
    flags = Int8Flags(int8_min_agreement=0.0)
    write_int8(model, record, photos.copy(), str(again), flags)
    write_int8(model, record, photos * 0.5, str(other), flags)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_integer_input_and_output(v1, photos, tmp_path):
    record, model, path, _ = v1
    integer = tmp_path / "uint8.tflite"
    write_int8(
        model, record, photos, str(integer), Int8Flags(int8_min_agreement=0.0, int8_io="uint8")
    )
    given, answer, tensors = details(integer)
    assert given["dtype"] == answer["dtype"] == np.uint8
    assert not [row["name"] for row in tensors if row["dtype"] == np.float32]
    np.testing.assert_allclose(
        logits_of(integer.read_bytes(), photos),
        logits_of(path.read_bytes(), photos),
        atol=2.01 * answer["quantization"][0],
    )


def test_hard_swish_stays_float_unless_integers_are_asked_for(photos, tmp_path):
    record = record_of("mobilenet_v3_small")
    model = deployed(record)
    kinds, outcomes = {}, {}
    for kind, io in (("float32", "float32"), ("int8", "uint8")):
        path = tmp_path / f"{kind}.tflite"
        flags = Int8Flags(int8_min_agreement=0.0, int8_hard_swish=kind, int8_io=io)
        outcomes[kind] = write_int8(model, record, photos[:16], str(path), flags)
        names = {tensor for name, tensor in operators(path.read_bytes()) if name == "HARD_SWISH"}
        rows = details(path)[2]
        kinds[kind] = {row["dtype"] for row in rows if row["name"] in names}
    assert kinds == {"float32": {np.float32}, "int8": {np.int8}}
    assert not [row["name"] for row in rows if row["dtype"] == np.float32]  # all integers
    words = "hard-swish in float (--int8_hard_swish=int8 for integer-only hardware)"
    assert words in outcomes["float32"].notes
    assert "hard-swish" not in outcomes["int8"].notes


def test_layers_are_found_under_their_names(photos):
    """Scopes are numbered by TensorFlow, layers by slim: neither may be taken for the other."""
    from pipeline.formats.int8.conversion import Calibrated

    for name, first, last, block in (
        ("mobilenet_v1", "Conv2d_0", "Logits.Conv2d_1c_1x1", "Conv2d_13"),
        ("mobilenet_v2", "Conv", "Logits.Conv2d_1c_1x1", "expanded_conv_16"),
        ("mobilenet_v3_small", "Conv", "Logits.Conv2d_1c_1x1", "expanded_conv_10"),
    ):
        model = deployed(record_of(name))
        content = Calibrated.on(model, photos[:2]).quantize()
        layers = find_layers(model, operators(content))
        assert (layers[0].name, layers[-1].name) == (first, last)
        assert block in {layer.block for layer in layers}
        convolutions = [layer.name for layer in model.layers if layer.count_params()]
        assert [layer.name for layer in layers if layer.num_weights] == convolutions


def layer(name: str, block: str, num_weights: int) -> Layer:
    return Layer(name, block, (f"model/{name}",), num_weights)


LAYERS = [
    layer("a.expand", "a", 100),
    layer("a.project", "a", 900),
    layer("b.expand", "b", 50),
    layer("c.expand", "c", 10),
]


def drift_by(costs: dict[str, float]):
    """A model whose layers each take so much of the agreement, and notes on what was tried."""
    tried = []

    def drift_of(wide):
        tried.append([layer.name for layer in wide])
        lost = sum(cost for name, cost in costs.items() if name not in tried[-1])
        return Drift(1.0 - lost, lost)

    return drift_of, tried


def test_nothing_is_kept_wide_where_the_limit_holds():
    drift_of, tried = drift_by({"a.project": 0.05})
    assert find_wide_layers(LAYERS, drift_of, 0.9) == []
    assert tried == [[]]


def test_the_worst_block_is_kept_wide_less_what_can_be_spared():
    drift_of, _ = drift_by({"a.expand": 0.3, "b.expand": 0.05, "c.expand": 0.01})
    wide = find_wide_layers(LAYERS, drift_of, 0.9)
    assert [layer.name for layer in wide] == ["a.expand"]  # a.project loses nothing


def test_blocks_are_added_until_the_limit_holds():
    drift_of, _ = drift_by({"a.project": 0.05, "b.expand": 0.3, "c.expand": 0.2})
    wide = find_wide_layers(LAYERS, drift_of, 0.9)
    assert [layer.name for layer in wide] == ["b.expand", "c.expand"]


def test_a_limit_out_of_reach_ends_with_all_layers_wide():
    drift_of, tried = drift_by({"elsewhere": 0.5})
    assert find_wide_layers(LAYERS, drift_of, 0.9) == LAYERS
    assert len(tried) < 20


def test_wide_layers_bring_the_file_to_the_limit(photos, tmp_path):
    """One channel of a depthwise kernel is so large that its output leaves others no digits."""
    record = record_of("mobilenet_v1")
    model = deployed(record)
    drifting = model.get_layer("Conv2d_2_depthwise")
    kernel, bias = drifting.get_weights()
    following = model.get_layer("Conv2d_2_pointwise")
    # Rounded kernels of the layer behind share one scale within an output channel.
    weights, behind = following.get_weights()
    weights[:, :, 0] *= 3000.0
    kernel[:, :, 0] /= 3000.0
    bias[0] /= 3000.0
    drifting.set_weights([kernel, bias])
    following.set_weights([weights, behind])
    path = tmp_path / "int8.tflite"
    outcome = write_int8(model, record, photos, str(path), Int8Flags(int8_min_agreement=0.95))
    assert outcome.narrow_agreement < 0.95 <= outcome.agreement
    assert "Conv2d_2_pointwise" in outcome.wider_layers
    assert len(outcome.wider_layers) < 10
    assert outcome.bytes > outcome.narrow_bytes
    assert "kept in float: " in outcome.notes
    assert f"and {outcome.bytes - outcome.narrow_bytes:,} bytes less" in outcome.notes
    expected = model.predict(photos[1::2], verbose=0)
    found = logits_of(path.read_bytes(), photos[1::2])
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) == outcome.agreement


def test_drift_is_agreement_and_divergence():
    expected = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    found = np.log([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
    drift = drift_between(expected, found + 3.0)  # a shift of all logits changes nothing
    assert drift.agreement == 0.5
    assert drift.divergence == pytest.approx(0.5 * (0.5 * np.log(2) - 0.25 * np.log(2)))


@pytest.mark.parametrize(
    "name",
    [
        "random_v1_0.25_128_quant",
        pytest.param("random_v3_small_0.5_96_quant", marks=pytest.mark.long),
    ],
)
def test_trained_ranges_are_those_of_the_file(name, tmp_path):
    """Against logits of the TF1 rewriter's graph, whose kernels have a range of their own each."""
    reference = np.load(DATA / name / "reference.npz")
    images = reference["images"]
    request = ModelRequest(resolution=images.shape[1], quantization_aware=True)
    checkpoint = open_checkpoint(str(DATA / name), request, weights="raw")
    path = tmp_path / "int8.tflite"
    # Each twice, so that every image gives ranges: poolings have none of their own.
    photos = images.repeat(2, axis=0)
    outcome = write_int8(checkpoint.build(), checkpoint.record, photos, str(path))
    assert outcome.wider_layers == ()
    given, answer, tensors = details(path)
    assert {row["name"] for row in tensors if row["dtype"] == np.float32} == {
        given["name"],
        answer["name"],
    }
    found = logits_of(path.read_bytes(), images)
    expected, plain = reference["logits_quant"], reference["logits_float"]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] >= 0.97
    assert np.mean(np.abs(found - expected)) < np.mean(np.abs(found - plain)) / 1.8
    # The logits' own 8-bit grid: 255 steps between the ends that the checkpoint holds.
    ends = dict(
        zip(
            reference["range_names"],
            zip(reference["range_min"], reference["range_max"], strict=True),
            strict=True,
        )
    )
    ((low, high),) = (
        pair for key, pair in ends.items() if str(key).endswith("Conv2d_1c_1x1/act_quant")
    )
    steps = np.unique(np.round(np.diff(np.unique(found)) / ((high - low) / 255), 3))
    np.testing.assert_allclose(steps, np.round(steps), atol=0.01)


def digest_with_odd_photos_times(model, record, photos, path, factor: float) -> str:
    """Of the file that is written where every other photo is multiplied by `factor`."""
    changed = photos.copy()
    changed[1::2] *= factor
    write_int8(model, record, changed, str(path), Int8Flags(int8_min_agreement=0.0))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_photos_that_tell_the_agreement_give_no_ranges(v1, photos, tmp_path):
    record, model, path, _ = v1
    changed = digest_with_odd_photos_times(model, record, photos, tmp_path / "odd.tflite", 0.25)
    assert changed == hashlib.sha256(path.read_bytes()).hexdigest()


def test_ranges_of_poolings_are_of_other_photos_than_the_agreement(photos, tmp_path):
    request = ModelRequest(resolution=128, quantization_aware=True)
    checkpoint = open_checkpoint(str(DATA / "random_v1_0.25_128_quant"), request, weights="raw")
    model, record = checkpoint.build(), checkpoint.record
    photos = photos[:8].repeat(4, axis=1).repeat(4, axis=2)
    path = tmp_path / "int8.tflite"
    given = digest_with_odd_photos_times(model, record, photos, path, 1.0)
    assert given == digest_with_odd_photos_times(model, record, photos, path, 0.25)
    # The other half gives them.
    assert given != digest_with_odd_photos_times(model, record, photos * 0.25, path, 1.0)


def test_too_few_photos_are_refused(v1, photos, tmp_path):
    record, model, *_ = v1
    path = tmp_path / "int8.tflite"
    with pytest.raises(UserError, match="at least 2 photos"):
        write_int8(model, record, photos[:1], str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    "flags",
    [{"num_calibration_images": 1}, {"int8_min_agreement": 1.5}, {"int8_min_agreement": -1}],
)
def test_flags_out_of_range_are_refused(flags):
    with pytest.raises(UsageError, match="--" + next(iter(flags))):
        Int8Flags(**flags)
