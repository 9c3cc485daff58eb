"""What a job takes and costs, by arithmetic on tables: nothing is asked of the cloud.

`estimate` is for a training, `estimate_build` for the data build on Dataflow. Both give all parts
of the sum, and what was assumed for them, so that whoever knows better can do the sum again.
"""

from __future__ import annotations

import dataclasses
import io
import math
import textwrap
from collections.abc import Iterable

from pipeline.cloud import rates
from pipeline.cloud.bill import Line, bill_training, machines_of, make_line, price_of, total
from pipeline.cloud.prices import REGION, SOURCES, find_price
from pipeline.cloud.rates import Throughput
from pipeline.cloud.topologies import Topology
from pipeline.recipes.experiment import Experiment
from training.config import Recipe
from training.dry_run import checkpoint_bytes, num_steps, run_bytes
from training.readers.slices import parse_split

IMAGENET_TRAIN, IMAGENET_VALIDATION = 1_281_167, 50_000
MEAN_IMAGE_BYTES = 110_000  # of ImageNet's photos
NUM_CLASSES = 1000

# Not measured; an estimate says each of them.
START_MINUTES = 10.0
CHECKPOINT_SECONDS, UPLOAD_BYTES_PER_SECOND = 1.0, 100e6
BUILD_START_MINUTES, BUILD_IMAGES_PER_VCPU, BUILD_DISK_GIB = 6.0, 500.0, 25

# Below this many images a replica the published rates, of some hundred each, promise too much.
_SMALL_BATCH = 64

_BINDS = {
    "devices": "the step binds",
    "input": "the input binds",
    "processors": "the processors do both, one after the other",
}


@dataclasses.dataclass(frozen=True)
class Fact:
    """A size that something follows from: its name, its value, and how it was come by."""

    name: str
    value: str
    how: str


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of time: what is done in it, its hours, and how they were come by."""

    name: str
    hours: float
    how: str


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long something takes, and what it costs.

    Attributes:
        title: what, and on which machines.
        facts: the sizes that the parts follow from.
        parts: all that takes time, one after the other; empty where the speed is not known.
        lines: what is charged once.
        monthly: what is charged for each month that data and results are kept.
        spot: whether `lines` are at spot prices.
        other_dollars: the sum of `lines` at the other kind of price, list or spot; None where
            there is none, or it is not known.
        assumptions: what would change the sum if it were otherwise, a sentence each.
        num_steps: updates of the training; 0 for a build.
        throughput: images a second of the training; None for a build, or if it is not known.
    """

    title: str
    facts: tuple[Fact, ...]
    parts: tuple[Part, ...]
    lines: tuple[Line, ...]
    monthly: tuple[Line, ...]
    assumptions: tuple[str, ...]
    spot: bool = False
    other_dollars: float | None = None
    num_steps: int = 0
    throughput: Throughput | None = None

    @property
    def hours(self) -> float | None:
        """All parts together; None if the speed is not known."""
        return _hours(self.parts)

    @property
    def dollars(self) -> float | None:
        """What is charged once; None if the time or a price is not known."""
        return total(self.lines)

    @property
    def dollars_a_month(self) -> float | None:
        """What it costs to keep data and results."""
        return total(self.monthly)


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Images of an epoch, and of one evaluation."""

    train: int
    evaluation: int


def estimate(
    experiment: Experiment,
    topology: Topology,
    *,
    num_train_examples: int | None = None,
    num_eval_examples: int | None = None,
    spot: bool | None = None,
) -> Estimate:
    """What the training of an experiment takes and costs on some machines.

    Args:
        experiment: what is trained.
        topology: on which machines.
        num_train_examples: images of an epoch; None: the part of ImageNet that the recipe takes.
        num_eval_examples: images of an evaluation; None: likewise.
        spot: whether at spot prices; None: as the topology has it.
    """
    recipe = experiment.recipe
    spot = topology.spot if spot is None else spot
    sizes = _sizes(recipe, num_train_examples, num_eval_examples)
    machine = price_of(topology.machine)
    speeds = None
    if machine:
        speeds = (
            rates.training_throughput(recipe, topology, machine.vcpus),
            rates.evaluation_throughput(recipe, topology, machine.vcpus),
        )
    training = speeds[0] if speeds else None
    parts = _parts(recipe, sizes, speeds) if training else ()
    lines = bill_training(topology, _hours(parts), spot)
    return Estimate(
        title=f"{experiment.name} on {topology.name}: {_machines(topology)}",
        facts=tuple(_facts(recipe, topology, sizes, training)),
        parts=parts,
        lines=lines,
        monthly=_kept(recipe, sizes),
        assumptions=(
            *_assumptions(recipe, topology, spot, training, lines),
            *([_NO_COUNT] if None in (num_train_examples, num_eval_examples) else []),
            _PRICES,
        ),
        spot=spot,
        other_dollars=total(bill_training(topology, _hours(parts), not spot)),
        num_steps=num_steps(recipe.optimization, sizes.train),
        throughput=training,
    )


def estimate_build(
    num_images: int = IMAGENET_TRAIN + IMAGENET_VALIDATION,
    *,
    mean_bytes: float = MEAN_IMAGE_BYTES,
    machine_type: str = "n2-standard-4",
    num_workers: int = 20,
) -> Estimate:
    """What the data build on Dataflow takes and costs.

    Args:
        num_images: images that are written.
        mean_bytes: of one of them.
        machine_type: of the workers.
        num_workers: how many there are, from the beginning to the end.
    """
    machine = find_price(machine_type)
    cores = num_workers * machine.vcpus if machine else 0
    memory = num_workers * machine.memory_gib if machine else 0
    parts: tuple[Part, ...] = ()
    if cores:
        rate = BUILD_IMAGES_PER_VCPU * cores
        how = f"{num_images:,} images at {rate:,.0f}/s: {cores} x {BUILD_IMAGES_PER_VCPU:g}"
        parts = (
            Part("start and end", BUILD_START_MINUTES / 60, "of the workers; assumed"),
            Part("build", num_images / rate / 3600, how),
        )
    hours = _hours(parts)
    amounts = {"vCPU": cores, "memory": memory, "disk": num_workers * BUILD_DISK_GIB}
    gibibytes = num_images * mean_bytes / 2**30
    return Estimate(
        title=f"build of {num_images:,} images on Dataflow: {num_workers} {machine_type}",
        facts=(
            Fact("data", f"{gibibytes:,.0f} GiB", f"{mean_bytes / 1000:,.0f} kB an image"),
            Fact("workers", f"{cores} vCPUs", f"{memory:,.0f} GiB of memory"),
        ),
        parts=parts,
        lines=tuple(
            make_line(f"dataflow {what}", what, None if hours is None else amount * hours)
            for what, amount in amounts.items()
        ),
        monthly=(make_line("bucket", "shards in the bucket", gibibytes),),
        assumptions=(
            f"A vCPU copies {BUILD_IMAGES_PER_VCPU:g} images a second from a bucket to a bucket, a"
            " ninth of what it does with files in memory. In the cloud it has not been measured.",
            "All workers are there all the time; with autoscaling there are fewer, for longer.",
            "Nothing but numbers of shards is shuffled, which costs nothing.",
            "Not counted: requests to the bucket, the machine that waits for the job, and the"
            " source's own place in the bucket.",
            _PRICES,
        ),
    )


def show(estimate: Estimate) -> str:
    """An estimate as text: sizes, time, bill, sources and assumptions, in 100 columns."""
    lines = [*estimate.lines, *estimate.monthly]
    sources = [SOURCES[key] for key in dict.fromkeys(line.source for line in lines) if key]
    return "\n".join(
        [
            *textwrap.wrap(estimate.title, width=100, subsequent_indent="  "),
            "",
            *_table((fact.name, fact.value, fact.how) for fact in estimate.facts),
            "",
            *_table(
                [
                    *((part.name, _in_hours(part.hours), part.how) for part in estimate.parts),
                    ("together", _in_hours(estimate.hours), ""),
                ]
            ),
            "",
            *_table(
                [
                    *map(_bill_row, estimate.lines),
                    (_total_name(estimate), _in_dollars(estimate.dollars), _other(estimate), ""),
                    *map(_bill_row, estimate.monthly),
                    ("for a month", _in_dollars(estimate.dollars_a_month), "", ""),
                ]
            ),
            "",
            *_bullets("Prices", sources),
            *_bullets("Assumed", estimate.assumptions),
        ]
    )


def _sizes(recipe: Recipe, num_train: int | None, num_eval: int | None) -> _Sizes:
    return _Sizes(
        _of_imagenet(recipe.data.train_split) if num_train is None else num_train,
        _of_imagenet(recipe.data.eval_split) if num_eval is None else num_eval,
    )


def _of_imagenet(split: str) -> int:
    """Images of a split, or of a part of one; 0 for none."""
    if not split:
        return 0
    part = parse_split(split)
    whole = IMAGENET_VALIDATION if part.split == "validation" else IMAGENET_TRAIN
    start, stop = part.range_of(whole)
    return stop - start


def _parts(
    recipe: Recipe, sizes: _Sizes, speeds: tuple[Throughput, Throughput]
) -> tuple[Part, ...]:
    options = recipe.optimization
    training, evaluation = (speed.images_per_second for speed in speeds)
    images = options.epochs * sizes.train
    saves = num_steps(options, sizes.train) // recipe.run.checkpoint_every_steps + options.epochs
    size = checkpoint_bytes(recipe.model.config(NUM_CLASSES), options)
    seconds = CHECKPOINT_SECONDS + size / UPLOAD_BYTES_PER_SECOND
    parts = [
        Part("start", START_MINUTES / 60, "machines, image, first compilation; assumed"),
        Part("training", images / training / 3600, f"{images:,} images at {training:,.0f}/s"),
    ]
    if sizes.evaluation:
        passes = math.ceil(options.epochs / recipe.run.eval_every_epochs)
        weights = 2 if options.ma_decay_rate else 1  # raw ones, and their averages
        parts.append(
            Part(
                "evaluation",
                passes * weights * sizes.evaluation / evaluation / 3600,
                f"{passes:,} x {weights} x {sizes.evaluation:,} images at {evaluation:,.0f}/s",
            )
        )
    parts.append(
        Part(
            "checkpoints",
            saves * seconds / 3600,
            f"{saves:,} of {size / 1e6:,.0f} MB, {seconds:.1f} s each",
        )
    )
    return tuple(parts)


def _facts(
    recipe: Recipe, topology: Topology, sizes: _Sizes, throughput: Throughput | None
) -> list[Fact]:
    options = recipe.optimization
    steps = Fact(
        "steps",
        f"{num_steps(options, sizes.train):,}",
        f"{options.epochs:,} epochs of {sizes.train:,} images in batches of {options.batch_size:,}",
    )
    if throughput is None:
        return [steps, Fact("images/s", "not known", "this machine is not in the tables")]
    name, count = rates.devices_of(topology.machine)
    cores = topology.num_hosts * price_of(topology.machine).vcpus
    devices = f"{topology.num_hosts * count} {name}" if name else f"{cores} vCPUs"
    milliseconds = rates.CROP_MS + rates.policy_ms(recipe.augmentation)
    used = throughput.images_per_second
    read = used * MEAN_IMAGE_BYTES / topology.num_hosts / 1e6
    return [
        steps,
        Fact(
            "images/s of the step",
            f"{throughput.devices:,.0f}",
            f"{devices}, {recipe.distribution.precision}",
        ),
        Fact(
            "images/s of the input",
            f"{throughput.input:,.0f}",
            f"{cores} vCPUs, {milliseconds:g} ms an image ({recipe.augmentation.augmentation})",
        ),
        Fact("images/s assumed", f"{used:,.0f}", _BINDS[throughput.binds]),
        Fact("a host reads", f"{read:,.0f} MB/s", f"{MEAN_IMAGE_BYTES / 1000:g} kB an image"),
    ]


def _machines(topology: Topology) -> str:
    """All pools in words: 4 a2-highgpu-8g (8 NVIDIA_TESLA_A100), 13 n1-highcpu-16."""
    words = []
    for machine, count in machines_of(topology).items():
        name, num_devices = rates.devices_of(machine)
        devices = f" ({num_devices} {name})" if name else ""
        words.append(f"{count} {machine.machine_type}{devices}")
    return ", ".join(words)


def _kept(recipe: Recipe, sizes: _Sizes) -> tuple[Line, ...]:
    """The data, and of the run its newest checkpoints and the best."""
    run = run_bytes(recipe, recipe.model.config(NUM_CLASSES))
    data = (sizes.train + sizes.evaluation) * MEAN_IMAGE_BYTES
    return (
        make_line("bucket", "data in the bucket", data / 2**30),
        make_line("bucket", "checkpoints in the bucket", run / 2**30),
    )


_NO_COUNT = "The data are ImageNet's in number, since no other number was told."
_PRICES = (
    f"Prices are of {REGION}, in US dollars, without taxes, discounts and credits; other regions"
    " differ, and spot prices change within days."
)


def _assumptions(
    recipe: Recipe,
    topology: Topology,
    spot: bool,
    throughput: Throughput | None,
    lines: tuple[Line, ...],
) -> list[str]:
    said = []
    if throughput:
        said = ["The step is as fast as other code that was measured; this has not been run there."]
        said += [f"Speed: {how}." for how in throughput.how]
    batch = recipe.optimization.batch_size // topology.replicas
    if throughput and batch < _SMALL_BATCH and rates.devices_of(topology.machine)[0]:
        said.append(
            f"{batch} images a replica are few: the published rates are of larger batches, so that"
            " the step is slower than this says."
        )
    if throughput and throughput.mixed_gain > 1 and throughput.binds == "devices":
        said.append(
            "The recipe computes in float32. With --precision=bfloat16 (float16 on a GPU that lacks"
            f" it) the step would be {throughput.mixed_gain:.1f} times as fast."
        )
    if throughput:
        said += [
            "The input costs the processors what it did on an EPYC, and none of them does anything"
            " else; a bucket and its network keep up with what a host reads.",
            "A forward pass takes a third of a step. A checkpoint takes"
            f" {CHECKPOINT_SECONDS:g} s and goes to the bucket at"
            f" {UPLOAD_BYTES_PER_SECOND / 1e6:g} MB/s while training waits.",
        ]
    if topology.reduction_servers:
        said.append("Reduction servers are charged, but nothing is taken to go faster with them.")
    if topology.evaluator:
        said.append(
            "The evaluator keeps up with the training, and is there as long; the trainers evaluate"
            " every --eval_every_epochs and at the end all the same."
        )
    if spot:
        said.append(
            "Spot machines may be taken away. How often is not known and not counted: each time"
            f" costs a start, and at most {recipe.run.checkpoint_every_steps} steps."
        )
    said += [f"The price of {line.what} is not known." for line in lines if not line.source]
    said.append(
        "Not counted: the other stages, requests to the bucket, logs, the place of the image."
    )
    return said


def _hours(parts: tuple[Part, ...]) -> float | None:
    return sum(part.hours for part in parts) if parts else None


def _bill_row(line: Line) -> tuple[str, str, str, str]:
    if line.price is None:
        return line.what, "not known", "no price is known", ""
    quantity = "hours not known" if line.quantity is None else f"{line.quantity:,.2f}"
    how = f"{quantity} x {_plain(line.price)} ({line.unit})"
    return line.what, _in_dollars(line.dollars), how, line.date or "no date"


def _total_name(estimate: Estimate) -> str:
    return "together, at spot prices" if estimate.spot else "together"


def _other(estimate: Estimate) -> str:
    if estimate.other_dollars is None:
        return ""
    kind = "list" if estimate.spot else "spot"
    return f"at {kind} prices {_in_dollars(estimate.other_dollars)}"


def _in_hours(hours: float | None) -> str:
    if hours is None:
        return "not known"
    return f"{hours:,.2f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _plain(number: float) -> str:
    """All digits of a price, without an exponent."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _in_dollars(dollars: float | None) -> str:
    return "not known" if dollars is None else f"${dollars:,.2f}"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines of a table; the second column has numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=24)
    table.add_column(justify="right", no_wrap=True, min_width=12)
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=100, markup=False, highlight=False, emoji=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _bullets(heading: str, sentences: Iterable[str]) -> list[str]:
    lines = [f"{heading}:"]
    for sentence in sentences:
        lines += textwrap.wrap(
            sentence,
            width=100,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines
