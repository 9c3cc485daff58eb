"""What the report says about a data set: counts, sizes, sample pictures, rejected files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from common import files, inline_svg
from common.errors import UserError
from pipeline.reporting import plots
from pipeline.reporting.thumbnails import thumbnail
from preprocessing import layout, manifest, records, tfrecord
from preprocessing.class_list import imagenet_synsets

MOST_SAMPLES = 96
MOST_SAMPLES_PER_CLASS = 8
MOST_CLASSES_SHOWN = 24
MOST_FILES_LISTED = 500
_COLUMNS = [
    *("key", "label", "shard", "width", "height"),
    *("offset", "length", "jpeg_offset", "jpeg_length"),
]
_CLASS_LIST_SOURCES = {
    "file": "from a file",
    "imagenet": "ImageNet's own",
    "folders": "the source's own order",
}


class DataSet:
    """A finished data set, whose shards are read one record at a time.

    Args:
        data_dir: directory that holds shards and one folder with a manifest a split.

    Raises:
        UserError: there is no data set.
    """

    def __init__(self, data_dir: str):
        self._data_dir = data_dir
        if not files.is_directory(data_dir):
            raise UserError(
                f"--data_dir={data_dir} does not exist: name the directory that"
                " preprocessing.build_dataset wrote"
            )
        splits = layout.find_splits(data_dir)
        if not splits:
            raise UserError(
                f"--data_dir={data_dir} holds no <split>/manifest.json: build the data set with"
                " preprocessing.build_dataset first"
            )
        order = {"train": 0, "validation": 1}
        splits.sort(key=lambda name: (order.get(name, 2), name))
        self._manifests = {split: manifest.load_manifest(data_dir, split) for split in splits}
        self._records = {split: _stored_records(data_dir, split) for split in splits}

    @property
    def class_texts(self) -> dict[str, str]:
        """What each class is called in plain words."""
        first = next(iter(self._manifests.values()))
        return dict(zip(first.classes, first.class_texts, strict=True))

    @property
    def is_imagenet(self) -> bool:
        """Whether figures of ImageNet's 1000 classes can be set beside those of this data."""
        return all(one.classes == imagenet_synsets() for one in self._manifests.values())

    def same_as(self, manifest_sha256: str | None, split: str) -> bool | None:
        """Whether `split` is the data of that hash; None where either is unknown."""
        if not manifest_sha256 or split not in self._manifests:
            return None
        return self._manifests[split].sha256 == manifest_sha256

    def describe(self, names: Callable[[Any], str], input_size: int | None) -> dict[str, Any]:
        """Figures, charts and pictures for the section on data.

        Args:
            names: turns a class into what people call it.
            input_size: pixels a side of the model's input, pointed out among the image sizes.
        """
        first = next(iter(self._manifests.values()))
        labels = [names(name) for name in first.classes]
        widths, heights = self._column("width"), self._column("height")
        sides = np.minimum(widths, heights)
        return {
            "splits": [
                {
                    "name": split,
                    "num_examples": one.num_examples,
                    "num_listed": one.num_listed,
                    "num_repaired": one.num_repaired,
                    "num_rejected": sum(one.rejected.values()),
                    "num_shards": len(one.shards),
                    "num_bytes": sum(shard.num_bytes for shard in one.shards),
                    "sha256": one.sha256,
                }
                for split, one in self._manifests.items()
            ],
            "num_classes": len(labels),
            "class_list": _CLASS_LIST_SOURCES.get(first.class_list_source, first.class_list_source),
            "first_label": first.labels.offset,
            "counts_chart": self._counts_chart(labels),
            "legend": [
                {"name": split, "color": inline_svg.css_color(color)}
                for split, color in zip(self._manifests, inline_svg.SERIES * 9, strict=False)
            ],
            "size_chart": plots.histogram(sides, "shorter side, pixels", mark=input_size),
            "input_size": input_size,
            "aspect_chart": plots.histogram(widths / heights, "width : height", ratio=True),
            "median_size": (int(np.median(widths)), int(np.median(heights))),
            "samples": list(self._samples(labels, first.classes)),
            "rejected": self._listed(layout.REJECTED),
            "repaired": self._listed(layout.REPAIRED),
        }

    def pictures(
        self, wanted: Sequence[tuple[str, str, int | None]], first_split: str
    ) -> list[str | None]:
        """Thumbnails of examples as data URIs; None for one that no split holds.

        Args:
            wanted: class, file name with or without folders, and number in `first_split` of each
                example; None for a number that is not known.
            first_split: the split to look in before the others.
        """
        names = [(label, _without_folders(name)) for label, name, _ in wanted]
        found: dict[tuple[str, str], tuple[str, int]] = {}
        for split in sorted(self._records, key=lambda name: name == first_split):
            rows = (self._name_of(split, row) for row in range(len(self._records[split]["key"])))
            places = {name: (split, row) for row, name in enumerate(rows)}
            found |= {name: places[name] for name in names if name in places}
        places = [
            # Files of one name may be in a class several times; the number tells which it is.
            (first_split, number) if self._is_at(first_split, number, name) else found.get(name)
            for name, (_, _, number) in zip(names, wanted, strict=True)
        ]
        return [self._thumbnail(*place) if place else None for place in places]

    def _name_of(self, split: str, row: int) -> tuple[str, str]:
        """Class, and file name without folders."""
        columns, classes = self._records[split], self._manifests[split].classes
        return classes[columns["label"][row]], _without_folders(columns["key"][row])

    def _is_at(self, split: str, row: int | None, name: tuple[str, str]) -> bool:
        """Whether the example `name` has that number."""
        if split not in self._records or not isinstance(row, int):
            return False
        return 0 <= row < len(self._records[split]["key"]) and self._name_of(split, row) == name

    def _counts_chart(self, labels: Sequence[str]) -> Any:
        counts = {split: one.examples_per_class for split, one in self._manifests.items()}
        if len(labels) <= plots.MOST_BARS:
            return plots.stacked_bars(labels, counts, "examples of each class")
        return plots.profile(counts, "classes, largest first", "examples")

    def _samples(self, labels: Sequence[str], classes: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Pictures of classes taken evenly from the list, evenly from each class."""
        split = next(iter(self._records))
        column = self._records[split]["label"]
        shown = _evenly(np.unique(column), MOST_CLASSES_SHOWN)
        each = min(MOST_SAMPLES_PER_CLASS, max(1, MOST_SAMPLES // len(shown)))
        for index in shown:
            rows = _evenly(np.flatnonzero(column == index), each)
            yield {
                "name": labels[index],
                "class": classes[index],
                "pictures": [self._thumbnail(split, int(row)) for row in rows],
            }

    def _thumbnail(self, split: str, row: int) -> str | None:
        """A thumbnail of one record's picture; None if Pillow cannot decode it."""
        column = self._records[split]
        shard, offset, length, jpeg_offset, jpeg_length = (
            int(column[name][row])
            for name in ("shard", "offset", "length", "jpeg_offset", "jpeg_length")
        )
        path = files.join(self._data_dir, self._manifests[split].shards[shard].name)
        try:
            record = files.read_range(path, offset, length)
        except OSError as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path} cannot be read: {reason}") from None
        if tfrecord.payload_of(record) is None:
            raise UserError(
                f"{path} is damaged at byte {offset}: build the data set again, which"
                " mends damaged shards"
            )
        return thumbnail(record[jpeg_offset - offset :][:jpeg_length])

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([records[name] for records in self._records.values()])

    def _listed(self, name: str) -> dict[str, Any]:
        """The rows of one JSON-lines file of every split, as many as a reader will look at."""
        rows = []
        for split in self._manifests:
            path = layout.split_path(self._data_dir, split, name)
            if files.exists(path):
                lines = files.read_bytes(path).decode("utf-8").split("\n")
                rows += [{"split": split} | json.loads(line) for line in lines if line.strip()]
        return {"rows": rows[:MOST_FILES_LISTED], "more": max(0, len(rows) - MOST_FILES_LISTED)}


def _stored_records(data_dir: str, split: str) -> dict[str, Any]:
    """The columns of the record table, without the rows of rejected files."""
    columns = records.load_records(data_dir, split, _COLUMNS)
    stored = columns["length"] > 0
    keys = list(itertools.compress(columns.pop("key"), stored))
    return {name: values[stored] for name, values in columns.items()} | {"key": keys}


def _without_folders(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _evenly(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `values`, spread over all of them."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(int)]
