"""What a test does otherwise than a newcomer would, and why: all else is run as written.

A rule is for the commands of a page (a pattern of file names) that its expression matches from the
first word to the last, with line ends, comments and quotation marks taken away. A test fails where
a rule matches nothing, and where two match one command.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re

from .pages import Command


@dataclasses.dataclass(frozen=True)
class Rule:
    """Commands for which something holds.

    Attributes:
        page: pattern of the files they stand in.
        command: expression that matches the whole command.
        reason: why they are not run as they are.
    """

    page: str
    command: str
    reason: str

    def is_for(self, command: Command) -> bool:
        return fnmatch.fnmatch(command.page, self.page) and bool(
            re.fullmatch(self.command, command.plain)
        )


@dataclasses.dataclass(frozen=True)
class NotHere(Rule):
    """Not run. If it is a command of this project, its module, target and flags must be right.

    Attributes:
        tested_by: the test that runs it elsewhere, where one does.
    """

    tested_by: str = ""


@dataclasses.dataclass(frozen=True)
class Changed(Rule):
    """Run with a little added, so that it ends sooner or asks for less.

    Attributes:
        added: words put behind it; of a flag given twice the last counts.
        first: flags put behind the name of the command.
    """

    added: str = ""
    first: str = ""


@dataclasses.dataclass(frozen=True)
class Endless(Rule):
    """Run until it says that it is ready, and ended by Ctrl-C.

    Attributes:
        says: what it says.
        added: words added.
    """

    says: str = ""
    added: str = ""


@dataclasses.dataclass(frozen=True)
class Reference(Rule):
    """Run where there are real weights and photos.

    Attributes:
        files: where the command looks for them, and what they are of the reference data.
        shards: where it looks for shards of the reference photos; empty if it does not.
    """

    files: tuple[tuple[str, str], ...] = ()
    shards: str = ""


# Where a page says how to set up, `python` is not found until that is done.
STARTS_FROM_NOTHING = (
    "README.md",
    "docs/dataflow.md",
    "docs/gpu_machine.md",
    "docs/kubernetes.md",
    "docs/laptop.md",
    "docs/tpu.md",
    "docs/vertex.md",
)

# Pages whose examples go on with what another page's commands have left.
GOES_ON_FROM = {
    "docs/evaluating.md": "README.md",
    "docs/exporting.md": "docs/laptop.md",
    "docs/publishing.md": "README.md",
    "docs/training.md": "README.md",
}

# What a page's reader brings along, or has a word for, and the file that stands for it: of another
# page's directory, or of its own where no page is named.
GIVEN = {
    "docs/evaluating.md": {"MODEL": ("", "runs/mine/model")},
    "docs/publishing.md": {"PLACE": ("", "published/flowers")},
    "docs/vertex.md": {"photos": ("docs/laptop.md", "runs/mine/photos")},
}

_SMALL = "--width_multiplier=0.25 --resolution=96 --batch_size=32"
_LOOK = "--seconds=0.5 --notry_settings"  # at each thing, and only as things are
_V1 = "mobilenet_v1_0.25_128"

# What needs more than this machine, by the program that would ask for it.
_ELSEWHERE = (
    NotHere("*", r"gcloud .*", "needs an account of Google Cloud"),
    NotHere("*", r"docker .*", "needs Docker; tests/infra runs what is in the images"),
    NotHere("*", r"(kind|kubectl) .*", "needs a cluster"),
    NotHere("*", r"kfp run .*", "needs Kubeflow"),
    NotHere("*", r"terraform .*", "needs an account of Google Cloud; tests/infra checks the files"),
    NotHere("*", r"nvidia-smi", "needs a GPU"),
    NotHere("*", r"(uv )?pip (un)?install .*", "would change the environment of the tests",
            "tests/installs"),
    NotHere("docs/data_sets.md", r"python -m preprocessing\.build_dataset .*DataflowRunner.*",
            "needs Dataflow", "tests/dataflow"),
    NotHere("infra/dataflow/README.md",
            r"python -m preprocessing\.build_dataset .*DataflowRunner.*",
            "needs Dataflow", "tests/dataflow"),
    NotHere("infra/flink/README.md", r"python .*", "needs Java and Maven", "tests/flink"),
)  # fmt: skip

_README = (
    NotHere("*", r"make run( INIT=scratch)?", "takes minutes", "tests/long/test_fresh_clone.py"),
    NotHere("README.md", r"make test", "would start itself", ".ci/run"),
    NotHere("README.md", r"(import tensorflow|keras_model|checkpoint =).*",
            "goes on with names of the text", "tests/test_readme.py"),
    Reference("README.md", r"python -m loaders\.convert --checkpoint_path=\w.*\.ckpt .*",
              "released weights are no part of this repository",
              files=((f"{_V1}.ckpt", f"tf1_checkpoints/{_V1}/{_V1}.ckpt"),)),
    Reference("README.md", r"python -m loaders\.convert --to=tf1 .*",
              "goes on with these", files=((f"{_V1}.ckpt", f"tf1_checkpoints/{_V1}/{_V1}.ckpt"),)),
    Reference("README.md", r"python -m pipeline\.evaluate --checkpoint_path=\w+.*\.ckpt .*",
              "nor are ImageNet's photos", shards="imagenet",
              files=((f"{_V1}.ckpt", f"tf1_checkpoints/{_V1}/{_V1}.ckpt"),)),
    Changed("README.md", r"python -m training\.train --model_name=.*", "takes minutes",
            added=f"{_SMALL} --epochs=5 --lr=0.001 --op_epsilon=0.0001 --min_crop_area=0.3"
            " --batch_norm_decay=0.9 --ma_decay_rate=0.9"),
    Changed("README.md", r"python -m training\.doctor .*", "takes minutes",
            added=f"{_SMALL} {_LOOK}"),
    Changed("README.md", r"python -m training\.launch .*", "takes an hour",
            added=f"{_SMALL} --epochs=1"),
    Endless("*", r"python -m pipeline\.serve .*", "waits for photos",
            says="Ctrl-C ends it", added="--port=0"),
)  # fmt: skip

_DOCS = (
    NotHere("docs/adding_a_model.md", r"# .*", "belongs into files of the source",
            "tests/loaders/test_adding_a_model.py"),
    NotHere("docs/data_sets.md", r"import pyarrow.*", "needs ImageNet",
            "tests/preprocessing/test_docs.py"),
    Changed("docs/training.md", r"python -m training\.train .*", "takes an hour",
            added="--epochs=1 --train_split=train[:256]"),
    NotHere("docs/training.md", r"make train-recipe RECIPE=mobilenet_v2_slim .*",
            "its batch needs a GPU"),
    NotHere("docs/training.md", r"make fine-tune .*", "takes an hour without a GPU",
            "tests/pipeline/test_experiments.py"),
    Changed("docs/training.md", r"python -m training\.launch .*", "takes hours",
            added=f"{_SMALL} --epochs=1 --train_split=train[:256]"),
    Changed("docs/training.md", r"make train-workers .*", "takes an hour",
            added=f"FLAGS='{_SMALL} --epochs=1 --train_split=train[:256]'"),
    Changed("docs/training.md", r"make doctor .*", "takes minutes",
            added=f"FLAGS='--model_name=mobilenet_v2 {_SMALL} {_LOOK}'"),
    NotHere("docs/recipes.md", r"make demo-weights", "takes minutes, and the demo has them"),
    NotHere("docs/recipes.md", r"make run DATASET=imagenette", "needs the network"),
    NotHere("*", r"make run DATASET=/path/to/photos", "any photos", "tests/pipeline/test_run.py"),
    NotHere("docs/recipes.md", r"make fine-tune .*", "any photos",
            "tests/pipeline/test_experiments.py"),
    NotHere("docs/recipes.md", r"make train-\w+ .*DATA=IMAGENET_SHARDS", "needs ImageNet"),
    NotHere("docs/recipes.md", r"python -m pipeline\.run --dataset=IMAGENET .*", "needs ImageNet"),
    NotHere("docs/recipes.md", r"python -m training\.train --data_dir=DATA .*",
            "takes hours or days", "tests/pipeline/test_experiments.py"),
)  # fmt: skip

_NO_BUCKET = "--noask_cloud"

_PLACES = (
    # One GPU machine: ImageNet, and days.
    NotHere("docs/gpu_machine.md", r"python -c import tensorflow; .*", "needs a GPU"),
    NotHere("docs/gpu_machine.md", r"python -m .*runs/imagenet/.*", "needs ImageNet"),
    NotHere("docs/gpu_machine.md", r"python -m pipeline\.run --dataset=IMAGENET .*",
            "needs ImageNet"),
    NotHere("docs/gpu_machine.md", r"make tensorboard MODEL=runs/imagenet/model",
            "shows what was trained on ImageNet"),
    # Vertex AI.
    Changed("docs/vertex.md", r"python -m pipeline\.submit --stage=(evaluate|export|publish) .*",
            "nothing was trained there", first=_NO_BUCKET),
    NotHere("docs/vertex.md", r"(python -m pipeline\.report|tensorboard) .*gs://BUCKET/runs/.*",
            "shows what a job has left"),
    # Dataflow.
    Changed("docs/dataflow.md", r"python -m pipeline\.submit --stage=preprocess .*",
            "the tars are not in the bucket", first=_NO_BUCKET),
    NotHere("docs/dataflow.md", r"python -m preprocessing\.verify .*", "reads what a job has left"),
    NotHere("*", r"infra/dataflow/launch\.sh (spec|template .*)", "needs gcloud",
            "tests/dataflow/test_flex_template.py"),
    # A TPU.
    Changed("docs/tpu.md", r"python -m pipeline\.submit .*", "nothing is in the bucket",
            first=_NO_BUCKET),
    NotHere("docs/tpu.md", r"python -m .* --strategy=tpu .*", "needs a TPU"),
    NotHere("docs/tpu.md", r"export TPU_LIBRARY_PATH=.*", "needs the packages for one"),
    # Kubernetes and Kubeflow.
    NotHere("docs/kubernetes.md", r"infra/kubernetes/apply\.sh .*", "needs a cluster",
            "tests/cloud/test_kubernetes.py"),
    NotHere("infra/kubeflow/README.md", r"from google\.cloud import aiplatform .*",
            "needs an account of Google Cloud", "tests/cloud/test_kubeflow.py"),
    NotHere("infra/kubeflow/README.md", r"python -m pipeline\.manifests .*",
            "needs the extra kubeflow", "tests/cloud/test_kubeflow.py"),
)  # fmt: skip

RULES: tuple[Rule, ...] = (*_ELSEWHERE, *_README, *_DOCS, *_PLACES)


def rule_of(command: Command) -> Rule | None:
    """The rule for a command; None if it is run as written."""
    found = [rule for rule in RULES if rule.is_for(command)]
    if len(found) > 1:
        raise ValueError(f"{command.name}: more than one rule")
    return found[0] if found else None
