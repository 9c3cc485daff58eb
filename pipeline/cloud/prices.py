"""What the cloud charges, as `prices.csv` has it: list prices of us-central1 in US dollars.

Nothing is asked of the cloud. Each price has the day on which its source had it, where the source
tells that. A machine that the table lacks has no price here, and an estimate says so.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import pathlib

REGION = "us-central1"
HOURS_A_MONTH = 730

SOURCES = {
    "gcosts": "Compute Engine and Cloud Storage: pricing.yml of Cyclenerd's google-cloud-pricing-"
    "cost-calculator, made on 2026-08-27 from Google's price list; sizes that it was not read for"
    " are multiples of those that it was, by CPUs, memory and GPUs",
    "skypilot": "TPUs and V100: skypilot-catalog, catalogs/v8/gcp/vms.csv, which bears no date; its"
    " spot prices of A100 machines are those of 2026-08-27",
    "dataflow": "Dataflow: workers of batch jobs at the prices that public scripts have; no dated"
    " source was found",
    "vertex": "Vertex AI's fee: its page of prices, as read on 2026-10-07, has 0.21849885 an hour"
    " for custom training on n1-standard-4; that is 1.15 times the machine's 0.189999",
}

# Of custom training, on what machines and disks themselves cost.
VERTEX_FEE, VERTEX_FEE_DATE = 0.15, "2026-10-07"


@dataclasses.dataclass(frozen=True)
class Price:
    """A row of the table.

    Attributes:
        name: machine type (for TPU v2 and v3 with the TPU), accelerator, or what else is charged.
        unit: what one of it is.
        dollars: list price.
        spot_dollars: price on what others leave over, which changes within days; None for none.
        vcpus: virtual cores of a machine; 0 for what has none.
        memory_gib: its memory; 0 where it does not matter.
        date: day on which the source had it; "" where that is not known.
        source: key of `SOURCES`.
    """

    name: str
    unit: str
    dollars: float
    spot_dollars: float | None
    vcpus: int
    memory_gib: float
    date: str
    source: str

    def of(self, spot: bool) -> float:
        """The spot price if that is wanted and there is one, else the list price."""
        return self.spot_dollars if spot and self.spot_dollars is not None else self.dollars


@functools.cache
def prices() -> dict[str, Price]:
    """All prices by name."""
    path = pathlib.Path(__file__).with_name("prices.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _price(row) for row in csv.DictReader(file)}


def find_price(name: str) -> Price | None:
    """The price of something; None if it is not known."""
    return prices().get(name)


def _price(row: dict[str, str]) -> Price:
    return Price(
        name=row["name"],
        unit=row["unit"],
        dollars=float(row["dollars"]),
        spot_dollars=float(row["spot_dollars"]) if row["spot_dollars"] else None,
        vcpus=int(row["vcpus"] or 0),
        memory_gib=float(row["memory_gib"] or 0),
        date=row["date"],
        source=row["source"],
    )
