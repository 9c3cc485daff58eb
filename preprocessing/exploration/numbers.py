"""Pure numbers of a data set: counts by class, sizes, what became of the files, shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from preprocessing.exploration.rows import Rows, Split
from preprocessing.manifest import Manifest

# What MobileNets and their kin are trained at.
RESOLUTIONS = (96, 128, 160, 192, 224, 256, 320, 384, 512)

_QUANTILES = (("min", 0.0), ("low", 0.05), ("median", 0.5), ("high", 0.95), ("max", 1.0))


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of all splits together.

    Attributes:
        names: as in the class list.
        texts: what each is called in plain words; its name if there are none.
        counts: split to stored pictures of each class.
        positions: split to the position of each of its labels in `names`.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    counts: dict[str, np.ndarray]
    positions: dict[str, np.ndarray]

    @property
    def totals(self) -> np.ndarray:
        return np.sum(list(self.counts.values()), axis=0)


def unite_classes(splits: Sequence[Split]) -> Classes:
    """One list of the classes of splits, which mostly share theirs."""
    texts: dict[str, str] = {}
    for split in splits:
        manifest = split.manifest
        for name, text in zip(manifest.classes, manifest.class_texts, strict=True):
            texts.setdefault(name, text or name)
    places = {name: place for place, name in enumerate(texts)}
    positions, counts = {}, {}
    for split in splits:
        to_place = np.array([places[name] for name in split.manifest.classes])
        positions[split.name] = to_place
        labels = split.rows.label[split.rows.stored]
        counts[split.name] = np.bincount(to_place[labels], minlength=len(places))
    return Classes(tuple(texts), tuple(texts.values()), counts, positions)


def balance(counts: np.ndarray) -> dict[str, float | int | None]:
    """How evenly pictures are spread over classes.

    `ratio` is the most frequent class over the least frequent one that has any pictures;
    `effective` the number of equally frequent classes that would be as hard to guess.
    """
    present = counts[counts > 0]
    if not len(present):
        return {"missing": len(counts), "least": 0, "most": 0, "ratio": None, "effective": 0.0}
    shares = present / present.sum()
    return {
        "missing": int(len(counts) - len(present)),
        "least": int(present.min()),
        "median": float(np.median(present)),
        "most": int(present.max()),
        "ratio": float(present.max() / present.min()),
        "effective": float(np.exp(-np.sum(shares * np.log(shares)))),
    }


def extremes(counts: np.ndarray, number: int) -> tuple[list[int], list[int]]:
    """Positions of the most frequent classes, and of the least frequent ones, rarest first."""
    number = min(number, max(1, len(counts) // 2))
    most = np.argsort(-counts, kind="stable")[:number]
    least = np.argsort(counts, kind="stable")
    return most.tolist(), least[~np.isin(least, most)][:number].tolist()


def measures(rows: Rows) -> dict[str, np.ndarray]:
    """What can be measured of each stored picture, in the order of the table."""
    width, height = rows.width[rows.stored], rows.height[rows.stored]
    return {
        "width": width,
        "height": height,
        "side": np.minimum(width, height),
        "aspect": width / np.maximum(height, 1),
        "megapixels": width * height.astype(np.int64) / 1e6,
        "bytes": rows.jpeg_length[rows.stored],
    }


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Smallest, largest, median and mean of values, and where 5 % lie below and above."""
    found = np.quantile(values, [share for _, share in _QUANTILES])
    names = [name for name, _ in _QUANTILES]
    return dict(zip(names, found.tolist(), strict=True)) | {"mean": float(values.mean())}


def resolutions(measured: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, float]]:
    """For each training resolution: pictures below it, and what storing them at it would save.

    `below` is the share of pictures whose shorter side has fewer pixels; `pixels` the share of all
    pixels that stays if every picture is made smaller to that shorter side, none larger.
    """
    sides = np.concatenate([values["side"] for values in measured])
    pixels = np.concatenate([values["megapixels"] for values in measured])
    total = max(pixels.sum(), 1e-12)
    return [
        {
            "resolution": side,
            "below": float(np.mean(sides < side)),
            "pixels": float(np.sum(pixels * np.minimum(1, side / np.maximum(sides, 1)) ** 2))
            / total,
        }
        for side in RESOLUTIONS
    ]


def outcomes(rows: Rows, action: str, examples: int) -> list[dict]:
    """How many files met `action`, by reason, the most frequent first, with the first few rows."""
    found = []
    for code, (what, reason) in enumerate(rows.outcomes):
        if what == action:
            places = np.flatnonzero(rows.outcome == code)
            entry = {"reason": reason, "count": len(places), "rows": places[:examples].tolist()}
            found.append(entry)
    return sorted(found, key=lambda entry: (-entry["count"], entry["reason"]))


def count_of(rows: Rows, action: str) -> int:
    return sum(entry["count"] for entry in outcomes(rows, action, 0))


def shards(manifest: Manifest) -> dict:
    """Sizes of the shards, and how far they are apart."""
    sizes = np.array([shard.num_bytes for shard in manifest.shards], np.int64)
    records = np.array([shard.num_examples for shard in manifest.shards], np.int64)
    return {
        "number": len(sizes),
        "bytes": sizes,
        "total": int(sizes.sum()),
        "smallest": manifest.shards[int(sizes.argmin())],
        "largest": manifest.shards[int(sizes.argmax())],
        "mean": float(sizes.mean()),
        "spread": float(sizes.max() / sizes.mean() - 1) if sizes.sum() else 0.0,
        "fewest": int(records.min()),
        "most": int(records.max()),
    }


def evenly(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `values`, spread over all of them."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(int)]
