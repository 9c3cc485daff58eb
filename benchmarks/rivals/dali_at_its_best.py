"""DALI's CPU pipeline at its best: uint8 out, fast inverse DCT, plain bilinear, longer queues."""

from __future__ import annotations

from nvidia.dali import fn, pipeline_def, types

from benchmarks.rivals.dali import cropped, run_forever
from benchmarks.rivals.serve import BATCH, SIZE, THREADS, serve


@pipeline_def(batch_size=BATCH, num_threads=THREADS, device_id=None, seed=1, prefetch_queue_depth=4)
def _at_its_best(photos):
    images, labels = cropped(photos, use_fast_idct=True)
    images = fn.resize(
        images,
        resize_x=SIZE,
        resize_y=SIZE,
        interp_type=types.INTERP_LINEAR,
        antialias=False,
        dtype=types.UINT8,
    )
    return fn.flip(images, horizontal=fn.random.coin_flip(probability=0.5)), labels


if __name__ == "__main__":
    serve(lambda photos: run_forever(_at_its_best(photos)), __doc__)
