"""What machines, disks and buckets cost for some hours, line by line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pipeline.cloud.prices import HOURS_A_MONTH, VERTEX_FEE, VERTEX_FEE_DATE, Price, find_price
from pipeline.cloud.topologies import Machine, Topology

BOOT_DISK_GIB = 100  # of each machine: Vertex AI's default, a pd-ssd


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the bill.

    Attributes:
        what: what is charged.
        quantity: how many units of it; None if the hours are not known.
        unit: what one of them is.
        price: dollars a unit; None if that is not known.
        date: day of the price; "" if that is not known.
        source: key of `prices.SOURCES`; "" where there is no price.
    """

    what: str
    quantity: float | None
    unit: str
    price: float | None
    date: str = ""
    source: str = ""

    @property
    def dollars(self) -> float | None:
        return None if None in (self.price, self.quantity) else self.quantity * self.price


def total(lines: Sequence[Line]) -> float | None:
    """Dollars of all lines; None if one of them is not known."""
    dollars = [line.dollars for line in lines]
    return None if None in dollars else sum(dollars)


def bill_training(topology: Topology, hours: float | None, spot: bool) -> tuple[Line, ...]:
    """What a job is charged for being there for some hours.

    Args:
        topology: its machines.
        hours: how long; None if that is not known.
        spot: at spot prices, where there are any.
    """
    pools = machines_of(topology)
    machines = [row for machine, count in pools.items() for row in _charged(machine, count)]
    num_disks = sum(pools.values())
    disk = make_line(
        "pd-ssd",
        f"{_numbered(num_disks, 'disk')} of {BOOT_DISK_GIB} GiB",
        _times(num_disks * BOOT_DISK_GIB / HOURS_A_MONTH, hours),
    )
    # Whether the fee is less on spot machines is not known: this is the dearer way to take it.
    listed = total([*(make_line(name, name, _times(n, hours)) for name, n in machines), disk])
    fee = Line(
        f"Vertex AI's fee, {100 * VERTEX_FEE:g} %",
        listed,
        "list price",
        VERTEX_FEE,
        VERTEX_FEE_DATE,
        "vertex",
    )
    lines = [make_line(name, f"{n} {name}", _times(n, hours), spot) for name, n in machines]
    return (*lines, disk, fee)


def machines_of(topology: Topology) -> dict[Machine, int]:
    """All machines of a job, the helpers among them, and how many of each."""
    counts: dict[Machine, int] = {}
    for machine, count in topology.pools:
        if count:
            counts[machine] = counts.get(machine, 0) + count
    return counts


def make_line(name: str, what: str, quantity: float | None, spot: bool = False) -> Line:
    """A line for something that the table of prices has, or lacks."""
    price = find_price(name)
    if price is None:
        return Line(what, quantity, "", None)
    return Line(what, quantity, price.unit, price.of(spot), price.date, price.source)


def price_of(machine: Machine) -> Price | None:
    """The price of a machine, which tells its processors as well; None if it is not known."""
    return find_price(_name(machine))


def _charged(machine: Machine, count: int) -> list[tuple[str, int]]:
    """Names in the table of prices, and how many of each: GPUs of an n1 are charged by themselves.

    All other machines have theirs in their price.
    """
    rows = [(_name(machine), count)]
    if machine.accelerator_type and machine.machine_type.startswith("n1-"):
        rows.append((machine.accelerator_type, count * machine.accelerator_count))
    return rows


def _name(machine: Machine) -> str:
    """TPU v2 and v3 are of one machine type, at two prices."""
    if machine.machine_type == "cloud-tpu":
        return f"cloud-tpu {machine.accelerator_type}"
    return machine.machine_type


def _times(number: float, hours: float | None) -> float | None:
    return None if hours is None else number * hours


def _numbered(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
