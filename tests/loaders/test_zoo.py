import csv
import json
import re
import subprocess
import sys
from decimal import Decimal

import pytest

from common.command import run_to_exit_code
from common.errors import UsageError
from loaders.zoo import REASONS, ZooConfig, agreement, compare, find_row, load_zoo, show_zoo
from loaders.zoo_plot import PlotConfig, draw, plot_zoo

SEED_COLUMNS = {
    "name": "name",
    "label": "label",
    "resolution": "resolution",
    "macs_published_M": "macs_millions",
    "params_published_M": "parameters_millions",
    "top1": "top_1",
    "top5": "top_5",
    "pixel1_ms": "pixel1_ms",
    "pixel2_ms": "pixel2_ms",
    "pixel3_ms": "pixel3_ms",
    "pixel4_edgetpu_ms": "pixel4_edgetpu_ms",
    "pixel4_cpu_ms": "pixel4_cpu_ms",
    "url": "url",
}


def test_the_table_holds_every_released_checkpoint_once():
    rows = load_zoo()
    assert len(rows) == 87
    assert len({row.name for row in rows}) == len({row.url for row in rows}) == 87
    families = [row.model_name for row in rows]
    assert families.count("mobilenet_v1") == 32
    assert families.count("mobilenet_v2") == 44
    for row in rows:
        assert row.url.endswith(f"/{row.name}.tgz")
        assert row.config().name == row.model_name
        assert row.config().resolution == (row.resolution, row.resolution)
        assert row.config().num_classes == 1001
        assert row.weights == ("raw" if row.model_name == "mobilenet_edgetpu" else "averages")


def test_the_table_agrees_with_the_seed(reference_data):
    table = reference_data.parent / "seed" / "zoo.csv"
    if not table.exists():
        pytest.skip(f"no {table}")
    theirs = {row["name"]: row for row in csv.DictReader(table.open(encoding="utf-8"))}
    for row in load_zoo():
        for their_name, name in SEED_COLUMNS.items():
            word, value = theirs[row.name][their_name], getattr(row, name)
            if value is None:
                assert word == "", (row.name, name)
            else:
                assert type(value)(word) == value, (row.name, name)
        assert row.width_multiplier == float(theirs[row.name]["width"])
        assert row.quantized == (theirs[row.name]["quantized"] == "yes")


def test_a_row_is_found_by_its_name_and_by_its_label():
    assert find_row("mobilenet_v1_0.25_128").config().width_multiplier == 0.25
    row = find_row("Large dm=0.75 (float)")
    assert (row.model_name, row.width_multiplier) == ("mobilenet_v3_large", 0.75)
    assert (row.macs_millions, row.parameters_millions) == (Decimal("155"), Decimal("4.0"))
    assert (row.top_1, row.top_5, row.pixel3_ms) == (73.3, None, 34.0)


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(UsageError, match=r"mobilenet_v2_1\.0_224") as error:
        find_row("mobilenet_v2_1.0_225")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"loaders\.zoo"):
        find_row("resnet")


@pytest.mark.parametrize(
    "printed, exact, expected",
    [
        ("569", 568_741_376, "rounded"),
        ("300", 300_775_552, "truncated"),
        ("150", 149_497_600, "differs"),
        ("4.0", 3_994_809, "rounded"),
        ("4", 4_092_713, "rounded"),
        ("4.0", 4_092_713, "truncated"),
        ("2.9", 2_543_881, "differs"),
    ],
)
def test_how_a_printed_figure_follows_from_the_exact_one(printed, exact, expected):
    assert agreement(Decimal(printed), exact) == expected


def test_every_difference_has_a_reason_and_every_reason_a_difference():
    used = set()
    for row in load_zoo():
        found = compare(row)
        kinds = {found["macs_agreement"], found["parameters_agreement"]}
        assert ("differs" in kinds) == bool(row.reason), row.name
        if row.reason:
            assert found["reason"] == REASONS[row.reason]
            used.add(row.reason)
    assert used == set(REASONS)


def test_v1_at_three_quarters_was_published_without_its_first_convolution():
    for row in load_zoo():
        if row.reason == "stem_left_out":
            first = (row.resolution // 2) ** 2 * 3 * 3 * 3 * 24
            assert agreement(row.macs_millions, compare(row)["macs"] - first) == "rounded"


def test_the_command_prints_all_figures_uncut_and_writes_them(tmp_path):
    output = tmp_path / "zoo.json"
    done = subprocess.run(
        [sys.executable, "-m", "loaders.zoo", f"--output={output}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "…" not in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("quantized_v2_192_50"))
    assert re.split(r"\s{2,}|\s(?=truncated)", line.strip()) == [
        "quantized_v2_192_50", "71", "71.703", "truncated", "1.95", "1.951", "without batch norm"
    ]  # fmt: skip
    written = json.loads(output.read_text(encoding="utf-8"))
    assert [row["name"] for row in written] == [row.name for row in load_zoo()]
    assert written[0]["macs"] == 216_591_040
    assert written[0]["parameters"]["trainable"] == 5_484_313


def test_a_wrong_ending_is_one_line_and_exit_code_2(tmp_path, capsys):
    for main, config in ((show_zoo, ZooConfig), (plot_zoo, PlotConfig)):
        assert run_to_exit_code(main, config, argv=["x", f"--output={tmp_path}/zoo.txt"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "zoo.txt must end in" in lines[0]
    assert not list(tmp_path.iterdir())


def test_the_picture_is_the_same_each_time_and_shows_every_model_with_a_published_accuracy():
    rows = load_zoo()
    picture = draw(rows, "svg")
    assert picture == draw(rows, "svg")
    assert picture == draw([row for row in rows if row.top_1], "svg")
    for name in ("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224_quant", "mobilenet_edgetpu_224_1.0"):
        assert picture != draw([row for row in rows if row.name != name], "svg")
    assert len(picture) < 250_000
    assert draw(rows, "png").startswith(b"\x89PNG")
