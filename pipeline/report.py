"""The command that writes one HTML file about one run: data, training, evaluation, exports.

    python -m pipeline.report --data_dir=data --model_dir=model --evaluation=evaluation.json \
        --export_dir=export --output=report.html

The file needs nothing but a browser: styles, charts and pictures are inside it. It carries no
time of its own making, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from common import command, files
from common.command import flag


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """What the report is about and where it goes; all paths are local or in a bucket."""

    data_dir: str = flag(help="data set written by preprocessing.build_dataset")
    output: str = flag(help="HTML file to write, for example report.html")
    model_dir: str = flag("", help="directory of a training run: config.json and history.json")
    evaluation: str = flag("", help="JSON file written by pipeline.evaluate")
    export_dir: str = flag("", help="directory written by pipeline.export")
    latency: str = flag("", help="JSON file written by benchmarks.latency; empty for none")
    experiment: str = flag(
        "", help="experiment of pipeline.experiments that was run, whose accuracy was expected"
    )
    title: str = flag("", help="headline of the report; empty for the model and its data set")
    class_names: str = flag(
        "",
        help="file of lines 'class<TAB>human name'; empty for the names that the data set has",
    )
    commands: str = flag("", help="file with the commands of the run, one a line; empty for none")
    compare: str = flag(
        "",
        help="model directory of another run on the same data, whose validation curve is drawn"
        " beside; empty for none",
    )


def write_report(config: ReportConfig) -> None:
    """Writes one self-contained HTML report about a data set, a training run and its exports.

    Parts other than the data set may be missing: the report says so in their place.
    """
    from pipeline.reporting.render import render

    files.require_writable_file(config.output, "output")
    # File names need not be Unicode; what is not shows as a question mark.
    html = render(gather(config)).encode("utf-8", "replace")
    files.write_bytes(config.output, html)
    logging.info("wrote %s (%.1f MB)", config.output, len(html) / 1e6)


def gather(config: ReportConfig) -> dict[str, Any]:
    """Everything that the template shows, one entry a section.

    Raises:
        UserError: there is no data set, or an input is damaged.
    """
    from pipeline.experiments import find_experiment
    from pipeline.reporting import settings
    from pipeline.reporting.cost import describe_cost
    from pipeline.reporting.data import DataSet
    from pipeline.reporting.evaluation import describe_evaluation
    from pipeline.reporting.expectation import describe_expectation
    from pipeline.reporting.exports import describe_export
    from pipeline.reporting.inputs import ClassNames, last_name, read_lines, read_part, written_by
    from pipeline.reporting.training import OtherRun, describe_history

    experiment = find_experiment(config.experiment) if config.experiment else None
    data = DataSet(config.data_dir)
    names = ClassNames.read(config.class_names, data.class_texts)
    run = read_part(config.model_dir, "config.json", "model_dir")
    history = read_part(config.model_dir, "history.json", "model_dir")
    other = OtherRun.read(config.compare) if config.compare else None
    latency = read_part(config.latency, "", "latency")
    told = read_part(config.evaluation, "", "evaluation")
    exported = read_part(config.export_dir, "export.json", "export_dir")
    with written_by("pipeline.evaluate", config.evaluation):
        evaluation = describe_evaluation(told, data, names)
    with written_by("pipeline.export", config.export_dir):
        export = describe_export(exported)
    with written_by("training.train", config.model_dir):
        model = run.get("model") or told.get("model") or {}
        title = settings.model_title(model)
        data_set = (run.get("data") or {}).get("dataset_name") or last_name(config.data_dir)
        trained = {
            "run": run | {"tables": settings.configuration_tables(run)},
            "history": describe_history(history, other),
            "trained_on": data.same_as(run.get("data_fingerprint"), "train"),
            "expectation": describe_expectation(experiment, run, evaluation, data.is_imagenet),
            "versions": settings.versions_of(run, exported),
        }
    with written_by("benchmarks.latency", config.latency):
        cost = describe_cost(model, title, evaluation, latency, data.is_imagenet)
    return trained | {
        "title": config.title or f"{title} on {data_set}",
        "model_title": title,
        "data_set": data_set,
        "data": data.describe(names, input_size=settings.input_size(model)),
        "evaluation": evaluation,
        "export": export,
        "export_dir": config.export_dir,
        "cost": cost,
        "commands": read_lines(config.commands, "commands"),
    }


if __name__ == "__main__":
    command.run(write_report, ReportConfig)
