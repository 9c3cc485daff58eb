"""DALI's CPU pipeline as its ImageNet examples have it: float32 planes, normalised."""

from __future__ import annotations

from collections.abc import Iterator

from nvidia.dali import fn, pipeline_def, types

from benchmarks.rivals.serve import BATCH, MAX_ASPECT, MIN_AREA, SIZE, THREADS, serve

_MEAN = [0.485 * 255, 0.456 * 255, 0.406 * 255]
_STD = [0.229 * 255, 0.224 * 255, 0.225 * 255]


def cropped(photos: str, **decoding):
    """Random crops of the photos, decoded, and their labels."""
    jpegs, labels = fn.readers.file(file_root=photos, random_shuffle=True, name="Reader")
    images = fn.decoders.image_random_crop(
        jpegs,
        device="cpu",
        output_type=types.RGB,
        random_aspect_ratio=[0.75, MAX_ASPECT],
        random_area=[MIN_AREA, 1.0],
        num_attempts=100,
        **decoding,
    )
    return images, labels


def run_forever(pipeline) -> Iterator[object]:
    """Batches of a pipeline's outputs."""
    pipeline.build()
    while True:
        yield pipeline.run()


@pipeline_def(batch_size=BATCH, num_threads=THREADS, device_id=None, seed=1)
def _as_the_examples(photos):
    images, labels = cropped(photos)
    images = fn.resize(images, resize_x=SIZE, resize_y=SIZE, interp_type=types.INTERP_TRIANGULAR)
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=_MEAN,
        std=_STD,
        mirror=fn.random.coin_flip(probability=0.5),
    )
    return images, labels


if __name__ == "__main__":
    serve(lambda photos: run_forever(_as_the_examples(photos)), __doc__)
