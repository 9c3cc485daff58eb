"""A build that is killed at any moment goes on to the same bytes."""

import os
import pathlib
import random
import subprocess
import time

import pytest

from preprocessing.verify import VerifyConfig, verify

from .conftest import MODULE, ROOT, contents, encoded

NUM_KILLS = 10


def make_photos(root: pathlib.Path) -> pathlib.Path:
    """Photos that take a build of one process some two seconds, half of them to be repaired."""
    for number in range(240):
        path = root / f"c{number % 3}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        format = "PNG" if number % 2 else "JPEG"
        path.write_bytes(encoded(format, size=(500, 400), seed=number))
    return root


@pytest.mark.long
def test_ten_kills_at_random_moments_cost_no_byte(tmp_path, build):
    photos = make_photos(tmp_path / "photos")
    whole = contents(build(photos, tmp_path / "whole", num_shards=24))
    out = tmp_path / "out"
    command = [*MODULE, f"--source={photos}", f"--output_dir={out}", "--num_shards=24"]
    rng = random.Random(17)
    start = time.monotonic()
    subprocess.run([*command, "--num_workers=2"], cwd=ROOT, check=True, capture_output=True)
    seconds = time.monotonic() - start
    assert contents(out) == whole
    moments = []
    for number in range(NUM_KILLS):
        if number % 3 == 0:  # the rest go on with what the kill before them has left
            subprocess.run(["rm", "-r", str(out)], check=True)
        workers = rng.choice([1, 2])
        process = subprocess.Popen(
            [*command, f"--num_workers={workers}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0.1, seconds))
        os.killpg(process.pid, 9)  # its workers with it, as at a power cut
        process.wait()
        rows = len(list(out.glob("train/rows/0*")))
        moments.append((rows, (out / "train/manifest.json").exists()))
        for path in out.glob("train-*"):
            assert path.read_bytes() == whole[path.name], "half a shard under a final name"
        if number % 3 == 2 or number == NUM_KILLS - 1:
            build(photos, out, num_shards=24)
            assert contents(out) == whole
            verify(VerifyConfig(str(out)))
    assert any(0 < rows < 24 for rows, _ in moments), moments
