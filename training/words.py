"""Quantities as people read them."""

from __future__ import annotations


def bytes_in_words(num_bytes: float) -> str:
    """`1.5 GB` for 1,500,000,000, with two digits or more."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(num_bytes) >= factor:
            value = num_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return f"{num_bytes:.0f} bytes"
