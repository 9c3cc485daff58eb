import pathlib
import signal
import subprocess
import time

import pytest

from .conftest import MODULE, ROOT, contents, encoded


def test_two_workers_write_the_same_bytes_as_one(tree, tmp_path, build):
    (tree / "dog/png.JPEG").write_bytes(encoded("PNG"))
    one = build(tree, tmp_path / "one", num_workers=1)
    two = build(tree, tmp_path / "two", num_workers=2)
    assert contents(one) == contents(two)
    assert len(contents(one)) == 3 + 3 + 6


def worker_pids(parent: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, check=False)
    return [
        int(pid)
        for pid in done.stdout.split()
        if b"beam_worker" in pathlib.Path(f"/proc/{int(pid)}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize("moment", ["starting", "writing"])
def test_a_killed_worker_ends_the_build_with_one_line(tmp_path, moment):
    (tmp_path / "photos/a").mkdir(parents=True)
    content = encoded("PNG", size=(600, 600))  # repaired, which takes a while
    for number in range(200):
        (tmp_path / f"photos/a/{number}.JPEG").write_bytes(content)
    flags = [f"--input_dir={tmp_path}/photos", f"--output_dir={tmp_path}/out", "--num_shards=100"]
    process = subprocess.Popen(
        [*MODULE, *flags, "--num_workers=2"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        victims = []
        while time.monotonic() < deadline and not victims:
            time.sleep(0.01)
            if moment == "starting" or list((tmp_path / "out/train/rows").glob("*.json")):
                victims = worker_pids(process.pid)
        subprocess.run(["kill", "-9", str(victims[0])], check=True)
        _, text = process.communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.returncode == 1
    assert "a worker process died" in text and len(text.splitlines()) == 1
    assert not (tmp_path / "out/train/manifest.json").exists()
