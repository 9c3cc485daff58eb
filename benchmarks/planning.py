"""What dealing a million images to shards costs: `python -m benchmarks.planning`."""

from __future__ import annotations

import dataclasses
import resource
import time

from common.command import flag, run
from common.errors import UsageError


@dataclasses.dataclass(frozen=True)
class PlanningConfig:
    """Flags of the command."""

    num_images: int = flag(1_281_167, help="images to deal")
    num_classes: int = flag(1_000, help="classes that they belong to")
    num_shards: int = flag(1_024, help="shards to deal them to")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise UsageError(f"--{field.name} must be at least 1")


def measure_planning(config: PlanningConfig) -> None:
    """Deals as many names as ImageNet has to its shards, and prints seconds and memory."""
    from preprocessing.plan import PlannedImage, deal, write_body

    keys = sorted(
        f"n{number % config.num_classes:08d}/n{number % config.num_classes:08d}_{number}.JPEG"
        for number in range(config.num_images)
    )
    images = [PlannedImage(key, int(key[1:9]), 110_000, key) for key in keys]
    before = _peak_mib()
    start = time.perf_counter()
    shards = deal(images, config.num_shards, seed=0)
    dealt = time.perf_counter()
    body, _ = write_body(shards)
    end = time.perf_counter()
    sizes = sorted(map(len, shards))
    print(
        f"{config.num_images:,} images to {config.num_shards:,} shards of {sizes[0]:,} to"
        f" {sizes[-1]:,}: {end - start:.1f} s ({dealt - start:.1f} s to deal), plan of"
        f" {len(body) / 2**20:.0f} MiB"
    )
    print(f"most memory: {_peak_mib():,.0f} MiB, {before:,.0f} MiB of it the list of images")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run(measure_planning, PlanningConfig)
