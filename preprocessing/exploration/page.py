"""Gathers what the page about a data set shows, section by section."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preprocessing import images, layout
from preprocessing.exploration import numbers, plots
from preprocessing.exploration.duplicates import Duplicates, find_duplicates
from preprocessing.exploration.numbers import Classes
from preprocessing.exploration.odd import Oddity, changed, extremes
from preprocessing.exploration.rows import Split, load_split
from preprocessing.exploration.shelf import SampleLook, Shelf
from preprocessing.exploration.verdict import judge
from preprocessing.manifest import Manifest

SAMPLED_CLASSES = 12
PICTURES_PER_CLASS = 8
FEW_PICTURES = 2
SAMPLED_IF_FEW = 48
ODD_PICTURES = 8
LOOKED_AT = 256
EXTREME_CLASSES = 5
CLASSES_LISTED = 1000
SHARDS_LISTED = 64
FILES_NAMED = 5
GROUPS_SHOWN = 12
MEMBERS_NAMED = 6

_CLASS_LISTS = {
    "file": "from a file",
    "imagenet": "ImageNet's own order",
    "folders": "the source's own order",
}


def gather(data_dir: str, names: Sequence[str]) -> dict[str, Any]:
    """Everything that the template shows about some splits.

    Raises:
        UserError: a split is missing or damaged.
    """
    splits = [load_split(data_dir, name) for name in names]
    classes = numbers.unite_classes(splits)
    measured = {split.name: numbers.measures(split.rows) for split in splits}
    duplicates = _find_duplicates(splits, classes)
    shards = {split.name: numbers.shards(split.manifest) for split in splits}
    shelf = Shelf(data_dir, splits, classes)
    looks = shelf.looks(LOOKED_AT)
    page = {
        "legend": plots.legend(names),
        "splits": [
            _about_split(data_dir, split, classes, duplicates, shards[split.name])
            for split in splits
        ],
        "classes": _about_classes(classes),
        "sizes": _about_sizes(measured),
        "files": _about_files(splits, shelf),
        "samples": _samples(splits[0], classes, shelf),
        "looks": looks,
        "oddities": _oddities(splits, looks, shelf),
        "duplicates": _about_duplicates(splits, duplicates, shelf),
        "shards": [_about_shards(split, shards[split.name]) for split in splits],
        "provenance": [_provenance(split.manifest) for split in splits],
    }
    shelf.fill_keys()
    return page


def _find_duplicates(splits: Sequence[Split], classes: Classes) -> Duplicates:
    rows = [split.rows for split in splits]
    return find_duplicates(
        [split.name for split in splits],
        [one.content[one.stored] for one in rows],
        [
            classes.positions[split.name][split.rows.label[split.rows.stored]].astype(np.int32)
            for split in splits
        ],
        most_groups=GROUPS_SHOWN,
        most_members=MEMBERS_NAMED,
    )


def _about_split(
    data_dir: str, split: Split, classes: Classes, duplicates: Duplicates, shards: dict[str, Any]
) -> dict[str, Any]:
    manifest, name = split.manifest, split.name
    own = classes.counts[name][classes.positions[name]]  # without other splits' classes
    balance = numbers.balance(own)
    before = [pair for pair in duplicates.between if pair.second == name]
    faults = _faults_of_files(data_dir, manifest)
    return {
        "name": name,
        "num_listed": manifest.num_listed,
        "num_examples": manifest.num_examples,
        "num_repaired": numbers.count_of(split.rows, images.REPAIRED),
        "num_resized": numbers.count_of(split.rows, images.RESIZED),
        "num_rejected": numbers.count_of(split.rows, images.REJECTED),
        "num_bytes": shards["total"],
        "num_shards": shards["number"],
        "balance": balance,
        "verdict": judge(manifest, balance, duplicates.within[name], before, shards, faults),
    }


def _faults_of_files(data_dir: str, manifest: Manifest) -> list[str]:
    """What one listing of the directory tells of shards that are not as the manifest says."""
    there = layout.find_shards(data_dir, manifest.split)
    expected = {shard.name: shard.num_bytes for shard in manifest.shards}
    faults = []
    for names, what in (
        (sorted(expected.keys() - there.keys()), "missing"),
        (sorted(n for n in expected.keys() & there if expected[n] != there[n]), "of another size"),
        (sorted(there.keys() - expected.keys()), "not in the manifest"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            faults.append(f"shard {names[0]}{more}: {what}")
    return faults


def _about_classes(classes: Classes) -> dict[str, Any]:
    number = len(classes.names)
    by_rank = number > plots.MOST_BARS
    most, least = numbers.extremes(classes.totals, EXTREME_CLASSES)
    rows = [
        {
            "index": index,
            "name": classes.names[index],
            "text": classes.texts[index],
            "counts": [int(counts[index]) for counts in classes.counts.values()],
        }
        for index in sorted({*range(min(number, CLASSES_LISTED)), *most, *least})
    ]
    by_index = {row["index"]: row for row in rows}
    return {
        "number": number,
        "by_rank": by_rank,
        "chart": plots.class_ranks(classes.counts)
        if by_rank
        else plots.class_bars(classes.texts, classes.counts),
        "most": [by_index[index] for index in most],
        "least": [by_index[index] for index in least],
        "rows": rows[:CLASSES_LISTED],
        "more": max(0, number - CLASSES_LISTED),
    }


def _about_sizes(measured: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    def series(name: str) -> dict[str, np.ndarray]:
        return {split: values[name] for split, values in measured.items()}

    return {
        "map": plots.size_map(
            np.concatenate(list(series("width").values())),
            np.concatenate(list(series("height").values())),
        ),
        "charts": {
            name: plots.histogram(series(name), scale)
            for name, scale in (
                ("side", plots.SIDE),
                ("aspect", plots.ASPECT),
                ("megapixels", plots.MEGAPIXELS),
                ("bytes", plots.BYTES),
            )
        },
        "quantiles": [
            {"split": split, "measure": name} | numbers.quantiles(values[name])
            for name in ("width", "height", "side", "aspect", "megapixels", "bytes")
            for split, values in measured.items()
        ],
        "resolutions": numbers.resolutions(list(measured.values())),
    }


def _about_files(splits: Sequence[Split], shelf: Shelf) -> dict[str, list[dict[str, Any]]]:
    return {
        action: [
            {
                "split": split.name,
                "reason": found["reason"],
                "count": found["count"],
                "share": found["count"] / split.manifest.num_listed,
                "examples": [shelf.entry((split.name, row)) for row in found["rows"]],
            }
            for split in splits
            for found in numbers.outcomes(split.rows, action, FILES_NAMED)
        ]
        for action in (images.REJECTED, images.REPAIRED, images.RESIZED)
    }


def _samples(split: Split, classes: Classes, shelf: Shelf) -> dict[str, Any]:
    """Pictures of classes taken evenly from the list, evenly from each."""
    rows, positions = split.rows, classes.positions[split.name]
    labels = np.where(rows.stored, rows.label, -1)
    present = np.unique(labels[labels >= 0])
    # Where a class has a picture or two, many classes say more than a row for each of a few.
    few = len(labels[labels >= 0]) <= FEW_PICTURES * len(present)
    each, most = (1, SAMPLED_IF_FEW) if few else (PICTURES_PER_CLASS, SAMPLED_CLASSES)
    chosen = [
        (label, numbers.evenly(np.flatnonzero(labels == label), each).tolist())
        for label in numbers.evenly(present, most).tolist()
    ]
    entries = iter(shelf.shown([(split.name, row) for _, r in chosen for row in r], square=True))
    return {
        "split": split.name,
        "num_present": len(present),
        "few": few,
        "classes": [
            {
                "name": classes.names[positions[label]],
                "text": classes.texts[positions[label]],
                "entries": list(itertools.islice(entries, len(rows))),
            }
            for label, rows in chosen
        ],
    }


def _oddities(splits: Sequence[Split], looks: Sequence[SampleLook], shelf: Shelf) -> list[dict]:
    grey = [place for look in looks for place in look.grey][:ODD_PICTURES]
    found = extremes(splits, ODD_PICTURES)
    if grey:
        found.append(Oddity("Grey", "no colour in them; found in the sample above", grey))
    found += changed(splits, ODD_PICTURES)
    return [
        {"title": one.title, "note": one.note, "entries": shelf.shown(one.places)} for one in found
    ]


def _about_duplicates(
    splits: Sequence[Split], duplicates: Duplicates, shelf: Shelf
) -> dict[str, Any]:
    stored = [np.flatnonzero(split.rows.stored) for split in splits]
    groups = []
    for group in duplicates.groups:
        places = [(splits[n].name, int(stored[n][position])) for n, position in group.members]
        first, *others = places
        entries = [*shelf.shown([first]), *(shelf.entry(place) for place in others)]
        groups.append({"group": group, "entries": entries, "more": group.size - len(entries)})
    return {
        "within": duplicates.within,
        "between": duplicates.between,
        "groups": groups,
        "more": duplicates.num_groups - len(groups),
    }


def _about_shards(split: Split, shards: dict[str, Any]) -> dict[str, Any]:
    listed = split.manifest.shards[:SHARDS_LISTED]
    return shards | {
        "split": split.name,
        "chart": plots.shard_sizes(split.name, shards["bytes"]),
        "rows": listed,
        "more": shards["number"] - len(listed),
    }


def _provenance(manifest: Manifest) -> dict[str, Any]:
    source = manifest.class_list_source
    tables = {
        "Source": {
            **manifest.source,
            "class list": _CLASS_LISTS.get(source, source),
            "label of the first class": manifest.labels.offset,
            "seed": manifest.seed,
        },
        "Flags": {name: value for name, value in manifest.flags.items() if name != "seed"},
        "Versions": manifest.versions,
    }
    digests = {
        "manifest": manifest.sha256,
        "records table": manifest.records_sha256,
        "plan": manifest.plan_sha256,
        "class file": manifest.class_list_sha256,
    }
    return {
        "split": manifest.split,
        "tables": tables,
        "digests": {name: digest for name, digest in digests.items() if digest},
    }
