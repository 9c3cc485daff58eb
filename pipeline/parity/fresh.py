"""Starts the probe in a fresh process, and says in one line what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection

import numpy as np

from common.errors import UserError
from pipeline import formats
from pipeline.parity.images import ParityImages

_PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")
_PROBE_SECONDS = 600
_OURS = ("benchmarks", "common", "loaders", "pipeline", "preprocessing", "training")

# What reads each kind, by the words that its absence is reported with.
_PACKAGES = {"litert": "ai-edge-litert", "onnx": "onnxruntime"}


def outputs_of(
    directory: str, artifact: formats.Artifact, images: ParityImages
) -> dict[str, np.ndarray]:
    """Logits, and of a SavedModel probabilities too, (n, outputs) float32, as `probe` names them.

    Raises:
        UserError: the artifact cannot be opened, or takes its process down with it.
    """
    return _probe(directory, artifact, images)


def tensors_of(
    directory: str,
    artifact: formats.Artifact,
    images: ParityImages,
    sizes: Collection[int],
    signature: str = "",
) -> dict[str, np.ndarray]:
    """What the artifact's layers give, (n, ...) float32 by name, where it is of these `sizes`.

    Args:
        directory: the export.
        artifact: one of its files or directories.
        images: a few images.
        sizes: numbers an image that a tensor may have.
        signature: of a SavedModel.

    Raises:
        UserError: as above.
    """
    return _probe(directory, artifact, images, sorted(sizes), signature)


def _probe(
    directory: str,
    artifact: formats.Artifact,
    images: ParityImages,
    sizes: list[int] | None = None,
    signature: str = "",
) -> dict[str, np.ndarray]:
    kind = "litert" if artifact.format in formats.LITERT else artifact.format
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs, request = (
            os.path.join(scratch, name) for name in ("inputs.npz", "outputs.npz", "request.json")
        )
        np.savez(
            inputs,
            images=images.images,
            jpeg=np.frombuffer(b"".join(images.jpeg), np.uint8),
            ends=np.cumsum([len(content) for content in images.jpeg]),
        )
        values = {
            "kind": kind,
            "path": os.path.abspath(os.path.join(directory, artifact.path)),
            "inputs": inputs,
            "outputs": outputs,
            "blocked": _OURS,
            "sizes": sizes,
            "signature": signature,
        }
        with open(request, "w", encoding="utf-8") as file:
            json.dump(values, file)
        _run([sys.executable, "-I", _PROBE, request], scratch, kind, artifact.path)
        with np.load(outputs) as found:
            return {name: found[f"value_{i}"] for i, name in enumerate(found["names"].tolist())}


def _run(command: list[str], scratch: str, kind: str, name: str) -> None:
    try:
        process = subprocess.run(
            command,
            cwd=scratch,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} did not run in a fresh process in {_PROBE_SECONDS} s") from None
    if process.returncode < 0:
        raise UserError(
            f"{name} takes a fresh process down with it"
            f" ({signal.Signals(-process.returncode).name}): its reader crashes on this file"
        )
    if process.returncode:
        reason = _last_line(process.stderr)
        hint = ""
        if "No module named" in reason and kind in _PACKAGES:
            hint = f": install {_PACKAGES[kind]}, or leave the format out of --formats"
        raise UserError(f"{name} does not run in a fresh process: {reason}{hint}")


def _last_line(stderr: str) -> str:
    """The exception, which a traceback ends with; libraries may log behind it."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    raised = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    if raised:
        # The first line that is not indented behind the last traceback's head.
        for line in lines[raised[-1] + 1 :]:
            if not line.startswith(" "):
                return line
    return lines[-1] if lines else "no message"
