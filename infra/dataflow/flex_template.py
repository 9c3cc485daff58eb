"""What a Dataflow flex template runs: plans a build, describes its job, and does not wait for it.

The launcher of flex templates hands all parameters to one Python file, those of the build and those
of Beam alike, and takes the job from where `--template_location` says. Nobody waits here for the
job's end to write the manifest, so the job itself does that, as its last step.

Run by hand without `--template_location`, it sends the job to Dataflow and ends.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.command import run
from common.errors import UserError
from common.files import require_writable
from preprocessing import build_dataset as build
from preprocessing.account import account
from preprocessing.plan import Plan, load_plan
from preprocessing.resume import is_finished, settle_plan, shards_to_do
from preprocessing.runners import RunnerConfig
from preprocessing.runners.names import DATAFLOW

if TYPE_CHECKING:
    import apache_beam as beam

# Of the names that the build and Beam both know, a template's are Beam's: the launcher itself uses
# them. What the build calls so goes by another name here, or is of no use on Dataflow.
RENAMED = {"labels_file": "labels"}
BEAMS_OWN = ("labels", "num_workers", "runner")
TEMPLATE_LOCATION = "--template_location="


def launch(config: build.BuildConfig, beam_flags: tuple[str, ...]) -> None:
    """Plans the build of one split and hands its job over, to be run without this machine."""
    # Elsewhere this flag means that a job is described and forgotten, which the check refuses.
    checked = tuple(word for word in beam_flags if not word.startswith(TEMPLATE_LOCATION))
    RunnerConfig(DATAFLOW, beam_flags=checked).check(config.output_dir, config.source)
    build.require_apart(config)
    root, plan, body = build.make_plan(config)
    require_writable(config.output_dir, "output_dir")
    plan = settle_plan(config.output_dir, plan, body)
    if is_finished(config.output_dir, plan, config.max_rejected_fraction):
        raise UserError(f"split {config.split!r} in {config.output_dir} is finished: nothing to do")
    todo = shards_to_do(config.output_dir, plan)
    _send(config, root, plan, todo, beam_flags)
    logging.info(f"{len(todo)} of {plan.num_shards} shards and the manifest are left to the job")


def construct(
    pipeline: beam.Pipeline,
    config: build.BuildConfig,
    root: str,
    plan: Plan,
    todo: Sequence[int],
) -> None:
    """The job: the shards `todo`, and when all are there, the account of them."""
    import apache_beam as beam

    from preprocessing.runners.job import WriteShard

    data_dir, split, max_rejected = config.output_dir, config.split, config.max_rejected_fraction

    def write_manifest(_: int) -> None:
        account(data_dir, load_plan(data_dir, split), max_rejected)

    do_fn = WriteShard(root, data_dir, split, plan.body_sha256, config.read_threads)
    _ = (
        pipeline
        | "Shard numbers" >> beam.Create(todo)
        | "Deal to workers" >> beam.Reshuffle()
        | "Write shards" >> beam.ParDo(do_fn)
        # One number, of no shards too, and only when all are written.
        | "Count shards" >> beam.combiners.Count.Globally()
        | "Write the manifest" >> beam.Map(write_manifest)
    )


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts a template's parameters, `--name=value`, into the build's flags and Beam's options."""
    names = {field.name for field in dataclasses.fields(build.BuildConfig)} - {*BEAMS_OWN}
    build_words, beam_words = [], []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if name == "runner" or (equals and not value):
            continue  # a template's runner is Dataflow; a parameter may be left empty
        if name in RENAMED or name in names:
            build_words.append(f"--{RENAMED.get(name, name)}{equals}{value}")
        else:
            beam_words.append(word)
    return build_words, beam_words


def _send(
    config: build.BuildConfig, root: str, plan: Plan, todo: list[int], beam_flags: Sequence[str]
) -> None:
    from preprocessing.runners.options import make_options
    from preprocessing.runners.quiet_import import import_beam

    beam = import_beam(whole=True)
    pipeline = beam.Pipeline(options=make_options(DATAFLOW, beam_flags))
    construct(pipeline, config, root, plan, todo)
    pipeline.run()


if __name__ == "__main__":
    ours, beams = split_words(sys.argv[1:])
    run(
        launch,
        build.BuildConfig,
        argv=[sys.argv[0], *ours, "--", *beams],
        passthrough=build.BEAM_OPTIONS,
    )
