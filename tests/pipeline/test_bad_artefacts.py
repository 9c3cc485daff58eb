"""Cut, foreign and hostile files given to evaluate: one line each, and nothing is run of them."""

import json
import os
import pathlib
import subprocess
import sys
import types
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from pipeline.evaluation import litert_probe
from pipeline.evaluation.operations import find_foreign_operation

from .colour_model import RESOLUTION, colour_model, to_litert
from .conftest import draw_photo, start


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> pathlib.Path:
    """Files that can be evaluated, to be spoilt."""
    root = tmp_path_factory.mktemp("good")
    model = colour_model(np.eye(3, dtype=np.float32))
    model.save(root / "model.keras")
    (root / "model.tflite").write_bytes(to_litert(model))
    model.export(root / "saved_model", verbose=False)
    return root


@pytest.fixture
def refused(command, data_dir, tmp_path):
    """Evaluates what must be refused in one line; returns the line."""

    def call(path, code=1, **flags) -> str:
        output = tmp_path / "evaluation.json"
        outcome = command(
            "evaluate", checkpoint_path=path, data_dir=data_dir, output=output, **flags
        )
        assert outcome.code == code, (outcome.out, outcome.err)
        (line,) = outcome.err.splitlines()
        assert "error: " in line and "Traceback" not in outcome.out
        assert not output.exists()
        return line

    return call


def write_saved_model(directory, function, **signatures) -> None:
    module = tf.Module()
    module.call = function
    tf.saved_model.save(module, str(directory), signatures=signatures or None)


IMAGES = tf.TensorSpec([None, RESOLUTION, RESOLUTION, 3], tf.float32, name="images")


@tf.function(input_signature=[IMAGES])
def mean_colour(images):
    return {"logits": tf.reduce_mean(images, axis=[1, 2])}


@tf.function(input_signature=[IMAGES])
def two_outputs(images):
    return {"a": tf.reduce_mean(images, axis=[1, 2]), "b": tf.reduce_max(images, axis=[1, 2])}


@tf.function(input_signature=[IMAGES, tf.TensorSpec([], tf.float32, name="scale")])
def two_inputs(images, scale):
    return {"logits": tf.reduce_mean(images, axis=[1, 2]) * scale}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpeg")])
def of_strings(jpeg):
    return {"logits": tf.zeros([tf.size(jpeg), 3])}


@tf.function(input_signature=[tf.TensorSpec([None, 300], tf.float32, name="features")])
def of_vectors(features):
    return {"logits": features[:, :3]}


@tf.function(input_signature=[IMAGES])
def a_map(images):
    return {"logits": images[..., :2]}


def test_a_saved_model_without_a_signature(refused, tmp_path):
    module = tf.Module()  # of two functions TensorFlow makes none a signature
    module.one, module.other = mean_colour, two_outputs
    tf.saved_model.save(module, str(tmp_path / "model"))
    assert "has no signature to call" in refused(tmp_path / "model")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (two_outputs, "gives a float32 (None, 3), b float32 (None, 3): one output"),
        (two_inputs, "one input is needed"),
        (of_strings, "takes jpeg string (None,): float32 or uint8 images"),
        (of_vectors, "takes input of shape [None, 300]"),
        (a_map, "gives output of shape [None, 32, 32, 2]"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_saved_model_with_other_names_or_shapes(refused, tmp_path, function, words):
    write_saved_model(tmp_path / "model", function, serving_default=function)
    assert words in refused(tmp_path / "model")


def test_a_saved_model_with_several_signatures_and_no_default(refused, tmp_path):
    write_saved_model(tmp_path / "model", mean_colour, first=mean_colour, second=mean_colour)
    assert "has no signature 'serving_default', only 'first', 'second'" in refused(
        tmp_path / "model"
    )


def write_by_file(path):
    tf.io.write_file(path, "got out")


def write_by_print(path):
    tf.print("got out", output_stream=f"file://{path}")


def write_by_checkpoint(path):
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=["got out"], shape_and_slices=[""], tensors=[tf.zeros([1])]
    )


@pytest.mark.parametrize(
    ("write", "operation"),
    [
        (write_by_file, "WriteFile"),
        (write_by_print, "PrintV2"),
        (write_by_checkpoint, "SaveV2"),
    ],
)
def test_a_saved_model_that_writes_a_file_is_not_opened(refused, tmp_path, write, operation):
    escaped = tmp_path / "escaped"

    @tf.function(input_signature=[IMAGES])
    def hostile(images):
        write(str(escaped))
        return {"logits": tf.reduce_mean(images, axis=[1, 2])}

    write_saved_model(tmp_path / "model", hostile, serving_default=hostile)
    assert f"holds the operation {operation}" in refused(tmp_path / "model")
    assert not list(tmp_path.glob("escaped*"))


# Whatever may read or write files, talk to others, or run Python.
REACHING_OUT = """
    ReadFile WriteFile MatchingFiles WholeFileReader WholeFileReaderV2 PyFunc PyFuncStateless
    EagerPyFunc FixedLengthRecordReader FixedLengthRecordReaderV2 TextLineReader TextLineReaderV2
    TFRecordReader TFRecordReaderV2 IdentityReader IdentityReaderV2 TextLineDataset TFRecordDataset
    TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 CacheDataset
    CacheDatasetV2 SaveDataset SaveDatasetV2 SnapshotDataset SnapshotDatasetV2 LoadDataset
    SqlDataset LMDBDataset LMDBReader CSVDataset DatasetToTFRecord DataServiceDataset
    DataServiceDatasetV4 RegisterDataset GeneratorDataset ImmutableConst LoadAndRemapMatrix
    GenerateVocabRemapping RecordInput MergeV2Checkpoints Save SaveSlices SaveV2 WriteSummary
    WriteGraphSummary CreateSummaryDbWriter CreateSummaryFileWriter DebugIdentity DebugIdentityV2
    DebugIdentityV3 DebugNumericSummary FileSystemSetConfiguration RemoteCall Send Recv _Send _Recv
""".split()  # noqa: SIM905 -- as a list, ruff would give each a line


@pytest.mark.parametrize("in_function", [True, False])
def test_operations_that_reach_out_are_found(good, in_function):
    content = (good / "saved_model" / "saved_model.pb").read_bytes()
    for operation in REACHING_OUT:
        (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
        assert find_foreign_operation(graph) is None
        if in_function:
            name = next(n for n in graph.object_graph_def.concrete_functions if "__call__" in n)
            functions = graph.graph_def.library.function
            (body,) = (f.node_def for f in functions if f.signature.name == name)
            body.add(name="hostile", op=operation)
        else:
            graph.graph_def.node.add(name="hostile", op=operation)
            (output,) = graph.signature_def["serving_default"].outputs.values()
            output.name = "hostile:0"
        assert find_foreign_operation(graph) == operation


def test_what_others_models_hold_is_no_reason_to_refuse_them(tmp_path, command, data_dir):
    """Random numbers, tables, loops, messages; and TF1's two savers."""
    module = tf.Module()
    module.generator = tf.random.Generator.from_seed(1)
    module.scale = tf.Variable(tf.ones([3]))
    pairs = tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0])
    module.table = tf.lookup.StaticHashTable(pairs, 0.0)

    @tf.function(input_signature=[IMAGES])
    def busy(images):
        tf.debugging.assert_non_negative(tf.shape(images)[0])
        tf.print("images", tf.shape(images))
        noise = module.generator.normal([3]) + tf.random.uniform([3])
        for _ in tf.range(tf.shape(images)[0]):
            noise /= 2.0
        mean = tf.reduce_mean(images, axis=[1, 2]) * module.scale
        return {"logits": mean + 1e-9 * noise * module.table.lookup(tf.constant(0))}

    module.busy = busy
    tf.saved_model.save(module, str(tmp_path / "busy"), signatures={"serving_default": busy})

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, IMAGES.shape)
        scale = tf.compat.v1.get_variable("scale", initializer=tf.ones([3]))
        tf.compat.v1.train.Saver(sharded=True)
        session.run(scale.initializer)
        logits = tf.reduce_mean(images, axis=[1, 2]) * scale
        tf.compat.v1.saved_model.simple_save(
            session, str(tmp_path / "tf1"), {"images": images}, {"logits": logits}
        )
    for name in ("busy", "tf1"):
        outcome = command("evaluate", checkpoint_path=tmp_path / name, data_dir=data_dir)
        assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_cut_saved_model(good, refused, tmp_path, name, share):
    copied = copy_of(good / "saved_model", tmp_path)
    os.truncate(copied / name, int(share * (copied / name).stat().st_size))
    assert str(copied) in refused(copied)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 0.4, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("name", ["model.keras", "model.tflite"])
def test_a_cut_file(good, refused, tmp_path, name, share):
    copied = copy_of(good / name, tmp_path)
    os.truncate(copied, int(share * copied.stat().st_size))
    assert str(copied) in refused(copied)


@pytest.mark.parametrize("seed", range(6))
def test_a_litert_file_with_wrong_bytes_ends_in_a_line_or_an_evaluation(
    good, command, data_dir, tmp_path, seed
):
    """Not every wrong byte can be told from a right one, but none may take the process with it."""
    content = bytearray((good / "model.tflite").read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(8, len(content), 40):
        content[place] = rng.integers(256)
    (tmp_path / "bad.tflite").write_bytes(bytes(content))
    outcome = command(
        "evaluate", checkpoint_path=tmp_path / "bad.tflite", data_dir=data_dir, diagnose="never"
    )
    assert outcome.code in (0, 1)
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["model.keras", "model.tflite", "model", "model.h5", "model.onnx"])
def test_a_file_of_something_else(refused, tmp_path, name):
    (tmp_path / name).write_bytes(draw_photo(0, (0,)))
    assert str(tmp_path / name) in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["gone.keras", "gone.tflite", "gone"])
def test_a_file_that_is_not_there(refused, tmp_path, name):
    assert str(tmp_path / name) in refused(tmp_path / name)


def litert_of(shape, outputs):
    images = keras.Input(shape)
    x = keras.layers.Flatten()(images)
    return to_litert(keras.Model(images, outputs(x)))


@pytest.mark.parametrize(
    ("shape", "outputs", "words"),
    [
        ((8, 8, 1), keras.layers.Dense(3), "takes input of shape [1, 8, 8, 1]"),
        ((12,), keras.layers.Dense(3), "takes input of shape [1, 12]"),
        ((8, 8, 3), keras.layers.Reshape([8, 24]), "gives output of shape [1, 8, 24]"),
        ((8, 8, 3), keras.layers.Dense(9), "9 outputs"),
    ],
    ids=["grey", "vector", "map", "other classes"],
)
def test_a_litert_file_with_other_shapes(refused, tmp_path, shape, outputs, words):
    (tmp_path / "model.tflite").write_bytes(litert_of(shape, outputs))
    assert words in refused(tmp_path / "model.tflite")


def grown(path: pathlib.Path, factor: int) -> pathlib.Path:
    """A LiteRT file that makes images larger, by this factor each way."""
    images = keras.Input((RESOLUTION, RESOLUTION, 3))
    x = keras.layers.UpSampling2D(factor)(images)
    path.write_bytes(to_litert(keras.Model(images, keras.layers.GlobalMaxPooling2D()(x))))
    return path


def test_a_litert_file_that_asks_for_all_memory(refused, tmp_path):
    assert "cannot be loaded" in refused(grown(tmp_path / "model.tflite", 1200))  # 18 GB


def test_a_litert_file_gets_several_images_only_if_memory_lets_it(tmp_path):
    path = grown(tmp_path / "model.tflite", 128)  # 0.2 GB an image
    for num_bytes, most in ((8 << 30, b"8"), (3 << 29, b"1")):
        command = [sys.executable, "-I", litert_probe.__file__, path, "8", str(num_bytes)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
        assert done.stdout.split()[-1] == most


@pytest.mark.parametrize("error", [None, RuntimeError, ValueError])
def test_a_litert_file_is_tried_as_it_is_run_later(monkeypatch, capsys, error):
    """For one image and for several, which it may decline."""
    calls = []

    class Interpreter:
        def __init__(self, model_path, num_threads):
            calls.append(model_path)

        def get_input_details(self):
            return [{"index": 7, "shape": np.array([5, 32, 32, 3])}]

        def resize_tensor_input(self, index, shape):
            calls.append((index, shape))
            self.batch = shape[0]

        def allocate_tensors(self):
            calls.append("allocate")
            if error and self.batch == 8:
                raise error

        def invoke(self):
            calls.append("invoke")

    module = types.SimpleNamespace(Interpreter=Interpreter)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    assert litert_probe.probe("file", 8) == 0
    assert capsys.readouterr().out == ("1\n" if error else "8\n")
    once = ["file", (7, [1, 32, 32, 3]), "allocate", "invoke"]
    again = ["file", (7, [8, 32, 32, 3]), "allocate", "invoke"]
    assert calls == once + again[: 3 if error else 4]


def rewritten(source: pathlib.Path, target: pathlib.Path, change) -> pathlib.Path:
    """A `.keras` file whose members `change` has changed; it takes a dictionary of bytes."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


@pytest.mark.parametrize("member", ["../escaped", "/tmp/escaped", "a/../../escaped", "C:\\escaped"])
def test_a_keras_file_that_would_unpack_elsewhere(good, refused, tmp_path, member):
    path = rewritten(
        good / "model.keras", tmp_path / "bad.keras", lambda all_: all_.update({member: b"x"})
    )
    assert "would be unpacked elsewhere" in refused(path)


def test_a_keras_file_with_a_lambda_layer(refused, tmp_path):
    escaped = tmp_path / "escaped"
    images = keras.Input((RESOLUTION, RESOLUTION, 3))
    code = eval(f"lambda x: (open({str(escaped)!r}, 'w'), x)[1]")
    x = keras.layers.Lambda(code)(images)
    escaped.unlink()
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "bad.keras")
    assert "holds keras.layers.Lambda, which may run code" in refused(tmp_path / "bad.keras")
    assert not escaped.exists()


def replace_in_config(old: str, new: str):
    def change(members):
        text = members["config.json"].decode()
        assert old in text
        members["config.json"] = text.replace(old, new).encode()

    return change


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('"module": "os", "class_name": "system"', "holds os.system"),
        ('"module": "builtins", "class_name": "function"', "holds builtins.function"),
        ('"module": "keras.layers", "class_name": "TFSMLayer"', "holds keras.layers.TFSMLayer"),
        ('"module": "keras.config", "class_name": "x"', "holds keras.config.x"),
    ],
)
def test_a_keras_file_whose_config_names_other_code(good, refused, tmp_path, new, words):
    old = '"module": "keras.layers", "class_name": "GlobalAveragePooling2D"'
    path = rewritten(good / "model.keras", tmp_path / "bad.keras", replace_in_config(old, new))
    assert words in refused(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda all_: all_.pop("config.json"), "lacks config.json"),
        (lambda all_: all_.update({"config.json": b"{"}), "its config.json is not JSON"),
        (lambda all_: all_.update({"config.json": b"[" * 200_000}), "bad.keras"),
        (lambda all_: all_.update({"model.weights.h5": b"no weights"}), "cannot be loaded"),
        (replace_in_config('"units": 3', '"units": 5'), "cannot be loaded"),
    ],
    ids=["no config", "config cut", "nested", "weights", "shapes"],
)
def test_a_keras_file_that_is_not_whole(good, refused, tmp_path, change, words):
    path = rewritten(good / "model.keras", tmp_path / "bad.keras", change)
    assert words in refused(path)


@pytest.mark.parametrize("name", ["model.keras", "model.tflite", "saved_model"])
def test_flags_that_do_not_go_with_a_file(good, refused, name):
    assert "--resolution=64, but" in refused(good / name, code=2, resolution=64)
    assert "--width_multiplier=0.5, but" in refused(good / name, code=2, width_multiplier=0.5)


def test_class_names_with_markup_do_not_act(command, tmp_path):
    """They are written to the JSON as they are, and shown without anything a terminal obeys."""
    names = ["<script>alert(1)</script>", "[red]x[/red]", "\x1b[31mz"]
    for index, name in enumerate(names):
        folder = tmp_path / "photos" / name.replace("/", "∕")
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{index}_{number}.JPEG").write_bytes(draw_photo(index, (number,)))
    data, output = tmp_path / "data", tmp_path / "evaluation.json"
    code = start("build", source=tmp_path / "photos", output_dir=data, split="validation")
    assert code == 0
    colour_model(np.zeros([3, 3], np.float32)).save(tmp_path / "model.keras")
    outcome = command(
        "evaluate", checkpoint_path=tmp_path / "model.keras", data_dir=data, output=output
    )
    assert outcome.code == 0, outcome.err
    value = json.loads(output.read_text())
    assert sorted(value["classes"]) == sorted(name.replace("/", "∕") for name in names)
    assert "\x1b" not in outcome.out
    shown = {pair["label"] for pair in value["confusion_pairs"]}
    assert len(shown) == 2
    for name in shown:
        assert name.replace("\x1b", "?")[:20] in outcome.out


def copy_of(path: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    import shutil

    target = directory / path.name
    (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    return target
