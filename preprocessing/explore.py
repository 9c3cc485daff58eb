"""`python -m preprocessing.explore`: one HTML page that shows a data set to its team.

The page needs nothing but a browser: styles, charts and pictures are inside it. It carries no time
of its own making, so that the same data set gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import logging
import os

from common import files
from common.command import flag, run
from common.errors import UserError
from preprocessing import layout

_FIRST_SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class ExploreConfig:
    """Flags of the command."""

    data_dir: str = flag(help="directory of the shards: --output_dir of the build")
    output: str = flag(help="HTML file to write, for example explore.html")
    splits: tuple[str, ...] = flag((), help="names of the splits to show; empty for all")
    title: str = flag("", help="headline of the page; empty for the name of the directory")

    def __post_init__(self):
        for split in self.splits:
            layout.require_split_name(split)


def explore(config: ExploreConfig) -> None:
    """Writes one page about a data set: classes, sizes, odd pictures, duplicates, shards."""
    files.require_writable_file(config.output, "output")
    splits = list(dict.fromkeys(config.splits)) or find_splits(config.data_dir)
    from preprocessing.exploration.page import gather
    from preprocessing.exploration.render import render

    page = gather(config.data_dir, splits)
    name = os.path.basename(os.path.normpath(config.data_dir))
    if name in (".", ".."):
        name = os.path.basename(os.path.abspath(config.data_dir))
    # A class may be called anything, even what is not Unicode.
    html = render(page | {"title": config.title or name}).encode("utf-8", "replace")
    files.write_bytes(config.output, html)
    for split in page["splits"]:
        logging.info(f"{split['name']}: {split['num_examples']} images. {split['verdict'].line}")
    logging.info(f"wrote {config.output} ({len(html) / 1e6:.1f} MB)")


def find_splits(data_dir: str) -> list[str]:
    """The finished splits of a data set, train and validation first.

    Raises:
        UserError: there is none.
    """
    try:
        found = layout.find_splits(data_dir)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"--data_dir={data_dir} cannot be read ({reason}): name the directory that"
            " preprocessing.build_dataset wrote"
        ) from None
    if not found:
        raise UserError(
            f"--data_dir={data_dir} holds no finished split (no SPLIT/{layout.MANIFEST}): build one"
            " with preprocessing.build_dataset first"
        )
    first = [split for split in _FIRST_SPLITS if split in found]
    return first + [split for split in found if split not in first]


if __name__ == "__main__":
    run(explore, ExploreConfig)
