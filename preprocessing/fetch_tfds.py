"""`python -m preprocessing.fetch_tfds`: a TFDS image-classification data set as class folders.

Each split becomes `OUTPUT_DIR/split/class/image`, with the bytes that TFDS stores, not encoded
anew, so that `preprocessing.build_dataset --input_dir=OUTPUT_DIR/split` can take it from there.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
from typing import Any

from common.command import explain_system_error, flag, run
from common.errors import UserError
from common.files import atomic_directory, read_json, require_writable, write_json

FINISHED = "fetched.json"


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """Flags of the command."""

    name: str = flag(help="data set as TFDS names it, for example imagenette/320px-v2")
    output_dir: str = flag(help="where the folders train, validation ... go")
    tfds_dir: str | None = flag(None, help="where TFDS keeps its files; its own place by default")


def fetch(config: FetchConfig) -> None:
    """Downloads a TFDS data set and writes its splits as class folders; does so only once."""
    marker = os.path.join(config.output_dir, FINISHED)
    if os.path.exists(marker):
        before = read_json(marker)
        if before.get("name") != config.name:
            raise UserError(
                f"--output_dir={config.output_dir} holds {before.get('name')!r}, not"
                f" {config.name!r}: use another directory"
            )
        logging.info(f"{config.name} is in {config.output_dir} already: nothing to do")
        return
    require_writable(config.output_dir, "output_dir")
    builder = _prepare(config)
    splits = {}
    for split in sorted(builder.info.splits):
        with atomic_directory(os.path.join(config.output_dir, split)) as directory:
            splits[split] = _write_split(builder, split, directory)
        logging.info(f"{split}: {splits[split]} images in {os.path.join(config.output_dir, split)}")
    version = str(builder.info.version)
    write_json(marker, {"name": config.name, "version": version, "splits": splits})


def _prepare(config: FetchConfig) -> Any:
    """The builder of the data set, with its files downloaded and prepared.

    Raises:
        UserError: TFDS does not know it, cannot get it, or it is not for image classification.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(config.name, data_dir=config.tfds_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        known = str(error).strip().splitlines()[0]
        raise UserError(f"--name={config.name}: TFDS has no such data set ({known})") from None
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise UserError(
            f"--name={config.name}: not a data set for image classification, its features are"
            f" {', '.join(features)}; one with 'image' and 'label' is needed"
        )
    logging.info(
        f"preparing {config.name} in {builder.data_dir} (the first time it is downloaded; without"
        " a network that fails after some minutes)"
    )
    # Each retry would be a line of its own; the last one's reason is in the error.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise UserError(f"TFDS needs the package {error.name}: install it with pip") from None
    except Exception as error:  # each of TFDS' many sources fails in a way of its own
        if explain_system_error(error):
            raise
        raise UserError(
            f"TFDS cannot prepare {config.name}: {_innermost(error)}; check the network, or give"
            " --tfds_dir where the data set is prepared already"
        ) from error
    return builder


def _write_split(builder: Any, split: str, directory: str) -> int:
    import tensorflow_datasets as tfds

    # One reader and no shuffle, so that numbers in file names stay with their images.
    records = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
        shuffle_files=False,
    )
    names = builder.info.features["label"].names
    for name in names:
        os.makedirs(os.path.join(directory, _as_file_name(name)), exist_ok=True)
    taken: collections.Counter[str] = collections.Counter()
    for number, record in enumerate(records.as_numpy_iterator()):
        image = record["image"]
        suffix = ".png" if image.startswith(b"\x89PNG") else ".JPEG"
        stem = _file_stem(record) or f"{split}_{number:07d}"
        folder = _as_file_name(names[record["label"]])
        path = os.path.join(directory, folder, stem + suffix)
        if taken[path]:
            path = os.path.join(directory, folder, f"{stem}_{number:07d}{suffix}")
        taken[path] += 1
        with open(path, "wb") as file:
            file.write(image)
    return sum(taken.values())


def _file_stem(record: dict[str, Any]) -> str | None:
    """The source file's name without its ending, where the data set tells it."""
    for key in ("file_name", "image/filename"):
        if key in record:
            return os.path.splitext(os.path.basename(record[key].decode("utf-8", "replace")))[0]
    return None


def _as_file_name(name: str) -> str:
    return name.replace("/", "_")


def _innermost(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    run(fetch, FetchConfig)
