"""Training and checkpoints in a bucket, read and written by TensorFlow's own client."""

import pathlib
import subprocess
import sys

import pytest

pytest_plugins = ["tests.storage_emulator"]
pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[2]
CASES = "tests/gs/tensorflow_cases.py"


def test_all_cases_in_a_process_that_finds_the_emulator(environment, storage_proxy):
    """They are tests; TensorFlow looks into the environment when it is imported, and not again."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=20", CASES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"TSL", "gcloud-python"} <= storage_proxy.clients  # TensorFlow calls itself TSL
