"""ImageNet recipes of timm and torchvision, in this project's flags.

What both do otherwise than this project, for all of them: weights of depthwise convolutions decay
as well, pixels are scaled by ImageNet's mean and spread instead of to [-1, 1], and crops have at
least .08 of the photo's area. `source` names what else is different.
"""

from __future__ import annotations

import dataclasses

from pipeline.recipes.experiment import NOT_KNOWN, hours_at, make_recipe, on_imagenet
from pipeline.recipes.published_tf1 import STEP_RATES
from training.config import AugmentationFlags, ModelFlags, OptimizationFlags

_PHOTO_CROP = AugmentationFlags(min_crop_area=0.08, eval_preprocessing="bicubic")
_EIGHT_V100 = "8 V100"

# PyTorch adds epsilon outside the root and torchvision sets .0316 there: about .001 inside.
_RMSPROP_TORCHVISION = OptimizationFlags(
    batch_size=1024,
    epochs=600,
    op_epsilon=0.001,
    lr=0.064,
    lr_decay_rate=0.973,
    lr_decay_epochs=2.0,
    ma_decay_rate=0.9999,
)
_V3_TORCHVISION = make_recipe(
    ModelFlags(
        model_name="mobilenet_v3_large",
        dropout_rate=0.2,
        batch_norm_decay=0.99,
        std_weight_decay=1e-5,
    ),
    _RMSPROP_TORCHVISION,
    augmentation=dataclasses.replace(_PHOTO_CROP, augmentation="autoaugment", random_erasing=0.2),
)
_V3_TORCHVISION_SOURCE = (
    "accuracy and settings: torchvision's references/classification; it averages the last"
    " checkpoints instead of all steps, and its RMSProp starts at 0"
)
_V3_TIMM = make_recipe(
    ModelFlags(
        model_name="mobilenet_v3_large",
        dropout_rate=0.2,
        batch_norm_decay=0.9,
        std_weight_decay=1e-5,
    ),
    OptimizationFlags(
        batch_size=1024,
        epochs=600,
        op_epsilon=0.001,
        lr=0.064,
        lr_decay_rate=0.973,
        lr_decay_epochs=2.4,
        warmup_epochs=3.0,
        label_smoothing=0.1,
        ma_decay_rate=0.9999,
    ),
    augmentation=dataclasses.replace(_PHOTO_CROP, augmentation="randaugment", random_erasing=0.2),
)
_V2_TORCHVISION = make_recipe(
    ModelFlags(
        model_name="mobilenet_v2", dropout_rate=0.2, batch_norm_decay=0.9, std_weight_decay=4e-5
    ),
    OptimizationFlags(
        batch_size=256,
        epochs=300,
        optimizer_name="momentum",
        lr=0.045,
        lr_decay_rate=0.98,
        lr_decay_epochs=1.0,
        ma_decay_rate=0.0,
    ),
    augmentation=_PHOTO_CROP,
)
_V2_TORCHVISION_600 = make_recipe(
    dataclasses.replace(_V2_TORCHVISION.model, std_weight_decay=2e-5),
    OptimizationFlags(
        batch_size=1024,
        epochs=600,
        optimizer_name="momentum",
        learning_scheduler_name="cosine",
        lr=0.5,
        warmup_epochs=5.0,
        label_smoothing=0.1,
        # torchvision averages every 32nd step; .99998 there comes to this at every step.
        ma_decay_rate=0.99997,
    ),
    augmentation=dataclasses.replace(
        _PHOTO_CROP,
        augmentation="randaugment",
        randaugment_layers=1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        random_erasing=0.1,
    ),
)

EXPERIMENTS = (
    on_imagenet(
        "mobilenet_v2_torchvision",
        _V2_TORCHVISION,
        hardware=_EIGHT_V100,
        time="33 h",
        accuracy=".719",
        source="accuracy and settings: torchvision's references/classification; time derived from"
        " 6:32 minutes an epoch (pytorch/vision#818); it does not change brightness and saturation",
    ),
    on_imagenet(
        "mobilenet_v2_torchvision_600",
        _V2_TORCHVISION_600,
        hardware="8 GPUs",
        time=NOT_KNOWN,
        accuracy=".722",
        source="accuracy and settings: pytorch/vision#5560; it trains at 176 pixels and tests at"
        " 224, draws each image four times in a row, and uses TrivialAugment, for which"
        " RandAugment of one transform stands here",
    ),
    on_imagenet(
        "mobilenet_v3_large_torchvision",
        _V3_TORCHVISION,
        hardware=_EIGHT_V100,
        time=NOT_KNOWN,
        accuracy=".740",
        source=_V3_TORCHVISION_SOURCE,
    ),
    on_imagenet(
        "mobilenet_v3_small_torchvision",
        dataclasses.replace(
            _V3_TORCHVISION,
            model=dataclasses.replace(_V3_TORCHVISION.model, model_name="mobilenet_v3_small"),
        ),
        hardware=_EIGHT_V100,
        time=NOT_KNOWN,
        accuracy=".677",
        source=_V3_TORCHVISION_SOURCE,
    ),
    on_imagenet(
        "mobilenet_v3_large_timm",
        _V3_TIMM,
        hardware="one RTX 3090, mixed precision (published: 2 GPUs)",
        time=hours_at(STEP_RATES["mobilenet_v3_large"], _V3_TIMM.optimization.epochs),
        accuracy=".758",
        source="accuracy and settings: timm's training examples; time derived from its step rate;"
        " it adds noise to the learning rate, and varies the strength of RandAugment",
    ),
)
