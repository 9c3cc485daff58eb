"""The job as Dataflow would be handed it, without the cloud: `make test-cloud`.

Beam translates the job in full, stages it in the emulator's bucket, and writes what it would send
into a file instead.
"""

import importlib.util
import io
import itertools
import json
import pathlib
import shutil
import tarfile

import pytest

from common.files import read_bytes
from preprocessing.plan import Plan, save_plan
from preprocessing.runners import RunnerConfig
from tests.preprocessing.conftest import ROOT

pytest_plugins = ["tests.storage_emulator"]
pytestmark = pytest.mark.cloud

NUM_IMAGES, NUM_SHARDS = 1_281_167, 1_024

MACHINES = (
    "--machine_type=n2-standard-4",
    "--disk_size_gb=60",
    "--worker_disk_type=compute.googleapis.com/projects//zones//diskTypes/pd-ssd",
    "--num_workers=3",
    "--max_num_workers=20",
    "--autoscaling_algorithm=THROUGHPUT_BASED",
    "--number_of_worker_harness_threads=2",
    "--no_use_public_ips",
    "--service_account_email=builder@a-project.iam.gserviceaccount.com",
    "--labels=purpose=build",
    "--labels=split=train",
)


@pytest.fixture(autouse=True)
def _no_credentials():
    """Beam would look for some for 20 seconds, and go on without."""
    try:
        found = importlib.util.find_spec("google.cloud.dataflow")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip("Beam's Google Cloud parts are not installed: `make test-cloud` does it")
    from apache_beam.internal.gcp import auth

    auth._Credentials._credentials, auth._Credentials._credentials_init = None, True


def make_plan(num_images: int, num_shards: int) -> Plan:
    bounds = [num_images * index // num_shards for index in range(num_shards + 1)]
    counts = tuple(end - start for start, end in itertools.pairwise(bounds))
    classes = tuple(f"n{number:08d}" for number in range(1000))
    return Plan(
        split="train",
        flags={"num_shards": num_shards},
        source={"kind": "class folders", "name": "photos"},
        classes=classes,
        class_texts=classes,
        class_list_source="imagenet",
        class_list_sha256=None,
        versions={},
        num_images=counts,
        num_bytes=tuple(110_000 * count for count in counts),
        offsets=tuple(60 * bound for bound in bounds),
        body_sha256="",
    )


@pytest.fixture
def translate(bucket, tmp_path):
    """Hands the job over; returns what Dataflow is told, the pipeline, and the size of both."""

    def call(plan: Plan, *flags: str) -> tuple[dict, object, int]:
        from apache_beam.portability.api import beam_runner_api_pb2

        from preprocessing.runners.job import write_shards

        data_dir = f"{bucket}/out"
        save_plan(data_dir, plan, b"")
        template = tmp_path / "template.json"
        where = (
            "--project=a-project",
            "--region=europe-west4",
            f"--temp_location={bucket}/temporary",
            f"--template_location={template}",
            "--no_auth",
        )
        runner = RunnerConfig("DataflowRunner", beam_flags=(*where, *flags))
        write_shards(f"{bucket}/photos", data_dir, plan, range(plan.num_shards), runner)
        job = json.loads(template.read_text())
        place = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        pipeline = read_bytes(place)
        size = len(pipeline) + template.stat().st_size
        return job, beam_runner_api_pb2.Pipeline.FromString(pipeline), size

    return call


@pytest.fixture
def package(tmp_path) -> pathlib.Path:
    """The package's own sources, since a build leaves files beside them."""
    root = tmp_path / "package"
    root.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, root)
    for name in ("common", "preprocessing"):
        shutil.copytree(ROOT / name, root / name)
    return root


def stages_of(pipeline) -> list:
    """The transforms that the job is written as, in order."""
    found = pipeline.components.transforms
    (root,) = pipeline.root_transform_ids
    return [found[name] for name in found[root].subtransforms]


def test_imagenet_is_handed_to_dataflow_as_asked_for(translate, package):
    plan = make_plan(NUM_IMAGES, NUM_SHARDS)
    job, _, size = translate(plan, *MACHINES, f"--setup_file={package}/setup.py")
    print(f"\ndescription of {NUM_IMAGES:,} images in {NUM_SHARDS:,} shards: {size:,} bytes")
    assert size < 1_000_000
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["diskSizeGb"] == 60
    assert pool["diskType"] == "compute.googleapis.com/projects//zones//diskTypes/pd-ssd"
    assert pool["numWorkers"] == 3
    assert pool["numThreadsPerWorker"] == 2
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert pool["autoscalingSettings"] == {
        "algorithm": "AUTOSCALING_ALGORITHM_BASIC",
        "maxNumWorkers": 20,
    }
    assert environment["serviceAccountEmail"] == "builder@a-project.iam.gserviceaccount.com"
    assert job["labels"] == {"purpose": "build", "split": "train"}
    assert job["type"] == "JOB_TYPE_BATCH"
    (container,) = pool["sdkHarnessContainerImages"]
    assert "beam_python" in container["containerImage"]
    packages = {
        entry["name"]: entry["location"].replace("storage.googleapis.com/", "gs://", 1)
        for entry in pool["packages"]
    }
    assert "pickled_main_session" not in packages
    with tarfile.open(fileobj=io.BytesIO(read_bytes(packages["workflow.tar.gz"]))) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"setup.py", "common/files.py", "preprocessing/runners/job.py"} <= names


def test_the_stages_are_numbers_dealt_to_workers_that_write_shards(translate):
    image = "europe-docker.pkg.dev/a-project/images/build:1"
    flag = f"--sdk_container_image={image}"
    job, pipeline, size = translate(make_plan(NUM_IMAGES, NUM_SHARDS), flag)
    (pool,) = job["environment"]["workerPools"]
    (container,) = pool["sdkHarnessContainerImages"]
    assert container["containerImage"] == pool["workerHarnessContainerImage"] == image
    assert not [entry for entry in pool["packages"] if "session" in entry["name"]]

    stages = stages_of(pipeline)
    assert [stage.unique_name for stage in stages] == [
        "Shard numbers",
        "Deal to workers",
        "Write shards",
        "Count shards",
    ]
    for before, after in itertools.pairwise(stages):
        assert list(before.outputs.values()) == list(after.inputs.values())
    assert stages[1].spec.urn == "beam:transform:reshuffle:v1"
    assert stages[2].spec.urn == "beam:transform:pardo:v1"
    assert len(stages[2].spec.payload) < 5_000
    # Of a hundredth of the images nothing in it is shorter.
    _, smaller, size_of_smaller = translate(make_plan(NUM_IMAGES // 100, NUM_SHARDS), flag)
    assert stages_of(smaller)[2].spec.payload == stages[2].spec.payload
    assert abs(size - size_of_smaller) < 200


def test_the_flags_of_the_manual_pass_the_check(bucket, package):
    flags = (
        "--project=a-project",
        "--region=europe-west4",
        f"--temp_location={bucket}/temporary",
        f"--setup_file={package}/setup.py",
        *MACHINES,
    )
    runner = RunnerConfig("DataflowRunner", beam_flags=flags)
    runner.check(f"{bucket}/out", f"{bucket}/photos")
