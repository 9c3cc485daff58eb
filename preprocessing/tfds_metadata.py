"""The three small files that make a directory of shards a data set for TFDS.

With them, `tfds.builder_from_directory(DATA_DIR)` reads the finished splits, slices of them
(`validation[:10%]`) included. The features are those of the records that TFDS has a use for:
`image/encoded`, `label` (the class index) and `file_name`. They are written here without TFDS,
which would load TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.files import join, write_json, write_text
from preprocessing.manifest import Manifest

_NAME, _VERSION = "photos", "1.0.0"
_FEATURES = "tensorflow_datasets.core.features"


def save_tfds_metadata(data_dir: str, manifests: Sequence[Manifest]) -> None:
    """Describes the splits of these manifests, which share one class list."""
    splits = sorted(manifests, key=lambda manifest: manifest.split)
    classes = splits[0].classes
    write_text(join(data_dir, "label.labels.txt"), "".join(f"{name}\n" for name in classes))
    write_json(join(data_dir, "features.json"), _features(len(classes)))
    write_json(join(data_dir, "dataset_info.json"), _info(splits))


def _info(splits: Sequence[Manifest]) -> dict[str, Any]:
    keys = [{"featureKey": name} for name in ("image/encoded", "label")]
    return {
        "name": _NAME,
        "version": _VERSION,
        "fileFormat": "tfrecord",
        "supervisedKeys": {"tuple": {"items": keys}},
        "splits": [
            {
                "name": manifest.split,
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}",
                "numBytes": str(sum(shard.num_bytes for shard in manifest.shards)),
                "shardLengths": [str(shard.num_examples) for shard in manifest.shards],
            }
            for manifest in splits
        ],
    }


def _features(num_classes: int) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "file_name": {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}},
                "image/encoded": {
                    "pythonClassName": f"{_FEATURES}.image_feature.Image",
                    "image": {
                        "dtype": "uint8",
                        "encodingFormat": "jpeg",
                        "shape": {"dimensions": ["-1", "-1", "3"]},
                    },
                },
                "label": {
                    "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": str(num_classes)},
                },
            }
        },
    }
