"""How much memory reading takes, said before it is taken."""

from __future__ import annotations

from training.order import STRETCH
from training.words import bytes_in_words

_ON_THE_WAY = 2 * STRETCH  # records that have left their streams: one stretch is read, one decoded


def buffer_bytes(
    num_streams: int,
    shuffle_window: int,
    mean_record_bytes: float,
    batch_size: int,
    size: tuple[int, int],
    prefetched: int = 2,
) -> tuple[int, int]:
    """Bytes of the records that are held, and of the batches that wait for the device.

    Args:
        num_streams: streams that are read at once, each of which holds one window.
        shuffle_window: records of a window.
        mean_record_bytes: of one record.
        batch_size: examples of a batch.
        size: height and width of an image in pixels; it has 3 bytes a pixel.
        prefetched: batches that are made ahead.
    """
    records = round((num_streams * shuffle_window + _ON_THE_WAY) * mean_record_bytes)
    return records, prefetched * batch_size * size[0] * size[1] * 3


def memory_note(
    num_streams: int,
    shuffle_window: int,
    mean_record_bytes: float,
    batch_size: int,
    size: tuple[int, int],
    prefetched: int = 2,
) -> str:
    """A sentence for the log; arguments as for `buffer_bytes`."""
    records, batches = buffer_bytes(
        num_streams, shuffle_window, mean_record_bytes, batch_size, size, prefetched
    )
    of_records = f"{num_streams} streams x {shuffle_window} and {_ON_THE_WAY} records of"
    of_batches = f"{prefetched} batches x {batch_size} images of {size[0]} x {size[1]}"
    return (
        f"buffers take {bytes_in_words(records + batches)}:"
        f" {of_records} {bytes_in_words(mean_record_bytes)} = {bytes_in_words(records)},"
        f" and {of_batches} = {bytes_in_words(batches)}"
    )
