"""What a job has counted, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult


def describe(result: PipelineResult) -> str:
    """The counters of `job.WriteShard`; "" where the runner does not hand them out.

    A runner that does work twice may count it twice: the manifest is the account, not this.
    """
    try:
        found = result.metrics().query()
    except Exception:
        # They come over the network from whatever ran the job, and the shards are there without.
        return ""
    counts = {
        (metric.key.metric.namespace, metric.key.metric.name): metric.committed or metric.attempted
        for metric in found["counters"]
    }
    images = sorted(
        ((count, name) for (namespace, name), count in counts.items() if namespace == "images"),
        key=lambda pair: (-pair[0], pair[1]),
    )
    if not images:
        return ""
    text = f"counted: {', '.join(f'{count:,} {name}' for count, name in images)};"
    text += f" {counts['shards', 'written']:,} shards of {counts['bytes', 'written']:,} bytes"
    for metric in found["distributions"]:
        if (metric.key.metric.namespace, metric.key.metric.name) == ("shards", "milliseconds"):
            times = metric.committed or metric.attempted
            text += f", {times.mean:,.0f} ms a shard ({times.min:,} to {times.max:,})"
    return text
