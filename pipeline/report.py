"""The command that writes one HTML file about one run: data, training, evaluation, exports.

    python -m pipeline.report --data_dir=data --model_dir=model --evaluation=evaluation.json \
        --export_dir=export --output=report.html

The file needs nothing but a browser: styles, charts and pictures are inside it. It carries no
time of its own making, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from common import command, files
from common.command import flag
from common.errors import UsageError, UserError


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """What the report is about and where it goes."""

    data_dir: str = flag(help="data set written by preprocessing.build_dataset")
    output: str = flag(help="HTML file to write, for example report.html")
    model_dir: str = flag("", help="directory of a training run: config.json and history.json")
    evaluation: str = flag("", help="JSON file written by pipeline.evaluate")
    export_dir: str = flag("", help="directory written by pipeline.export")
    title: str = flag("", help="headline of the report; empty for the model and its data set")
    class_names: str = flag("", help="file of lines 'class<TAB>human name'; empty for none")
    commands: str = flag("", help="file with the commands of the run, one a line; empty for none")
    compare: str = flag(
        "",
        help="model directory of another run on the same data, whose validation curve is drawn"
        " beside; empty for none",
    )


class ClassNames:
    """What people call a class: its human name where there is one, else the class itself."""

    def __init__(self, names: Mapping[str, str]):
        self._names = names

    @classmethod
    def read(cls, path: str) -> ClassNames:
        """Reads lines of `class<TAB>human name`; an empty `path` gives no names.

        Raises:
            UserError: the file is missing or a line has no tab.
        """
        names = {}
        for number, line in enumerate(_lines(path, "class_names"), start=1):
            key, tab, name = line.partition("\t")
            if not tab:
                raise UserError(f"--class_names={path}, line {number}: no tab in {line!r}")
            names[key.strip()] = name.strip()
        return cls(names)

    def __call__(self, name: Any) -> str:
        return self._names.get(str(name), str(name))


def write_report(config: ReportConfig) -> None:
    """Writes one self-contained HTML report about a data set, a training run and its exports.

    Parts other than the data set may be missing: the report says so in their place.
    """
    if os.path.isdir(config.output):
        raise UsageError(f"--output={config.output} is a directory: give the name of an HTML file")
    # File names need not be Unicode; what is not shows as a question mark.
    html = _render(gather(config)).encode("utf-8", "replace")
    files.write_bytes(config.output, html)
    logging.info("wrote %s (%.1f MB)", config.output, len(html) / 1e6)


def gather(config: ReportConfig) -> dict[str, Any]:
    """Everything that the template shows, one entry a section.

    Raises:
        UserError: there is no data set, or an input is damaged.
    """
    from pipeline import report_sections as sections
    from pipeline.report_data import DataSet

    names = ClassNames.read(config.class_names)
    data = DataSet(config.data_dir)
    run = _read_part(config.model_dir, "config.json", "model_dir")
    history = _read_part(config.model_dir, "history.json", "model_dir")
    other = sections.OtherRun.read(config.compare) if config.compare else None
    evaluation = _read_part(config.evaluation, "", "evaluation")
    export = _read_part(config.export_dir, "export.json", "export_dir")
    model = run.get("model") or {}
    data_set = (run.get("data") or {}).get("dataset_name") or os.path.basename(
        os.path.abspath(config.data_dir)
    )
    return {
        "title": config.title or f"{sections.model_title(model)} on {data_set}",
        "model_title": sections.model_title(model),
        "data_set": data_set,
        "run": run | {"tables": sections.configuration_tables(run)},
        "data": data.describe(names, input_size=sections.input_size(model)),
        "history": sections.describe_history(history, other),
        "evaluation": sections.describe_evaluation(evaluation, data, names),
        "export": export,
        "trained_on": data.same_as(run.get("data_fingerprint"), "train"),
        "zoo": sections.zoo_picture(),
        "versions": sections.versions_of(run, export),
        "commands": _lines(config.commands, "commands"),
    }


def _read_part(path: str, name: str, flag_name: str) -> dict[str, Any]:
    """A JSON object, or `{"missing": sentence}` where there is none."""
    if not path:
        return {"missing": f"Nothing to show: --{flag_name} was not given."}
    full = os.path.join(path, name) if name else path
    if not os.path.exists(full):
        return {"missing": f"Nothing to show: {full} does not exist."}
    value = files.read_json(full)
    if not isinstance(value, dict):
        raise UserError(f"{full} holds no JSON object: write it again with the step that makes it")
    return value


def _lines(path: str, flag_name: str) -> list[str]:
    if not path:
        return []
    try:
        with open(path, encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--{flag_name}={path} cannot be read: {reason}") from None


def _render(sections: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in ("pipeline", "common")]),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "size": _size,
        "value": _value,
        "rounded": lambda number: f"{number:.4g}" if _is_number(number) else "–",
        "count": lambda number: f"{number:,}",
    }
    return environment.get_template("report.html.j2").render(sections)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _percent(value: Any, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%" if _is_number(value) else "–"


def _size(count: Any) -> str:
    """Bytes as people read them, in powers of ten."""
    if not _is_number(count):
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _value(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value) or "–"
    return str(value)


if __name__ == "__main__":
    command.run(write_report, ReportConfig)
