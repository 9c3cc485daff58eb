"""Estimates, done again by hand from published figures and the prices written out here."""

import dataclasses
import datetime
import re
from fractions import Fraction

import pytest

from pipeline.cloud import rates
from pipeline.cloud.estimate import estimate, estimate_build, show
from pipeline.cloud.machines import MACHINE_TYPES
from pipeline.cloud.prices import SOURCES, prices
from pipeline.cloud.topologies import BUILD, TOPOLOGIES, Machine, Topology
from pipeline.experiments import EXPERIMENTS
from training.config import ModelFlags
from training.models.configs import model_names

# 600 epochs of V3-Large, batches of 1,024, RandAugment of two transforms, float32; 99 % of
# ImageNet's 1,281,167 photos are trained on, 12,812 are evaluated after each epoch.
V3_LARGE = EXPERIMENTS["mobilenet_v3_large_timm"]
IMAGES = 600 * 1_268_355
STEPS = 743_177  # 761,013,000 / 1,024, the last batch begun
# Keras' MobileNetV3Large has 5,507,432 parameters, of which 5,483,032 are trained: weights and
# their averages, and two slots of RMSProp, in float32.
CHECKPOINT = 4 * (2 * 5_507_432 + 2 * 5_483_032)
SAVES = STEPS // 500 + 600

# RTX 3090 (timm) -> A100 of 80 GB (EfficientNet-B0, TF32) -> of 40 GB -> 8 in a host -> 16 in two.
A100_HOST = 2_732 * (9_119 / 1_752) * (1_555 / 2_039)
TWO_HOSTS = 17_815 / 9_119 / 2
L4 = 2_732 * (300 / 936) * (1_209 / 3_454)


def changed(group, **values):
    """V3-Large with other flags of one group."""
    recipe = V3_LARGE.recipe
    other = dataclasses.replace(getattr(recipe, group), **values)
    return dataclasses.replace(V3_LARGE, recipe=dataclasses.replace(recipe, **{group: other}))


def hours_by_hand(speed):
    """Start, training, two evaluations after each epoch, checkpoints."""
    return (
        10 / 60
        + IMAGES / speed / 3600
        + 600 * 2 * 12_812 / (3 * speed) / 3600
        + SAVES * (1 + CHECKPOINT / 100e6) / 3600
    )


@pytest.mark.parametrize(
    ("topology", "speed", "input_speed", "machines", "spot_machines", "num_machines"),
    [
        ("gpu-1", L4, 16_000 / 3.4, 1.147208303, 0.688124, 1),
        ("gpu-8", A100_HOST, 96_000 / 3.4, 29.38708, 16.96648, 1),
        (
            "gpu-4x8",
            4 * A100_HOST * TWO_HOSTS**2,
            4 * 96_000 / 3.4,
            4 * 29.38708,
            4 * 16.96648,
            4,
        ),
    ],
)
def test_v3_large_on_three_topologies(
    topology, speed, input_speed, machines, spot_machines, num_machines
):
    made = estimate(V3_LARGE, TOPOLOGIES[topology])

    assert made.num_steps == STEPS
    assert made.throughput.devices == pytest.approx(speed)
    assert made.throughput.input == pytest.approx(input_speed)
    assert made.throughput.binds == "devices"
    hours = hours_by_hand(speed)
    assert made.hours == pytest.approx(hours)
    disk = num_machines * 100 * 0.17 / 730 * hours
    fee = 0.15 * (machines * hours + disk)
    assert made.dollars == pytest.approx(machines * hours + disk + fee)
    assert made.other_dollars == pytest.approx(spot_machines * hours + disk + fee)
    data = 1_281_167 * 110_000 / 2**30
    # Three checkpoints and one in writing; the best weights, raw and averaged, old and new.
    run = (4 * CHECKPOINT + 4 * 4 * 5_507_432) / 2**30
    assert made.dollars_a_month == pytest.approx(0.02 * (data + run))

    text = show(made)
    for figure in (
        f"{STEPS:,}",
        f"{speed:,.0f}",
        f"{input_speed:,.0f}",
        f"{made.hours:,.2f} h",
        f"${made.dollars:,.2f}",
        f"at spot prices ${made.other_dollars:,.2f}",
        "2026-08-27",
    ):
        assert figure in text


def test_all_parts_and_lines_are_in_the_sum():
    made = estimate(V3_LARGE, TOPOLOGIES["gpu-8"])
    assert [part.name for part in made.parts] == ["start", "training", "evaluation", "checkpoints"]
    assert made.hours == pytest.approx(sum(part.hours for part in made.parts))
    assert made.dollars == pytest.approx(sum(line.quantity * line.price for line in made.lines))
    text = show(made)
    dollars = [float(found.replace(",", "")) for found in re.findall(r"\$([\d,]+\.\d\d)  ", text)]
    *lines, together = dollars[: len(made.lines) + 1]
    assert together == pytest.approx(sum(lines), abs=0.02)


def test_spot_prices_are_a_topologys_own_or_asked_for():
    spot, listed = TOPOLOGIES["gpu-1-spot"], TOPOLOGIES["gpu-1"]
    made = estimate(V3_LARGE, spot)
    assert made.spot and made.dollars < made.other_dollars
    assert estimate(V3_LARGE, listed, spot=True).dollars == made.dollars
    assert estimate(V3_LARGE, spot, spot=False).dollars == made.other_dollars
    assert any("taken away" in said for said in made.assumptions)
    assert "together, at spot prices" in show(made)


def test_input_binds_where_processors_are_few():
    small = EXPERIMENTS["mobilenet_v3_small_torchvision"]  # AutoAugment, 1.9 ms
    made = estimate(small, TOPOLOGIES["gpu-4x8"]).throughput
    assert made.binds == "input"
    assert made.images_per_second == made.input == pytest.approx(4 * 96_000 / 3.3)
    plain = dataclasses.replace(
        small.recipe,
        augmentation=dataclasses.replace(small.recipe.augmentation, augmentation="inception"),
    )
    plainly = estimate(dataclasses.replace(small, recipe=plain), TOPOLOGIES["gpu-4x8"]).throughput
    assert plainly.input == pytest.approx(4 * 96_000 / 1.4)
    assert plainly.binds == "devices"


def test_processors_decode_and_compute_one_after_the_other():
    made = estimate(V3_LARGE, TOPOLOGIES["cpu"]).throughput
    step = 8 * 32 / 0.985 / 2
    assert made.devices == pytest.approx(step)
    assert made.images_per_second == pytest.approx(1 / (1 / step + 3.4 / 8_000))


def test_mixed_precision():
    topology = TOPOLOGIES["gpu-8"]
    made = estimate(changed("distribution", precision="bfloat16"), topology)
    speed = 2_732 * (20_647 / 1_752) * (1_555 / 2_039)
    assert made.throughput.devices == pytest.approx(speed)
    plain = estimate(V3_LARGE, topology)
    assert plain.throughput.mixed_gain == pytest.approx(speed / plain.throughput.devices)
    assert any("2.3 times as fast" in said for said in plain.assumptions)
    assert not any("times as fast" in said for said in made.assumptions)


@pytest.mark.parametrize(
    ("topology", "speed"),
    [
        ("tpu-v2", 2_732 / 1_752 * 350 * 1_281_167 / 82_800),
        ("tpu-v3", 2_732 / 1_752 * 350 * 1_281_167 / 82_800 * 9 / 7),
        ("tpu-v5e", 2_732 / 1_752 * 350 * 1_281_167 / 82_800 * 819 / 700),
    ],
)
def test_tpus(topology, speed):
    made = estimate(V3_LARGE, TOPOLOGIES[topology])
    assert made.throughput.images_per_second == pytest.approx(speed)
    assert made.lines[0].price == {"tpu-v2": 4.5, "tpu-v3": 8, "tpu-v5e": 4.8}[topology]


def test_evaluations_and_checkpoints_are_as_the_recipe_has_them():
    def hours(experiment, name, **counts):
        parts = estimate(experiment, TOPOLOGIES["gpu-8"], **counts).parts
        return {part.name: part.hours for part in parts}.get(name)

    usual = hours(V3_LARGE, "evaluation")
    assert hours(changed("optimization", ma_decay_rate=0.0), "evaluation") == usual / 2
    seldom = changed("run", eval_every_epochs=7)  # 86 times in 600 epochs
    assert hours(seldom, "evaluation") == pytest.approx(usual * 86 / 600)
    assert hours(changed("data", eval_split=""), "evaluation") is None
    all_of_it = changed("data", train_split="train", eval_split="validation")
    assert hours(all_of_it, "evaluation") == pytest.approx(usual * 50_000 / 12_812)
    rare = changed("run", checkpoint_every_steps=10**6)
    assert hours(rare, "checkpoints") == pytest.approx(hours(V3_LARGE, "checkpoints") * 600 / SAVES)
    counts = {"num_train_examples": 1_000, "num_eval_examples": 100}
    assert hours(V3_LARGE, "training", **counts) == pytest.approx(600_000 / A100_HOST / 3600)
    assert hours(V3_LARGE, "evaluation", **counts) == pytest.approx(usual * 100 / 12_812)


def test_whose_number_of_images_it_is():
    def says_imagenet(**counts):
        made = estimate(V3_LARGE, TOPOLOGIES["gpu-1"], **counts)
        return any("ImageNet's in number" in said for said in made.assumptions)

    assert says_imagenet()
    assert not says_imagenet(num_train_examples=1_000, num_eval_examples=100)


def test_helpers_are_charged_for_the_whole_time():
    plain = TOPOLOGIES["gpu-4x8"]
    helped = dataclasses.replace(
        plain, reduction_servers=3, evaluator=Machine("g2-standard-16", "NVIDIA_L4", 1)
    )
    at_the_end = changed("run", eval_every_epochs=600)
    made, alone = estimate(at_the_end, helped), estimate(V3_LARGE, plain)
    evaluation = next(part.hours for part in alone.parts if part.name == "evaluation")
    # The workers evaluate once, at the end: the averages, and the raw weights.
    assert made.hours == pytest.approx(alone.hours - evaluation * 599 / 600)
    each_hour = 4 * 29.38708 + 3 * 0.5667888 + 1.147208303 + 8 * 100 * 0.17 / 730
    assert made.dollars == pytest.approx(1.15 * each_hour * made.hours)


def test_gpus_of_an_n1_are_charged_by_themselves():
    machine = Machine("n1-standard-16", "NVIDIA_TESLA_V100", 2)
    made = estimate(V3_LARGE, Topology("v100", "", machine, 1, "mirrored", 2))
    each_hour = 0.759996 + 2 * 2.48 + 100 * 0.17 / 730
    assert made.dollars == pytest.approx(1.15 * each_hour * made.hours)


def test_what_is_not_known_is_said():
    t4 = Topology("t4", "", Machine("n1-standard-8", "NVIDIA_TESLA_T4", 1))
    made = estimate(V3_LARGE, t4)
    assert made.hours > 0
    assert made.dollars is None and made.other_dollars is None
    assert "The price of 1 NVIDIA_TESLA_T4 is not known." in made.assumptions
    assert "no price is known" in show(made)

    h100 = Topology("h100", "", Machine("a3-highgpu-8g", "NVIDIA_H100_80GB", 8), replicas=8)
    made = estimate(V3_LARGE, h100)
    assert (made.num_steps, made.hours, made.dollars) == (STEPS, None, None)
    assert "this machine is not in the tables" in show(made)

    gpu = Topology("p4", "", Machine("n1-standard-8", "NVIDIA_TESLA_P4", 1))
    made = estimate(V3_LARGE, gpu)
    assert (made.hours, made.dollars) == (None, None)
    assert "hours not known" in show(made)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_each_topology_has_speed_and_price_and_fits_the_screen(topology):
    for experiment in EXPERIMENTS.values():
        made = estimate(experiment, TOPOLOGIES[topology])
        assert made.dollars > 0 and made.other_dollars > 0
    text = show(made)
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    for said in (*made.assumptions, *(SOURCES[line.source] for line in made.lines)):
        assert said in flat


@pytest.mark.parametrize("width", [0.5, 1.4])
def test_a_widths_speed_follows_from_another_width(monkeypatch, width):
    published = rates.MODEL_RATES["mobilenet_v2", width]
    flags = ModelFlags(model_name="mobilenet_v2", width_multiplier=width)
    assert rates.reference_rate(flags)[0] == published
    monkeypatch.delitem(rates.MODEL_RATES, ("mobilenet_v2", width))
    assert rates.reference_rate(flags)[0] == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize("name", model_names())
def test_each_model_has_a_speed(name):
    speed, how = rates.reference_rate(ModelFlags(model_name=name))
    assert 500 < speed < 20_000
    assert f"{name} 1 at " in how


def test_a_model_without_a_published_speed_goes_by_its_like():
    # V1 from its paper's table: side, channels in and out of each depthwise pair; V2's sum.
    pairs = [(112, 32, 64), (56, 64, 128), (56, 128, 128), (28, 128, 256), (28, 256, 256)]
    pairs += [(14, 256, 512), *[(14, 512, 512)] * 5, (7, 512, 1024), (7, 1024, 1024)]
    v1 = 112**2 * 32 + sum(side**2 * (before + after) for side, before, after in pairs) + 1_000
    speed, how = rates.reference_rate(ModelFlags(model_name="mobilenet_v1"))
    assert speed == pytest.approx(2_313 * 6_679_112 / v1)
    assert "from mobilenet_v2 1 at 2,313 images/s" in how


def test_a_smaller_image_is_faster_in_proportion():
    whole, how = rates.reference_rate(ModelFlags(model_name="mobilenet_v3_small"))
    half, how_half = rates.reference_rate(
        ModelFlags(model_name="mobilenet_v3_small", resolution=112)
    )
    assert 3.5 < half / whole <= 4
    assert "divided" not in how and "at 112 pixels" in how_half


@pytest.mark.parametrize(
    ("topology", "small"), [("gpu-1", False), ("gpu-8", False), ("gpu-4x8", True)]
)
def test_small_batches_are_warned_of(topology, small):
    made = estimate(V3_LARGE, TOPOLOGIES[topology])
    assert any("a replica are few" in said for said in made.assumptions) == small


def test_prices_are_dated_and_agree_with_each_other():
    table = prices()
    for row in table.values():
        assert row.dollars > 0 and row.source in SOURCES
        assert row.spot_dollars is None or 0 < row.spot_dollars < row.dollars
        assert not row.date or datetime.date.fromisoformat(row.date)
        assert row.date or "no date" in SOURCES[row.source] or "no dated" in SOURCES[row.source]
        if found := re.fullmatch(r"[negc]\d\w*-\w+-(\d+)", row.name):
            assert row.vcpus == int(found[1])
    # What Vertex AI's own page has for this machine.
    assert 1.15 * table["n1-standard-4"].dollars == pytest.approx(0.21849885)
    # Read from the list, while the table's were put together from other sizes.
    assert table["g2-standard-24"].dollars == pytest.approx(2.000832574)
    assert table["n1-highmem-96"].dollars == pytest.approx(5.678544)


def test_machines_of_the_table_are_those_of_vertex_ai():
    no_machines = {"NVIDIA_TESLA_V100", "pd-ssd", "bucket"}
    names = {name.split(" TPU")[0] for name in prices() if not name.startswith("dataflow ")}
    assert names - set(MACHINE_TYPES) == no_machines


def test_build_on_dataflow():
    made = estimate_build(1_000_000, machine_type="n2-standard-4", num_workers=20)
    hours = 0.1 + 1_000_000 / (20 * 4 * 500) / 3600
    assert made.hours == pytest.approx(hours)
    each_hour = 20 * (4 * 0.056 + 16 * 0.003557 + 25 * 0.000054)
    assert made.dollars == pytest.approx(each_hour * hours)
    assert made.dollars_a_month == pytest.approx(float(Fraction(11 * 10**10, 2**30)) * 0.02)
    text = show(made)
    assert "0.000054 (GiB-hour)" in text and "no date" in text
    assert max(map(len, text.splitlines())) <= 100


def test_build_on_a_machine_that_is_not_known():
    made = estimate_build(1_000, machine_type="no-such-machine")
    assert (made.hours, made.dollars) == (None, None)
    assert estimate_build(1_000, machine_type=BUILD.machine.machine_type).dollars > 0
