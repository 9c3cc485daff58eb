"""Images whose bytes are the same: within a split, and between the splits of a data set."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.files import write_json_lines
from preprocessing import layout
from preprocessing.records import load_table

if TYPE_CHECKING:
    import pyarrow as pa

# Half of a SHA-256 tells any number of images apart, and is half the memory.
_HEX_DIGITS = 32


def as_hashes(sha256: Sequence[str]) -> np.ndarray:
    """Hexadecimal SHA-256s as an array of fixed width, which numpy sorts."""
    return np.array(sha256, dtype=f"S{_HEX_DIGITS}")


def groups_of_equal(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the positions of each hash that stands more than once: ascending, the earliest first.

    Args:
        hashes: one for each image.
    """
    order = np.argsort(hashes, kind="stable")
    new = np.ones(len(order) + 1, bool)
    new[1:-1] = hashes[order][1:] != hashes[order][:-1]
    starts = np.flatnonzero(new)
    sizes = np.diff(starts)
    groups = [order[starts[n] : starts[n] + sizes[n]] for n in np.flatnonzero(sizes > 1)]
    return iter(sorted(groups, key=lambda positions: positions[0]))


def pairs_of_equal(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields positions `(in ours, in theirs)` of equal hashes; in theirs it is the first one."""
    order = np.argsort(theirs, kind="stable")
    places = np.searchsorted(theirs[order], ours)
    inside = np.flatnonzero(places < len(theirs))
    for position in inside[theirs[order][places[inside]] == ours[inside]]:
        yield int(position), int(order[places[position]])


def list_duplicates(data_dir: str, split: str) -> int:
    """Writes a line for each content that several images have; returns how many are spare."""
    stored, hashes = _stored_hashes(data_dir, split)
    spare, lines = 0, []
    for positions in groups_of_equal(hashes):
        group = stored.take(positions)
        lines.append(
            {"sha256": group["sha256"][0].as_py(), "keys": sorted(group["key"].to_pylist())}
        )
        spare += len(positions) - 1
    write_json_lines(layout.split_path(data_dir, split, layout.DUPLICATES), lines)
    return spare


def list_shared_images(data_dir: str, split: str, others: list[str]) -> None:
    """Writes a line for each image that another finished split holds as well, and warns of them."""
    ours, our_hashes = _stored_hashes(data_dir, split)
    path = layout.split_path(data_dir, split, layout.ALSO_IN)
    lines = []
    for other in others:
        theirs, their_hashes = _stored_hashes(data_dir, other)
        pairs = list(pairs_of_equal(our_hashes, their_hashes))
        for mine, their in pairs:
            lines.append(
                {
                    "sha256": ours["sha256"][mine].as_py(),
                    "key": ours["key"][mine].as_py(),
                    "split": other,
                    "key_there": theirs["key"][their].as_py(),
                }
            )
        if pairs:
            logging.warning(f"{len(pairs)} images of {split!r} are also in {other!r}: see {path}")
    write_json_lines(path, lines)


def _stored_hashes(data_dir: str, split: str) -> tuple[pa.Table, np.ndarray]:
    """Keys and hashes of the stored images of a split: as a table, and the hashes as an array."""
    import pyarrow.compute as pc

    table = load_table(data_dir, split, ["key", "sha256", "offset"])
    stored = table.filter(pc.greater_equal(table["offset"], 0))
    return stored, as_hashes(stored["sha256"].to_pylist())
