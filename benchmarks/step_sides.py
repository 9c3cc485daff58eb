"""One side of `benchmarks.step_speed`, in a process of its own: one training step a line.

It imports nothing of the benchmark, since the rivals run in another environment. For each line of
standard input it makes a step and answers with its seconds.

    python benchmarks/step_sides.py SIDE MODEL RESOLUTION BATCH_SIZE
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

NUM_CLASSES = 1000
LEARNING_RATE, MOMENTUM = 0.01, 0.9
WARM_UP_STEPS = 2


def ours(model_name: str, resolution: int, batch_size: int) -> Callable[[], float]:
    """The project's own model and optimizer, as its commands start TensorFlow."""
    from training import runtime

    runtime.start()
    import tensorflow as tf

    from training.config import OptimizationFlags
    from training.models import build_model, make_config
    from training.optimizers import Optimizer

    config = make_config(
        model_name, num_classes=NUM_CLASSES, input_shape=(resolution, resolution, 3)
    )
    model = build_model(config.replace(classifier_activation=None))
    trainable = {variable.path: variable for variable in model.trainable_variables}
    weights = [variable.value for variable in trainable.values()]
    options = OptimizationFlags(optimizer_name="momentum", op_momentum=MOMENTUM)
    optimizer = Optimizer(options, trainable, decayed=set(), weight_decay=0.0)

    def update(gradients):
        named = dict(zip(trainable, gradients, strict=True))
        optimizer.update(named, LEARNING_RATE, tf.constant(0, tf.int64))

    return _tensorflow_step(model, weights, update, resolution, batch_size)


def keras_applications(model_name: str, resolution: int, batch_size: int) -> Callable[[], float]:
    """keras.applications with Keras' optimizer, nothing set."""
    import keras

    build = {
        "mobilenet_v1": keras.applications.MobileNet,
        "mobilenet_v2": keras.applications.MobileNetV2,
        "mobilenet_v3_large": keras.applications.MobileNetV3Large,
        "mobilenet_v3_small": keras.applications.MobileNetV3Small,
    }[model_name]
    options = {"include_preprocessing": False} if "v3" in model_name else {}
    model = build(
        input_shape=(resolution, resolution, 3),
        weights=None,
        classes=NUM_CLASSES,
        classifier_activation=None,
        **options,
    )
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    optimizer.build(model.trainable_variables)
    weights = [variable.value for variable in model.trainable_variables]

    def update(gradients):
        optimizer.apply(gradients, model.trainable_variables)

    return _tensorflow_step(model, weights, update, resolution, batch_size)


def _tensorflow_step(model, weights, update, resolution, batch_size) -> Callable[[], float]:
    import tensorflow as tf

    images = tf.random.normal((batch_size, resolution, resolution, 3))
    labels = tf.random.uniform((batch_size,), maxval=NUM_CLASSES, dtype=tf.int32)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        update(tape.gradient(loss, weights))
        return loss

    return lambda: float(step(images, labels))


def timm(model_name: str, resolution: int, batch_size: int) -> Callable[[], float]:
    """PyTorch and timm, channels last, in two threads."""
    import torch
    from timm import create_model

    torch.set_num_threads(2)
    name = model_name.replace("mobilenet_", "mobilenet") + "_100"
    layout = torch.channels_last
    model = create_model(name, num_classes=NUM_CLASSES).to(memory_format=layout).train()
    images = torch.randn(batch_size, 3, resolution, resolution).to(memory_format=layout)
    labels = torch.randint(0, NUM_CLASSES, (batch_size,))
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


SIDES = {"ours": ours, "keras": keras_applications, "timm": timm}


def serve(step: Callable[[], float]) -> None:
    """Makes a step for each line that comes in."""
    for _ in range(WARM_UP_STEPS):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    side, model_name, resolution, batch_size = sys.argv[1:]
    serve(SIDES[side](model_name, int(resolution), int(batch_size)))
