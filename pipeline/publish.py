"""Publishes an export as a version: `python -m pipeline.publish`.

Versions lie side by side in a directory or a bucket, and never change. `LATEST.json` there names
the newest whole one, and aliases such as `stable` name those that they are moved to. An export is
taken only if it has passed the parity gate and has not changed since.
"""

from __future__ import annotations

import dataclasses
import logging

from common import files
from common.command import flag, run
from common.errors import UsageError
from pipeline.publishing.places import open_store
from pipeline.publishing.pointers import LATEST, aliases, move_alias, pointed_at, require_alias
from pipeline.publishing.pointers import resolve as resolve_version
from pipeline.publishing.store import Store


@dataclasses.dataclass(frozen=True)
class PublishConfig:
    """Where an export goes, and by which names."""

    to: str = flag(help="directory or gs://BUCKET/NAME that holds the versions")
    export_dir: str = flag("", help="export to publish; left out, --alias moves names alone")
    alias: tuple[str, ...] = flag((), help="names that are to lead to the version from now on")
    version: str = flag(
        "",
        help="number that the export is to have, by default the next one; without --export_dir the"
        " version (number, alias or latest) that --alias is to name",
    )
    num_parallel: int = flag(8, help="files that are sent at once")
    list: bool = flag(False, help="show versions and aliases")

    def __post_init__(self):
        for name in self.alias:
            require_alias(name)
        if self.num_parallel < 1:
            raise UsageError(f"--num_parallel must be at least 1, not {self.num_parallel}")
        if self.export_dir and self.version and not _is_number(self.version):
            raise UsageError(f"--version={self.version} is no number from 1 on")
        if not self.export_dir and bool(self.alias) != bool(self.version):
            raise UsageError("--alias and --version go together where no --export_dir is given")
        if not (self.export_dir or self.alias or self.list):
            raise UsageError("give --export_dir to publish, --alias to move a name, or --list")


def publish(config: PublishConfig) -> None:
    """Publishes an export as a new version in a directory or a bucket, and moves aliases to it."""
    store = open_store(config.to)
    if config.export_dir:
        _publish(store, config)
    elif config.alias:
        manifest = resolve_version(config.to, config.version).manifest
        with store.locked():
            _move_aliases(store, config.alias, manifest)
    if config.list:
        _print_versions(store)


def _publish(store: Store, config: PublishConfig) -> None:
    from pipeline.publishing.exports import read_export
    from pipeline.publishing.publisher import publish_export

    if not files.is_directory(config.export_dir):
        raise UsageError(f"--export_dir={config.export_dir} is no directory")
    with files.local_copy(config.export_dir) as directory:
        export = read_export(directory, config.export_dir.rstrip("/"))
        with store.locked():
            wanted = int(config.version) if config.version else None
            outcome = publish_export(store, export, wanted, config.num_parallel)
            manifest = outcome.manifest
            if outcome.was_there:
                logging.info(
                    "the export is version %d of %s already: nothing was transferred",
                    manifest.version,
                    config.to,
                )
            else:
                logging.info(
                    "published as version %d: %s in %d files (%d were there) in %.1f s, %s/s",
                    manifest.version,
                    _size(manifest.bytes),
                    len(manifest.files),
                    len(manifest.files) - outcome.num_sent,
                    outcome.seconds,
                    _size(outcome.bytes_sent / max(outcome.seconds, 1e-3)),
                )
            logging.info("%s is version %d", LATEST, outcome.latest)
            _move_aliases(store, config.alias, manifest)


def _move_aliases(store: Store, names: tuple[str, ...], manifest) -> None:
    for name in names:
        before = move_alias(store, name, manifest)
        was = f" (was version {before})" if before not in (None, manifest.version) else ""
        logging.info("%s is version %d%s", name, manifest.version, was)


def _print_versions(store: Store) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    names: dict[int, list[str]] = {}
    if (latest := pointed_at(store, LATEST)) is not None:
        names[latest] = [LATEST]
    for alias, number in aliases(store).items():
        names.setdefault(number, []).append(alias)
    table = Table(title=escape(store.path))
    table.add_column("version", justify="right")
    for heading in ("names", "published", "model"):
        table.add_column(heading)
    for heading in ("top-1", "files", "size"):
        table.add_column(heading, justify="right")
    table.add_column("content")
    for state in store.states():
        known = ", ".join(names.get(state.number, []))
        manifest = state.manifest
        if manifest is None:
            words = ["not whole", "", "", "", ""]
        else:
            top_1 = "" if manifest.top_1 is None else f"{manifest.top_1:.4f}"
            size = _size(manifest.bytes)
            words = [manifest.published, manifest.model, top_1]
            words += [f"{len(manifest.files)}", size]
        row = (state.number, known, *words, state.content_sha256[:12])
        table.add_row(*(escape(str(word)) for word in row))
    Console(highlight=False).print(table)


def _is_number(word: str) -> bool:
    return word.isdecimal() and int(word) >= 1


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


if __name__ == "__main__":
    run(publish, PublishConfig)
