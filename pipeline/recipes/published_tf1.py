"""ImageNet recipes of the MobileNets' authors: short ones to try, and those of full length.

A batch is the global one here. slim counts batches and learning rates per clone and averages the
clones' gradients, so that N clones of batch B at a rate of R x N each are one batch of N x B at the
rate R x N.
"""

from __future__ import annotations

import dataclasses

from pipeline.recipes.experiment import NOT_KNOWN, Experiment, hours_at, make_recipe, on_imagenet
from training.config import ModelFlags, OptimizationFlags, Recipe

# Images a second of timm on one RTX 3090 with mixed precision (its results/benchmark-train-amp-
# nhwc-pt112-cu113-rtx3090.csv): the only published rates of training these models.
STEP_RATES = {"mobilenet_v2": 2_313, "mobilenet_v3_large": 2_732, "mobilenet_v3_small": 8_035}
_ONE_3090 = "one RTX 3090, mixed precision"
_DERIVED_TIME = "time derived from timm's step rate, with an input that keeps up"
_SCRIPTS = (
    "settings of the scripts in tensorflow/models research/mobilenet, which give no figures;"
    " RMSProp's epsilon is slim's"
)


def _of(recipe: Recipe, model_name: str) -> Recipe:
    """The same settings for another model."""
    return dataclasses.replace(
        recipe, model=dataclasses.replace(recipe.model, model_name=model_name)
    )


def _short(name: str, target: str, recipe: Recipe, source: str = _SCRIPTS) -> Experiment:
    """A recipe of demonstration length: it shows that all works, and reaches no record."""
    rate = STEP_RATES.get(recipe.model.model_name)
    experiment = on_imagenet(
        name,
        recipe,
        hardware=_ONE_3090 if rate else NOT_KNOWN,
        time=hours_at(rate, recipe.optimization.epochs) if rate else NOT_KNOWN,
        accuracy="not published, not measured",
        source=f"{source}; {_DERIVED_TIME}" if rate else source,
    )
    return dataclasses.replace(experiment, command=f"make {target} DATA=IMAGENET_SHARDS")


# The scripts hand Keras an L2 of 2e-5 for V1 and V2; Keras does not halve the sum of squares, so
# that this is slim's 4e-5.
_V1_SHORT = make_recipe(
    ModelFlags(
        model_name="mobilenet_v1",
        dropout_rate=0.2,
        batch_norm_decay=0.9997,
        std_weight_decay=4e-5,
        truncated_normal_stddev=0.09,
    ),
    OptimizationFlags(
        batch_size=64,
        epochs=30,
        lr=0.045,
        lr_decay_rate=0.94,
        lr_decay_epochs=2.5,
        label_smoothing=0.1,
    ),
)
_V2_SHORT = make_recipe(
    dataclasses.replace(_V1_SHORT.model, model_name="mobilenet_v2"),
    dataclasses.replace(
        _V1_SHORT.optimization, batch_size=96, lr_decay_rate=0.98, lr_decay_epochs=1.0
    ),
)
# Here they hand over 1e-5, which is twice the weight decay of slim's own recipe.
_V3_SHORT = make_recipe(
    ModelFlags(
        model_name="mobilenet_v3_large",
        dropout_rate=0.2,
        batch_norm_decay=0.997,
        std_weight_decay=2e-5,
        truncated_normal_stddev=0.008,
    ),
    OptimizationFlags(
        batch_size=192,
        epochs=30,
        op_epsilon=0.002,
        lr=0.02,
        lr_decay_rate=0.99,
        lr_decay_epochs=3.0,
        label_smoothing=0.1,
        ma_decay_rate=0.9999,
    ),
)

_V1_SLIM = make_recipe(
    ModelFlags(model_name="mobilenet_v1"),
    OptimizationFlags(batch_size=64, epochs=200, lr=0.045, lr_decay_rate=0.94, lr_decay_epochs=2.5),
)
# 8 GPUs of 96; 700,000 steps are 420 epochs.
_V2_SLIM = make_recipe(
    ModelFlags(model_name="mobilenet_v2"),
    OptimizationFlags(
        batch_size=768,
        epochs=420,
        lr=0.36,
        lr_decay_rate=0.98,
        lr_decay_epochs=2.5,
        label_smoothing=0.1,
    ),
)
# 8 chips of 192; the released checkpoint is of step 540,000, which are 647 epochs.
_V3_SLIM = make_recipe(
    ModelFlags(model_name="mobilenet_v3_large"),
    OptimizationFlags(
        batch_size=1536,
        epochs=647,
        op_epsilon=0.002,
        lr=0.16,
        lr_decay_rate=0.99,
        lr_decay_epochs=3.0,
        warmup_epochs=5.0,
        label_smoothing=0.1,
    ),
)
_V3_PAPER = make_recipe(
    ModelFlags(model_name="mobilenet_v3_large", batch_norm_decay=0.99),
    OptimizationFlags(
        batch_size=4096,
        epochs=647,
        op_epsilon=0.002,
        lr=0.1,
        lr_decay_rate=0.99,
        lr_decay_epochs=3.0,
    ),
)
_PAPER_SOURCE = (
    "accuracy and settings: arXiv:1905.02244; it tells neither length nor epsilon: both are those"
    " of slim's recipe for V3-Large"
)


EXPERIMENTS = (
    _short("mobilenet_v1", "train-mbnv1", _V1_SHORT),
    _short("mobilenet_v2", "train-mbnv2", _V2_SHORT),
    _short("mobilenet_v3_large", "train-mbnv3", _V3_SHORT),
    on_imagenet(
        "mobilenet_v1_slim",
        _V1_SLIM,
        hardware=NOT_KNOWN,
        time=NOT_KNOWN,
        accuracy=".709",
        source="accuracy published with slim's checkpoint; rate and decay: slim's README and"
        " arXiv:1704.04861; the length is not published: after 200 epochs the rate has fallen"
        " to 1/140",
    ),
    on_imagenet(
        "mobilenet_v2_slim",
        _V2_SLIM,
        hardware=_ONE_3090,
        time=hours_at(STEP_RATES["mobilenet_v2"], _V2_SLIM.optimization.epochs),
        accuracy=".720",
        source=f"accuracy and settings: slim's README, 8 GPUs, 700,000 steps; {_DERIVED_TIME}",
    ),
    on_imagenet(
        "mobilenet_v3_large_slim",
        _V3_SLIM,
        hardware=_ONE_3090,
        time=hours_at(STEP_RATES["mobilenet_v3_large"], _V3_SLIM.optimization.epochs),
        accuracy=".746 (8 GPUs), .752 (2x2 TPU)",
        source="accuracy and settings: slim's README; the length is derived from the released"
        f" checkpoint's step; {_DERIVED_TIME}",
    ),
    on_imagenet(
        "mobilenet_v3_large_paper",
        _V3_PAPER,
        hardware="4x4 TPU",
        time=NOT_KNOWN,
        accuracy=".752",
        source=_PAPER_SOURCE,
    ),
    on_imagenet(
        "mobilenet_v3_small_paper",
        _of(_V3_PAPER, "mobilenet_v3_small"),
        hardware="4x4 TPU",
        time=NOT_KNOWN,
        accuracy=".674",
        source=_PAPER_SOURCE,
    ),
    _short(
        "mobilenet_v3_small",
        "train-recipe RECIPE=mobilenet_v3_small",
        _of(_V3_SHORT, "mobilenet_v3_small"),
        "settings of mobilenet_v3_large for V3-Small",
    ),
    on_imagenet(
        "mobilenet_edgetpu",
        _of(_V3_SLIM, "mobilenet_edgetpu"),
        hardware=NOT_KNOWN,
        time=NOT_KNOWN,
        accuracy=".756 is the released 8-bit model's",
        source="no recipe is published: these are slim's settings for V3-Large, which may reach"
        " another figure",
    ),
)
