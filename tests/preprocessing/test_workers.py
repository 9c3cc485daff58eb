import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

import pytest

from .conftest import MODULE, ROOT, contents, encoded


@pytest.fixture
def odd_tree(tree):
    """The photos, of which one is repaired and two are rejected."""
    (tree / "dog/png.JPEG").write_bytes(encoded("PNG"))
    (tree / "dog/text.JPEG").write_bytes(b"no image at all")
    (tree / "cat/cut.JPEG").write_bytes(encoded()[:-40])
    return tree


def run_build(source, out, *flags, **environment) -> str:
    command = [*MODULE, f"--source={source}", f"--output_dir={out}", "--num_shards=7"]
    done = subprocess.run(
        [*command, "--max_rejected_fraction=1", *flags],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_any_number_of_workers_writes_the_same_bytes_and_counts_the_same(odd_tree, tmp_path):
    outs = {number: tmp_path / str(number) for number in (1, 2, 5)}
    counted = {
        line.split(" bytes")[0]
        for number, out in outs.items()
        for line in run_build(odd_tree, out, f"--num_workers={number}").splitlines()
        if line.startswith("counted: ")
    }
    one = contents(outs[1])
    assert len([name for name in one if name.startswith("train-")]) == 7
    assert contents(outs[2]) == contents(outs[5]) == one
    num_bytes = sum(len(content) for name, content in one.items() if name.startswith("train-"))
    (line,) = counted
    told, _, shards = line.removeprefix("counted: ").partition("; ")
    assert shards == f"7 shards of {num_bytes:,}"
    counts = dict(reversed(part.split(" ", 1)) for part in told.split(", "))
    rejected = {name for name in counts if name.startswith("rejected: ")}
    assert {name: int(count) for name, count in counts.items() if name not in rejected} == {
        "verbatim": 12,
        "repaired": 1,
    }
    assert [counts[name] for name in rejected] == ["1", "1"]


@pytest.mark.long
def test_a_prism_that_beam_would_find_is_not_used(odd_tree, tmp_path):
    mark = tmp_path / "was here"
    home = fake_prism(tmp_path / "home", mark)
    environment = {"HOME": str(home), "PATH": f"{home}{os.pathsep}{os.environ['PATH']}"}
    run_build(odd_tree, tmp_path / "without")
    for number in (1, 2):
        run_build(odd_tree, tmp_path / str(number), f"--num_workers={number}", **environment)
        assert contents(tmp_path / str(number)) == contents(tmp_path / "without")
    assert not mark.exists()
    # What the user asks Beam for by the same name does find it.
    program = (
        "import apache_beam as beam\n"
        "with beam.Pipeline(runner='DirectRunner') as pipeline:\n"
        "    pipeline | beam.Create([1]) | beam.Map(print)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    assert mark.exists()


def fake_prism(home: pathlib.Path, mark: pathlib.Path) -> pathlib.Path:
    """A home, and a directory for the path, with a program that leaves a mark and is no Prism."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.prism_runner import GITHUB_TAG_PREFIX, PrismJobServer
    from apache_beam.version import __version__

    url = PrismJobServer(PipelineOptions([])).construct_download_url(
        f"{GITHUB_TAG_PREFIX}v{__version__}", platform.system(), platform.machine()
    )
    cached = home / ".apache_beam/cache/prism/bin" / url.rpartition("/")[2]
    for path in (cached, home / "prism"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n: > '{mark}'\nexit 1\n")
        path.chmod(0o755)
    return home


def worker_pids(parent: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, check=False)
    return [
        int(pid)
        for pid in done.stdout.split()
        if b"runners.worker" in pathlib.Path(f"/proc/{int(pid)}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize("moment", ["starting", "writing"])
def test_a_killed_worker_ends_the_build_with_one_line(tmp_path, moment):
    (tmp_path / "photos/a").mkdir(parents=True)
    content = encoded("PNG", size=(600, 600))  # repaired, which takes a while
    for number in range(200):
        (tmp_path / f"photos/a/{number}.JPEG").write_bytes(content)
    flags = [f"--source={tmp_path}/photos", f"--output_dir={tmp_path}/out", "--num_shards=100"]
    process = subprocess.Popen(
        [*MODULE, *flags, "--num_workers=2"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        victims = []
        while time.monotonic() < deadline and not victims and process.poll() is None:
            time.sleep(0.01)
            if moment == "starting" or list((tmp_path / "out/train/rows").glob("0*")):
                victims = worker_pids(process.pid)
        subprocess.run(["kill", "-9", str(victims[0])], check=True)
        _, text = process.communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.returncode == 1
    assert "a worker process died" in text and len(text.splitlines()) == 1
    assert not (tmp_path / "out/train/manifest.json").exists()
