"""The real command on a real Flink, which Beam starts and stops: `make test-flink`."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from preprocessing.demo_photos import write_demo_photos
from tests.conftest import REFERENCE_DATA
from tests.preprocessing.conftest import ROOT, contents, encoded

pytestmark = pytest.mark.flink

JAR = ROOT / ".cache/flink/flink-job-server.jar"
FLINK = (
    "--runner=FlinkRunner",
    "--",
    f"--flink_job_server_jar={JAR}",
    "--flink_master=[local]",
    "--parallelism=2",
    f"--flink_conf_dir={ROOT}/infra/flink/conf",
)
SECONDS = 300  # of a wait that never takes as long


@pytest.fixture(autouse=True)
def _job_server():
    if not JAR.is_file():
        pytest.skip(f"no {JAR.relative_to(ROOT)}: `make test-flink` fetches it")


@pytest.fixture
def start(tmp_path):
    """Starts the build command; every process of it carries a mark in its environment."""
    # Where tests run in the background a shell may have SIGINT ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    processes = []
    temporary = tmp_path / "temporary"  # Beam leaves much there
    temporary.mkdir()

    def call(source, out, *words, num_shards=8) -> subprocess.Popen:
        command = [sys.executable, "-m", "preprocessing.build_dataset"]
        flags = [
            f"--source={source}",
            f"--output_dir={out}",
            f"--num_shards={num_shards}",
            "--max_rejected_fraction=1",
        ]
        processes.append(
            subprocess.Popen(
                [*command, *flags, *words],
                cwd=ROOT,
                env={**os.environ, "BUILD_OF_A_TEST": str(tmp_path), "TMPDIR": str(temporary)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def build(start):
    def call(source, out, *words, **options) -> str:
        process = start(source, out, *words, **options)
        text, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, errors) == (0, ""), text
        return text

    return call


def running(tmp_path: pathlib.Path) -> list[int]:
    """Processes that carry the test's mark, zombies left out."""
    mark = f"BUILD_OF_A_TEST={tmp_path}".encode()
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue  # it has ended, or is not ours
    return found


def wait_until(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Real photos where there are any, else drawn ones, some of them broken."""
    real = REFERENCE_DATA / "imagenet_sample"
    if real.is_dir():
        return real
    root = tmp_path_factory.mktemp("drawn") / "photos"
    write_demo_photos(str(root), train_per_class=1)
    return root / "validation"


def slow_photos(root: pathlib.Path) -> pathlib.Path:
    """Photos that are all repaired, which takes a while."""
    for number in range(160):
        path = root / f"c{number % 3}/{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded("PNG", size=(600, 500), seed=number))
    return root


def test_flink_writes_the_same_bytes_as_this_machine(photos, tmp_path, build):
    here, there = tmp_path / "here", tmp_path / "there"
    counted = [
        line
        for words, out in (((), here), (FLINK, there))
        for line in build(photos, out, *words).splitlines()
        if line.startswith("counted")
    ]
    assert contents(there) == contents(here)
    assert len(list(there.glob("train-*"))) == 8
    assert (there / "train/records.parquet").exists()
    # Times differ, all else that is counted is the same.
    assert counted[0].split(" bytes")[0] == counted[1].split(" bytes")[0]
    assert running(tmp_path) == []


def test_a_build_killed_on_flink_goes_on_to_the_same_bytes(tmp_path, start, build):
    photos = slow_photos(tmp_path / "photos")
    here, there = tmp_path / "here", tmp_path / "there"
    build(photos, here, num_shards=40)
    process = start(photos, there, *FLINK, num_shards=40)
    wait_until(lambda: list(there.glob("train/rows/0*")) or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path.name: path.stat().st_mtime_ns for path in there.glob("train-*")}
    assert finished and not (there / "train/manifest.json").exists()
    # The job server was started by the build, and nobody has had the time to stop it.
    wait_until(lambda: not running(tmp_path))
    whole = contents(here)
    for name in finished:
        assert (there / name).read_bytes() == whole[name]
    build(photos, there, *FLINK, num_shards=40)
    assert contents(there) == whole
    assert running(tmp_path) == []


def test_what_goes_wrong_in_a_shard_is_the_same_line_as_on_this_machine(tmp_path, start):
    photos = slow_photos(tmp_path / "photos")
    told = []
    for name, words in (("here", ()), ("there", FLINK)):
        out = tmp_path / name
        process = start(photos, out, *words)
        wait_until(lambda out=out: (out / "train/plan.json").exists())
        (out / "train-00003-of-00008/in the way").mkdir(parents=True)
        text, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 1, text
        told.append(errors.replace(str(out), "OUT"))
        assert not (out / "train/manifest.json").exists()
    assert told[0] == told[1]
    assert told[0].count("\n") == 1 and "OUT/train-00003-of-00008" in told[0]
    assert running(tmp_path) == []


def test_an_interrupted_build_leaves_no_job_server(tmp_path, start):
    photos = slow_photos(tmp_path / "photos")
    out = tmp_path / "out"
    process = start(photos, out, *FLINK, num_shards=40)
    wait_until(lambda: list(out.glob("train/rows/0*")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, text
    assert errors.endswith("error: interrupted\n") and errors.count("\n") == 1
    assert running(tmp_path) == []
