"""Times and prices on the pages are those that the estimate gives today."""

import dataclasses
import math
import re

import pytest

from pipeline.cloud import rates
from pipeline.cloud.estimate import estimate
from pipeline.cloud.topologies import find_topology
from pipeline.experiments import find_experiment
from pipeline.recipes.published_tf1 import STEP_RATES

from .pages import PAGES, ROOT, name_of, table_rows

ESTIMATES = "| recipe | machine | hours | at list price | at spot price |"
OWN_MACHINE = "| recipe | hours | cores | top-1 |"
ESTIMATED = [
    pytest.param(row, id=f"{name_of(page)} {row[0]} {row[1]}")
    for page in PAGES
    for row in table_rows(page.read_text(encoding="utf-8"), ESTIMATES)
]
OWN = table_rows((ROOT / "docs/gpu_machine.md").read_text(encoding="utf-8"), OWN_MACHINE)


def estimated_row(recipe: str, topology: str) -> list[str]:
    """The row that a page should have."""
    experiment = find_experiment(recipe)
    distribution = dataclasses.replace(experiment.recipe.distribution, precision="bfloat16")
    changed = dataclasses.replace(experiment.recipe, distribution=distribution)
    found = estimate(
        dataclasses.replace(experiment, recipe=changed), find_topology(topology), spot=False
    )
    prices = (f"${dollars:,.0f}" for dollars in (found.dollars, found.other_dollars))
    return [f"`{recipe}`", f"`{topology}`", f"{found.hours:.1f}", *prices]


@pytest.mark.parametrize("row", ESTIMATED)
def test_a_page_has_the_estimate_of_today(row):
    assert row == estimated_row(row[0].strip("`"), row[1].strip("`"))


def test_the_pages_of_the_clouds_machines_have_estimates():
    pages = {parameter.id.partition(" ")[0] for parameter in ESTIMATED}
    assert {"docs/gpu_machine.md", "docs/vertex.md", "docs/tpu.md"} <= pages


@pytest.mark.parametrize("page", ["gpu_machine", "vertex", "tpu"])
def test_a_page_with_estimates_says_the_precision_that_they_are_for(page):
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    assert "`--precision=bfloat16`" in text.partition("\n## What it costs\n")[2]


@pytest.mark.parametrize("row", OWN, ids=[row[0] for row in OWN])
def test_the_hours_of_an_own_card_are_the_recipes_and_its_cores_follow_from_them(row):
    name, hours, cores, accuracy = row
    experiment = find_experiment(re.match("`(.*)`", name)[1])
    assert experiment.hardware.startswith("one RTX 3090")
    assert f"{hours} h" == experiment.time
    rate = STEP_RATES[experiment.recipe.model.model_name]
    milliseconds = rates.CROP_MS + rates.policy_ms(experiment.recipe.augmentation)
    assert int(cores) == math.ceil(rate * milliseconds / 1000)
    assert accuracy in (experiment.accuracy.partition(" ")[0], "not measured")


def test_the_first_page_says_what_the_others_say():
    text = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    recipe = "mobilenet_v3_large_timm"
    for topology, devices in {"gpu-8": "eight A100", "tpu-v5e": "four chips of a v5e"}.items():
        *_, hours, dollars, spot = estimated_row(recipe, topology)
        assert f"{hours} hours on {devices} | {dollars}, spot {spot} |" in text
    assert f"{find_experiment(recipe).time[:-2]} hours on an RTX 3090" in text
