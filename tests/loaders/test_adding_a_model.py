"""`docs/adding_a_model.md` does what it says: its code blocks, put into a copy of the source."""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

# Uses the family that the page adds, and nothing that it does not promise.
SCRIPT = """
import sys

import keras
import numpy as np
import tensorflow as tf

from common.command import run_to_exit_code
from loaders import load_mobilenet_shallow
from loaders.convert import ConvertConfig, convert
from loaders.loaders import StoredWeights
from loaders.open import ModelRequest, open_checkpoint
from loaders.tf1_checkpoint import Tf1Checkpoint
from loaders.tf1_writer import tf1_variables, write_tf1_checkpoint
from training.config import ModelFlags
from training.models import build_model, model_names
from training.models.complexity import count_parameters
from training.models.mobilenet import weights_of

work = sys.argv[1]
assert "mobilenet_shallow" in model_names()

# It builds as every other model does, and its arithmetic agrees with its layers.
config = ModelFlags("mobilenet_shallow", width_multiplier=0.5, resolution=64).config(7)
assert config.dropout_rate == 0.1
model = build_model(config)
assert model.output_shape == (None, 7)
weights = weights_of(model)
assert count_parameters(config).total == sum(int(np.prod(v.shape)) for v in weights.values())
assert list(build_model(config.replace(include_top=False)).output) == ["C2", "C3", "C4", "C5"]
build_model(config.replace(quantization_aware=True))

# A TF1 checkpoint of it is recognised, loaded and converted.
rng = np.random.default_rng(0)
raw = {k: np.float32(rng.uniform(0.1, 0.3, v.shape)) for k, v in weights.items()}
variables = tf1_variables("MobilenetShallow", StoredWeights(raw, {}))
assert "MobilenetShallow/expanded_conv_2/squeeze_excite/Conv/weights" in variables
prefix = write_tf1_checkpoint(work, variables, 3)
looks = Tf1Checkpoint(prefix).looks_like()
assert looks == "it looks like mobilenet_shallow at width 0.5 with 7 outputs", looks
loaded = load_mobilenet_shallow(prefix, config)
words = ["convert", f"--checkpoint_path={prefix}", f"--output_dir={work}/tf2", "--resolution=64"]
assert run_to_exit_code(convert, ConvertConfig, argv=words) == 0
converted = open_checkpoint(f"{work}/tf2", ModelRequest()).build()
images = np.float32(rng.uniform(-1, 1, (4, 64, 64, 3)))
assert np.array_equal(loaded(images), converted(images))
for name, variable in weights_of(loaded).items():
    assert np.array_equal(variable, raw[name])

# A step of training changes it.
model = build_model(config)
before = model.get_weights()
with tf.GradientTape() as tape:
    logits = model(images, training=True)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 3], logits))
gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
assert all(gradient is not None for gradient in gradients)
keras.optimizers.SGD(0.1).apply(gradients, model.trainable_variables)
assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
print("all done")
"""


def code_blocks() -> dict[str, str]:
    """The page's code by its first comment: the place it belongs to."""
    text = (ROOT / "docs" / "adding_a_model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```python")
    return dict(blocks)


def put_in(path: pathlib.Path, before: str, code: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, code + before), encoding="utf-8")


def test_a_family_is_added_as_the_page_says(tmp_path):
    blocks = code_blocks()
    source = tmp_path / "source"
    for package in ("common", "loaders", "preprocessing", "training"):
        ignored = shutil.ignore_patterns("__pycache__", "demo")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    tables = source / "training" / "models" / "archs.py"
    tables.write_text(
        f"{tables.read_text(encoding='utf-8')}\n{blocks.pop('training/models/archs.py')}",
        encoding="utf-8",
    )
    configs = source / "training" / "models" / "configs.py"
    put_in(configs, "def _holds(", blocks.pop("training/models/configs.py") + "\n\n")
    put_in(configs, "        MobileNetEdgeTPUConfig,\n    )", blocks.pop("CONFIGS"))
    loaders = source / "loaders" / "loaders.py"
    put_in(
        loaders,
        "WEIGHT_SETS = ",
        "from training.models.configs import MobileNetShallowConfig\n\n",
    )
    loaders.write_text(
        f"{loaders.read_text(encoding='utf-8')}\n\n{blocks.pop('loaders/loaders.py')}",
        encoding="utf-8",
    )
    put_in(
        source / "loaders" / "__init__.py",
        '    "load_mobilenet_edgetpu",\n',
        '    "load_mobilenet_shallow",\n',
    )
    assert not blocks

    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(work)],
        cwd=source,
        env={"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("all done\n")
