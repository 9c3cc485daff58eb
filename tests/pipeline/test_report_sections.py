"""The report's parts on evaluation, cost, exports and expectation, each against figures by hand."""

import dataclasses
import json
import re

import pytest

from common.errors import UserError
from loaders.zoo import find_row
from pipeline.experiments import DEMO
from pipeline.reporting import wording
from pipeline.reporting.calibration import describe_calibration
from pipeline.reporting.cost import describe_cost, describe_latency
from pipeline.reporting.data import DataSet
from pipeline.reporting.evaluation import accuracy_interval
from pipeline.reporting.expectation import describe_expectation
from pipeline.reporting.exports import describe_export
from tests.pipeline.report_pages import CLASSES, HOSTILE, Page, report_of, write_run

V1 = {"name": "mobilenet_v1", "width_multiplier": 0.25, "input_shape": [128, 128, 3]}
BINS = [
    {"low": 0.2, "high": 0.4, "count": 30, "confidence": 0.3, "accuracy": 0.5},
    {"low": 0.6, "high": 0.8, "count": 0, "confidence": None, "accuracy": None},
    {"low": 0.8, "high": 1.0, "count": 70, "confidence": 0.9, "accuracy": 0.8},
]
LATENCY = {
    "rows": [
        {"artifact": "saved_model", "side": "ours", "threads": 1, "batch": 1, "median_ms": 4.0}
        | {"p10_ms": 3.5, "p90_ms": 5.25},
        {"artifact": "litert_int8", "side": "ours", "threads": 2, "batch": 1, "median_ms": 1.0},
        {"artifact": "litert_int8", "side": "another", "threads": 2, "batch": 1, "median_ms": 0.5},
    ],
    "machine": {"processor": "abacus", "cores": 2, "load": 3.25, "versions": {"tensorflow": "9"}},
}
PARITY = {
    "num_images": 32,
    "passed": False,
    "rows": [
        {"artifact": "saved_model, serving_jpeg", "format": "saved_model", "passed": True}
        | {"largest_probability_difference": 2e-7, "limit": 1e-5, "top_1_agreement": 1.0}
        | {"top_1": 0.9375, "accuracy_drop": 0.0, "requirement": "--limit=1e-5"},
        {"artifact": "litert_int8", "format": "litert_int8", "passed": False, "limit": None}
        | {"largest_probability_difference": 0.25, "top_1_agreement": 0.75, "top_1": 0.875}
        | {"accuracy_drop": 0.0625, "first_divergence": "Conv2d_7", "cause": "channel order"},
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def changed(run, tmp_path, **changes):
    """The flags of the run with other keys in its JSON files: evaluation, export, latency."""
    paths = {"evaluation": run["evaluation"], "export": f"{run['export_dir']}/export.json"}
    flags = dict(run)
    for name, change in changes.items():
        value = {}
        if name in paths:
            with open(paths[name], encoding="utf-8") as file:
                value = json.load(file)
        directory = tmp_path / name
        directory.mkdir()
        (directory / f"{name}.json").write_text(json.dumps(value | change))
        is_export = name == "export"
        flags["export_dir" if is_export else name] = str(
            directory if is_export else directory / f"{name}.json"
        )
    return flags


def text_of(run, tmp_path, flags=None, **changes):
    return Page(report_of(tmp_path, **changed(run, tmp_path, **changes), **(flags or {}))).text


def dots(svg):
    """Centres of a chart's markers in its own units, in the order of drawing."""
    return [tuple(map(float, at)) for at in re.findall(r'<use [^>]*x="(\S+)" y="(\S+)"', str(svg))]


def last_dot(svg):
    """The last marker that is not in the legend, which stands right of the axes."""
    return [at for at in dots(svg) if at[0] < 700][-1]


def test_parts_that_nothing_was_told_about_do_not_appear(run, tmp_path):
    text = Page(report_of(tmp_path, **run)).text
    for words in ("as sure as", "Expected and reached", "far off", "Latency, measured"):
        assert words not in text


def test_calibration_is_drawn_where_it_was_measured(run, tmp_path):
    text = text_of(run, tmp_path, evaluation={"calibration": {"ece": 0.13, "bins": BINS}})
    assert "calibration error 13.0 % expected (ECE)" in text
    # (30 * (.3 - .5) + 70 * (.9 - .8)) / 100 = .01
    assert "the model is surer than it is right by 1.0 %" in text
    chart = describe_calibration({"ece": 0.13, "bins": BINS})["chart"]
    (left, low), (right, high) = dots(chart)[-2:]
    diagonal = re.search(r'd="M (\S+) (\S+)\s+L (\S+) (\S+)\s*"[^>]*stroke-dasharray', str(chart))
    x0, y0, x1, y1 = map(float, diagonal.groups())
    for at, share in ((left - x0, 0.3), (right - x0, 0.9)):
        assert at == pytest.approx(share * (x1 - x0), abs=0.01)
    for at, share in ((low - y0, 0.5), (high - y0, 0.8)):
        assert at == pytest.approx(share * (y1 - y0), abs=0.01)


@pytest.mark.parametrize("told", [None, {}, {"ece": 0.0, "bins": BINS[1:2]}])
def test_no_calibration_is_no_chart(told):
    assert describe_calibration(told) is None


def test_intervals_and_pairs_are_those_of_the_evaluation(run, tmp_path):
    pairs = [{"label": "plain", "predicted": CLASSES[1], "count": 3}]
    told = {"interval_95": [0.41, 0.95], "interval_95_top_5": [0.76, 1.0]}
    text = text_of(run, tmp_path, evaluation=told | {"confusion_pairs": pairs})
    assert text.count("95 % interval 41.0 % to 95.0 %") == 2
    assert "95 % interval 76.0 % to 100.0 %" in text
    assert f"true predicted times of plain {CLASSES[1]} 3 4" in text


def test_a_diagnosis_is_told_with_what_it_would_be_worth(run, tmp_path):
    finding = {"cause": "labels", "explanation": "shifted by <one>", "top_1": 0.75}
    told = [finding | {"top_1_before": 0.001, "num_examples": 256}]
    text = text_of(run, tmp_path, evaluation={"diagnosis": told})
    words = "labels : shifted by <one>. Mended, top-1 is 75.0 % instead of 0.1 %, on 256 photos."
    assert words in text
    (tmp_path / "more").mkdir()
    assert "None of the causes" in text_of(run, tmp_path / "more", evaluation={"diagnosis": []})


def test_a_mistake_is_found_by_its_number_if_that_is_the_file_and_by_name_if_not(run):
    data = DataSet(run["data_dir"])
    # Four a class, in the order of the classes: number 5 is 1.JPEG of the second.
    wanted = [(CLASSES[1], "1.JPEG", number) for number in (5, 0, 999, -1, None, "5")]
    pictures = data.pictures(wanted, first_split="validation")
    assert pictures[0] and set(pictures) == {pictures[0]}
    assert data.pictures([(CLASSES[1], "9.JPEG", 5)], first_split="validation") == [None]


def test_a_part_of_a_split_has_the_pictures_of_the_split(run, tmp_path):
    text = text_of(run, tmp_path, evaluation={"split": "validation[:6]"})
    assert "Evaluated on the validation[:6] data below: manifest matches" in text
    assert text.count("not in this data set") == 1


def test_the_parity_table_has_a_row_an_artifact(run, tmp_path):
    text = text_of(run, tmp_path, export={"parity": PARITY})
    assert "SavedModel, serving_jpeg ✓ passes 2e-7 1e-5 100.0 % 93.8 % ±0.0 points" in text
    row = "LiteRT int8 first diverging layer: Conv2d_7 cause: channel order"
    assert f"{row} ✗ over the limit 0.25 – 75.0 % 87.5 % −6.2 points" in text
    assert "on 32 images of the data set. Where probabilities have no limit" in text


def test_a_parity_of_earlier_exports_takes_its_verdict_from_the_common_limit():
    rows = [{"artifact": "a", "largest_probability_difference": d} for d in (1e-6, 1e-4)]
    parity = describe_export({"parity": {"limit": 1e-5, "rows": rows}})["parity"]
    assert [row["passed"] for row in parity["rows"]] == [True, False]
    assert not parity["passed"] and not parity["columns"]["top_1"]


def test_artifacts_have_their_sizes_hashes_and_notes(run, tmp_path):
    artifact = {"format": "litert_int8", "path": "litert/int8.tflite", "bytes": 567_890}
    told = [artifact | {"sha256": "cd34" * 16, "notes": "2 layers kept wider"}]
    text = text_of(run, tmp_path, export={"artifacts": told})
    assert f"LiteRT int8 2 layers kept wider litert/int8.tflite 567.9 kB {'cd34' * 16}" in text


def test_the_model_stands_over_its_own_cost_among_the_released_ones():
    evaluation = {"top_1": 0.415, "interval": (0.36, 0.47)}
    cost = describe_cost(V1, "mine", evaluation, {}, comparable=True)
    row = find_row("mobilenet_v1_0.25_128")
    assert round(cost["macs"] / 1e6) == row.macs_millions
    assert "mine, 41.5 %" in str(cost["chart"])
    # The released one of this size has a blob and a ring; with its accuracy, the mark is there too.
    own = last_dot(cost["chart"])
    assert row.top_1 == 41.5
    assert sum(at == pytest.approx(own, abs=0.01) for at in dots(cost["chart"])) == 3
    higher = describe_cost(V1, "mine", {"top_1": 0.65}, {}, comparable=True)
    assert sum(at[0] == own[0] for at in dots(higher["chart"])) == 3
    assert last_dot(higher["chart"])[1] < own[1]


def test_the_cost_of_an_unknown_model_is_not_told(run, tmp_path):
    cost = describe_cost({"name": "mobilenet_v9"}, "x", {"top_1": 0.5}, {}, comparable=False)
    assert cost["macs"] is None and cost["phones"] is None and not cost["on_chart"]
    assert "this model's that on other data" not in text_of(run, tmp_path)


def test_accuracies_on_other_data_are_not_compared(run, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model": V1}))
    flags = run | {"model_dir": str(tmp_path / "model")}
    text = Page(report_of(tmp_path, **flags)).text
    assert "this model's that on other data, with 3 classes: compare what they cost" in text


def test_published_latencies_are_the_familys_or_of_the_nearest_in_cost():
    v2 = V1 | {"name": "mobilenet_v2", "width_multiplier": 1.0, "input_shape": [224, 224, 3]}
    phones = describe_cost(v2, "x", {}, {}, comparable=False)["phones"]
    (same,) = (row for row in phones["rows"] if row["same"])
    row = find_row("mobilenet_v2_1.0_224")
    assert phones["of_family"] and same["latencies"][0] == row.pixel1_ms == 73.8
    # None was published for V1.
    phones = describe_cost(V1, "x", {}, {}, comparable=False)["phones"]
    assert not phones["of_family"]
    assert phones["rows"][0]["name"] == "mobilenet_v2_0.35_96"


def test_latencies_are_told_with_the_machine_and_the_other_library(run, tmp_path):
    text = text_of(run, tmp_path, latency=LATENCY)
    assert "SavedModel 1 4.00 3.50 to 5.25" in text
    assert "LiteRT int8 of another 2 0.50 – to –" in text
    machine = "On abacus, 2 cores, tensorflow 9, busy with other work (load 3.2)."
    assert f"Batches of 1. {machine}" in text
    found = describe_latency(LATENCY)
    assert found["fastest"]["median_ms"] == 1.0  # ours, not the other's
    assert [row["share"] for row in found["rows"]] == [1.0, 0.25, 0.125]


@pytest.mark.parametrize(
    ("right", "verdict"), [(486, "as expected"), (470, "below"), (502, "above"), (None, "")]
)
def test_what_was_reached_is_held_against_the_recipe_with_its_interval(right, verdict):
    top_1 = None if right is None else right / 502
    evaluation = {"top_1": top_1, "interval": accuracy_interval(right, 502)}
    experiment = dataclasses.replace(DEMO, accuracy="about .97")
    told = describe_expectation(experiment, {}, evaluation, comparable=False)
    assert (told["expected"], told["verdict"]) == ("about 97\xa0%", verdict)


def test_a_recipe_that_promises_nothing_has_no_verdict():
    experiment = dataclasses.replace(DEMO, accuracy="not measured")
    told = describe_expectation(experiment, {}, {"top_1": 0.5}, comparable=False)
    assert (told["expected"], told["verdict"]) == ("not measured", "")


def test_changes_of_the_recipe_are_named(run, tmp_path):
    recipe = DEMO.recipe
    (tmp_path / "model").mkdir()
    config = {
        "model": V1 | {"input_shape": [96, 96, 3]},
        "optimization": json.loads(json.dumps(dataclasses.asdict(recipe.optimization)))
        | {"epochs": 1},
        "augmentation": json.loads(json.dumps(dataclasses.asdict(recipe.augmentation))),
    }
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    flags = run | {"model_dir": str(tmp_path / "model"), "experiment": "demo"}
    text = Page(report_of(tmp_path, **flags)).text
    assert "expected of the recipe demo about 97 %" in text
    assert f"no promise for this run: epochs 1 instead of {recipe.optimization.epochs}." in text
    assert "below it" not in text


def test_published_figures_are_subtracted_on_the_same_data_alone():
    published = {"name": "n", "top_1": 0.7, "top_5": 0.9, "source": "s"}
    evaluation = {"top_1": 0.72, "top_5": None, "published": published}
    told = describe_expectation(None, {}, evaluation, comparable=True)["published"]
    assert told["differences"] == [pytest.approx(0.02), None]
    told = describe_expectation(None, {}, evaluation, comparable=False)["published"]
    assert told["differences"] == [None, None]
    assert describe_expectation(None, {}, {"top_1": 0.5}, comparable=True) is None


def test_an_unknown_experiment_is_one_clear_line(run, tmp_path):
    with pytest.raises(UserError, match="unknown experiment 'x'"):
        report_of(tmp_path, **run, experiment="x")


def hostile(value):
    """The same value with every text in it replaced by HTML, and keys that are names too."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


def test_no_text_of_any_input_escapes_into_the_page(run, tmp_path):
    with open(run["evaluation"], encoding="utf-8") as file:
        evaluation = json.load(file) | {"calibration": {"ece": 0.1, "bins": BINS}}
    evaluation |= {
        "published": {"name": "n", "top_1": 0.7, "top_5": 0.9, "source": "s"},
        "diagnosis": [{"cause": "c", "explanation": "e", "top_1": 0.7}],
        "confusion_pairs": [{"label": "a", "predicted": "b", "count": 3}],
        "notes": ["note"],
    }
    artifacts = [{"format": "f", "path": "p", "bytes": 1, "sha256": "s", "notes": "n"}]
    signatures = {HOSTILE: {"inputs": {HOSTILE: HOSTILE}, "outputs": {HOSTILE: HOSTILE}}}
    flags = changed(
        run,
        tmp_path,
        evaluation=hostile(evaluation),
        export=hostile({"parity": PARITY, "artifacts": artifacts}) | {"signatures": signatures},
        latency=hostile(LATENCY),
    )
    (tmp_path / "model").mkdir()
    for name in ("config", "history"):
        with open(f"{run['model_dir']}/{name}.json", encoding="utf-8") as file:
            value = hostile(json.load(file))
        (tmp_path / "model" / f"{name}.json").write_text(json.dumps(value))
    flags["model_dir"] = str(tmp_path / "model")
    page = Page(report_of(tmp_path, **flags))
    assert page.text.count(HOSTILE) > 30
    for tag, attributes in page.elements:
        assert tag != "script"
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("src", "data:").startswith("data:"), attributes


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("evaluation", {"per_class": "x"}, "pipeline.evaluate"),
        ("evaluation", {"calibration": [1]}, "pipeline.evaluate"),
        ("evaluation", {"mistakes": [7]}, "pipeline.evaluate"),
        ("evaluation", {"confusion_pairs": [{}]}, "pipeline.evaluate"),
        ("export", {"artifacts": [1]}, "pipeline.export"),
        ("export", {"parity": "none"}, "pipeline.export"),
        ("latency", {"rows": 5}, "benchmarks.latency"),
    ],
)
def test_foreign_content_is_one_clear_line(run, tmp_path, name, value, command):
    with pytest.raises(UserError, match=f"is not as {command} writes it") as error:
        report_of(tmp_path, **changed(run, tmp_path, **{name: value}))
    assert f"/{name}" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_numbers_are_written_as_people_read_them():
    assert [wording.milliseconds(value) for value in (0.414, 12.34, 123.4, None)] == [
        *("0.41", "12.3", "123"),
        wording.UNKNOWN,
    ]
    assert [wording.points(value) for value in (0.0123, -0.05, 0.0001)] == [
        *("+1.2\xa0points", "−5.0\xa0points", "±0.0\xa0points"),
    ]
    short = [wording.short(value) for value in (1e-4, 7.14e-4, 0.0261, 0, True)]
    assert short == ["1e-4", "7.1e-4", "0.026", "0", wording.UNKNOWN]
    assert wording.artifact("saved_model, serving_jpeg") == "SavedModel, serving_jpeg"
    assert wording.artifact("other, thing") == "other, thing"
