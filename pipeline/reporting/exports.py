"""What the report says about exports: artifacts with hashes, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.wording import is_number


def describe_export(export: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an `export.json`, of this version or an earlier one."""
    if "missing" in export:
        return dict(export)
    return {
        "artifacts": [_artifact(row) for row in export.get("artifacts") or []],
        "parity": _parity(export.get("parity") or {}),
        "signatures": {
            str(name): {
                "inputs": _tensors(signature.get("inputs")),
                "outputs": _tensors(signature.get("outputs")),
            }
            for name, signature in (export.get("signatures") or {}).items()
        },
    }


def _artifact(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row.get("format") or row.get("name"),
        "path": row.get("path"),
        "bytes": row.get("bytes"),
        "sha256": row.get("sha256"),
        "notes": row.get("notes") or "",
    }


def _parity(parity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is worth a column depends on what was measured."""
    rows = [_parity_row(row, parity.get("limit")) for row in parity.get("rows") or []]
    if not rows:
        return None
    return {
        "num_images": parity.get("num_images"),
        "rows": rows,
        "columns": {
            name: any(row[name] not in (None, "") for row in rows)
            for name in ("top_1", "change", "limit")
        },
        # Of what computes with fewer bits, the answers count, not their probabilities.
        "some_without_limit": any(row["limit"] is None for row in rows),
        "passed": all(row["passed"] for row in rows),
    }


def _parity_row(row: Mapping[str, Any], common_limit: Any) -> dict[str, Any]:
    limit = row.get("limit") if row.get("limit") is not None else common_limit
    difference = row.get("largest_probability_difference")
    drop = row.get("accuracy_drop")
    passed = row.get("passed")
    if passed is None and is_number(limit) and is_number(difference):
        passed = difference <= limit
    return {
        "artifact": row.get("artifact"),
        "difference": difference,
        "agreement": row.get("top_1_agreement"),
        "top_1": row.get("top_1"),
        "change": -drop if is_number(drop) else None,
        "limit": limit,
        "passed": passed,
        "requirement": row.get("requirement") or "",
        "first_divergence": row.get("first_divergence") or "",
        "cause": row.get("cause") or "",
    }


def _tensors(tensors: Any) -> dict[str, str]:
    return {str(name): str(kind) for name, kind in (tensors or {}).items()}
