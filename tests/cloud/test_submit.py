"""`python -m pipeline.submit`: what it prints, what it sends, and when it does not."""

import json
import os
import pathlib
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from common.command import run_to_exit_code
from pipeline.cloud import sending
from pipeline.cloud.spec_files import EXAMPLES, spec_of
from pipeline.submit import SubmitConfig, submit
from preprocessing.build_dataset import BuildConfig, build_dataset

from ..preprocessing.conftest import make_tree
from .conftest import OFFLINE, TRAIN, words_in

pytest_plugins = ["tests.storage_emulator"]

GCLOUD = """#!/bin/sh
echo "$@" >> "$GCLOUD_LOG"
echo "gcloud was here"
exit $GCLOUD_CODE
"""


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    """A gcloud that writes down how it is called; and what it has written."""
    program, log = tmp_path / "bin/gcloud", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(GCLOUD, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GCLOUD_LOG", str(log))
    monkeypatch.setenv("GCLOUD_CODE", "0")
    return lambda: log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def gcloud_words(text: str) -> list[str]:
    start = text.index("gcloud ai ")
    return shlex.split(text[start:].partition("\n\n")[0].replace("\\\n", ""))


def test_nothing_is_sent_unless_asked(run, gcloud, tmp_path):
    done = run(*TRAIN, OFFLINE)
    assert (done.code, done.error) == (0, "")
    assert gcloud() == []
    path = tmp_path / "specs/mobilenet-v3-large-torchvision-train.yaml"
    parts = [
        "✓ a2-highgpu-8g may have 8 NVIDIA_TESLA_A100",
        "✓ a batch of 1024 is 128 on each of 8 replicas",
        f"{path}:",
        "workerPoolSpecs:",
        "mobilenet_v3_large_torchvision on gpu-8",
        "600 epochs of",
        "gcloud ai custom-jobs create",
        "not submitted: add --submit",
    ]
    places = [done.text.index(part) for part in parts]
    assert places == sorted(places)
    assert path.read_text(encoding="utf-8").rstrip() in done.text
    assert gcloud_words(done.text) == [
        *("gcloud", "ai", "custom-jobs", "create", "--project=my-project"),
        *("--region=us-central1", "--display-name=mobilenet-v3-large-torchvision-train"),
        "--labels=run=mobilenet_v3_large_torchvision,stage=train",
        f"--config={path}",
    ]


def test_the_job_is_that_of_the_example_with_names_filled_in(run):
    (example,) = [example for example in EXAMPLES if example.name == "gpu-8"]
    expected = json.dumps(spec_of(example)[1])
    for placeholder, value in (
        ("PROJECT", "my-project"),
        ("REGION", "us-central1"),
        ("BUCKET", "my-bucket"),
        ("REPOSITORY", "mobilenet"),
    ):
        expected = expected.replace(placeholder, value)
    assert run(*TRAIN, "--name=gpu-8", OFFLINE).spec == json.loads(expected)


def test_it_is_sent_by_the_command_that_is_shown(run, gcloud):
    done = run(*TRAIN, OFFLINE, "--submit")
    assert (done.code, done.error) == (0, "")
    (called,) = gcloud()
    assert called.split() == gcloud_words(done.text)[1:]
    assert done.text.index("gcloud ai ") < done.text.index("gcloud was here")
    assert "not submitted" not in done.text
    config = called.split()[-1].removeprefix("--config=")
    assert yaml.safe_load(pathlib.Path(config).read_text(encoding="utf-8")) == done.spec


def test_a_job_that_fails_a_check_is_not_sent(run, gcloud):
    wrong = (*TRAIN, OFFLINE, "--", "--batch_size=100")
    done = run(*wrong)
    assert done.code == 1
    assert "✗ --batch_size=100 cannot be shared in pairs by 8 replicas" in done.text
    assert done.text.endswith("not submitted: mend what is marked ✗ above\n")
    done = run("--submit", *wrong)
    assert done.code == 1
    assert done.error.endswith(": not submitted: mend what is marked ✗ above\n")
    assert gcloud() == []


def test_a_gcloud_that_fails_is_told(run, gcloud, monkeypatch):
    monkeypatch.setenv("GCLOUD_CODE", "3")
    done = run("--stage=evaluate", "--name=x", OFFLINE, "--submit")
    assert done.code == 1
    assert done.error.endswith(": gcloud ended with exit code 3 and did not submit the job\n")
    assert len(gcloud()) == 1


def test_a_gcloud_that_is_not_there_is_told(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("--stage=evaluate", "--name=x", OFFLINE, "--submit")
    assert done.code == 1
    assert ": gcloud is not installed" in done.error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--stage=train",), "--stage=train needs --experiment"),
        (("--stage=train", "--experiment=no_such"), "unknown experiment 'no_such'"),
        ((*TRAIN, "--topology=gpu-9"), "unknown topology 'gpu-9'"),
        ((*TRAIN, "--region="), "--region is required"),
        (("--experiment=demo",), "--stage is required"),
        (("--stage=evaluate",), "--name or --experiment is required"),
        (("--stage=run", "--topology=gpu-4x8"), "--stage=run runs on one machine"),
        (("--stage=export", "--name=x", "--evaluator"), "--stage=export runs on one machine"),
        (("--stage=evaluate", "--name=x", "--evaluator"), "--evaluator evaluates what is trained"),
        ((*TRAIN, "--reduction_servers=2"), "--reduction_servers sum what several hosts send"),
        ((*TRAIN, "--reduction_servers=-1"), "--reduction_servers must be at least 0, not -1"),
        ((*TRAIN, "--max_hours=0"), "--max_hours must be at least 1, not 0"),
        ((*TRAIN, "--data_dir=/data"), "--data_dir=/data: a job elsewhere can only reach gs://"),
        ((*TRAIN, "--image=a.io/b", "--package_uri=gs://bkt/c"), "give --image or --package_uri"),
        ((*TRAIN, "--package_uri=gs://bkt/c"), "--package_uri and --executor_image go together"),
        (("--stage=preprocess", "--topology=cpu"), "--stage=preprocess takes no --topology"),
        (
            ("--stage=preprocess", "--package_uri=gs://bkt/c", "--executor_image=d/e"),
            "--stage=preprocess runs the image of Dataflow's workers",
        ),
        (("--stage=run", "--data_dir=gs://bkt/data"), "leave --data_dir and --published out"),
        (("--stage=run", "--published=gs://bkt/out"), "leave --data_dir and --published out"),
        (("--stage=preprocess", "--", "--runner=DirectRunner"), "leave --runner out"),
        (("--stage=preprocess", "--", "--runner", "DirectRunner"), "leave --runner out"),
        ((*TRAIN, "--spec_dir=gs://bkt/specs"), "gcloud reads local files only"),
    ],
)
def test_what_does_not_go_together_is_one_line(words, told, run):
    done = run(*words, OFFLINE)
    assert (done.code, done.text, done.spec) == (2, "", None)
    (line,) = done.error.splitlines()
    assert told in line


@pytest.mark.parametrize(
    ("words", "machine", "expected"),
    [
        (
            ("--stage=evaluate", "--name=x"),
            "g2-standard-16",
            [
                "pipeline.evaluate",
                "--checkpoint_path=gs://my-bucket/runs/x/checkpoints",
                "--data_dir=gs://my-bucket/data",
                "--output=gs://my-bucket/runs/x/evaluation.json",
                "--strategy=default",
            ],
        ),
        (
            ("--stage=export", "--experiment=mobilenet_v2", "--data_dir=gs://other/shards"),
            "n2-standard-8",
            [
                "pipeline.export",
                "--checkpoint_path=gs://my-bucket/runs/mobilenet_v2/checkpoints",
                "--data_dir=gs://other/shards",
                "--evaluation=gs://my-bucket/runs/mobilenet_v2/evaluation.json",
            ],
        ),
        (
            ("--stage=publish", "--name=x", "--run_dir=gs://other/x/", "--", "--alias=stable"),
            "n2-standard-8",
            [
                "pipeline.publish",
                "--export_dir=gs://other/x/model",
                "--to=gs://my-bucket/published/x",
                "--alias=stable",
            ],
        ),
        (("--stage=run",), "n2-standard-8", ["pipeline.run", "--experiment=demo"]),
    ],
)
def test_each_stage_reads_what_the_one_before_it_wrote(words, machine, expected, run):
    done = run(OFFLINE, *words)
    assert (done.code, done.error) == (0, "")
    (pool,) = done.spec["workerPoolSpecs"]
    assert pool["machineSpec"]["machineType"] == machine
    assert pool["containerSpec"]["args"] == expected


def test_a_build_is_started_from_a_job_that_waits_for_it(run):
    more = ("--source=gs://x/photos.tar", "--split=validation", "--", "--max_num_workers=7")
    done = run("--stage=preprocess", "--experiment=mobilenet_v2", OFFLINE, "--", *more)
    assert (done.code, done.error) == (0, "")
    (pool,) = done.spec["workerPoolSpecs"]
    image = "us-central1-docker.pkg.dev/my-project/mobilenet/dataflow-worker:1"
    assert pool["machineSpec"] == {"machineType": "n2-standard-4"}
    assert pool["containerSpec"]["imageUri"] == image
    words = words_in(done.spec)
    place = words.index("--")
    assert words[:place] == [
        *("preprocessing.build_dataset", "--output_dir=gs://my-bucket/data", "--num_shards=128"),
        *("--source=gs://x/photos.tar", "--split=validation", "--runner=DataflowRunner"),
    ]
    assert f"--sdk_container_image={image}" in words[place:]
    assert words[-1] == "--max_num_workers=7"
    account = "builder@my-project.iam.gserviceaccount.com"
    assert done.spec["serviceAccount"] == account
    assert f"--service_account_email={account}" in words[place:]


def test_a_build_without_a_source_is_refused(run):
    done = run("--stage=preprocess", OFFLINE)
    assert done.code == 1
    assert "✗ preprocessing.build_dataset: --source is required" in done.text


def test_flags_behind_the_dashes_win_and_are_counted_in_the_estimate(run):
    done = run(*TRAIN, OFFLINE, "--", "--epochs=7", "--strategy=auto")
    assert words_in(done.spec)[-2:] == ["--epochs=7", "--strategy=auto"]
    assert "7 epochs of" in done.text and "600 epochs of" not in done.text
    done = run(*TRAIN, OFFLINE, "--", "--epoch=7")
    assert done.code == 1
    assert "✗ pipeline.train_recipe: " in done.text and "epoch" in done.text


def test_the_number_of_photos_may_be_given_for_the_estimate(run):
    done = run(*TRAIN, OFFLINE)
    assert "It is counted for ImageNet's photos" in done.text
    more = ("--num_train_examples=2000", "--num_eval_examples=50")
    done = run(*TRAIN, *more, OFFLINE)
    # The recipe trains on train[:99%] and evaluates on train[99%:].
    assert "600 epochs of 1,980 images in batches of 1,024" in done.text
    assert " x 20 images" in done.text
    assert "It is counted for ImageNet's photos" not in done.text


def test_machines_change_with_the_flags(run):
    done = run(
        *TRAIN, "--topology=gpu-4x8", "--spot", "--evaluator", "--reduction_servers=9", OFFLINE
    )
    assert [pool["replicaCount"] for pool in done.spec["workerPoolSpecs"]] == [1, 3, 9, 1]
    assert done.spec["scheduling"]["strategy"] == "SPOT"
    done = run(*TRAIN, "--topology=gpu-4x8-reduction", "--reduction_servers=0", OFFLINE)
    assert [pool["replicaCount"] for pool in done.spec["workerPoolSpecs"]] == [1, 3]
    done = run(*TRAIN, "--topology=tpu-v3", "--evaluator", OFFLINE)
    assert done.code == 1 and "✗ a TPU must be the only machine of its job" in done.text


def test_a_package_and_an_image_of_ones_own(run):
    done = run(
        *("--stage=run", "--package_uri=gs://bkt/y.tar.gz", "--executor_image=a/b:latest", OFFLINE)
    )
    package = done.spec["workerPoolSpecs"][0]["pythonPackageSpec"]
    assert package["packageUris"] == ["gs://bkt/y.tar.gz"]
    assert package["executorImageUri"] == "a/b:latest"
    done = run("--stage=run", "--image=gcr.io/x/y", "--service_account=me@x.com", OFFLINE)
    assert done.spec["workerPoolSpecs"][0]["containerSpec"]["imageUri"] == "gcr.io/x/y"
    assert done.spec["serviceAccount"] == "me@x.com"


def test_a_job_that_would_be_ended_too_early_is_told(run):
    done = run(*TRAIN, "--max_hours=2", OFFLINE)
    assert done.code == 0
    assert "and is ended after 2: raise --max_hours" in done.text
    assert done.spec["scheduling"]["timeout"] == "7200s"


def test_the_bucket_is_looked_at(run, tmp_path, bucket, storage_proxy):
    words = ("--stage=train", "--experiment=demo-scratch", "--topology=cpu", f"--bucket={bucket}")
    done = run(*words)
    assert done.code == 1
    assert f"! {bucket} is spread over us" in done.text
    for split in ("train", "validation"):
        assert f"✗ {bucket}/data has no split {split!r}" in done.text
    tree = make_tree(tmp_path / "photos", per_folder=20)
    for split, where in (("train", "data"), ("validation", "data")):
        build_dataset(
            BuildConfig(str(tree), f"{bucket}/{where}", split, num_shards=1, holdout_fraction=0.3)
        )
    done = run(*words)
    assert (done.code, done.error) == (0, "")
    (line,) = [line for line in done.text.splitlines() if "examples of 3 classes in 'tr" in line]
    number = int(line.partition(" has ")[2].split()[0])
    assert 0 < number < 60
    assert f"24 epochs of {number} images in batches of 32" in done.text
    assert "ImageNet's photos" not in done.text


def test_each_bucket_is_looked_at(run, bucket, storage_proxy):
    words = ("--stage=train", "--experiment=demo-scratch", "--topology=cpu", f"--bucket={bucket}")
    for path in ("gs://other/data", "/gcs/other/data"):
        done = run(*words, "--", f"--data_dir={path}")
        assert done.code == 1
        assert f"! {bucket} is spread over us" in done.text
        assert "✗ gs://other does not exist" in done.text
    done = run(*words, "--", f"--data_dir=/gcs/{bucket.removeprefix('gs://')}/data")
    assert f"✗ {bucket}/data has no split 'train'" in done.text


def test_the_bucket_comes_before_what_is_in_it(run, storage_proxy):
    done = run(*TRAIN, "--bucket=no-such-bucket", "--submit")
    assert done.code == 1
    assert "✗ gs://no-such-bucket does not exist" in done.text
    assert "? what is in the bucket was not looked at" in done.text
    assert "not submitted" in done.error


@pytest.mark.parametrize(
    ("stage", "needed"),
    [
        (
            "evaluate",
            {
                "runs/x/checkpoints/checkpoint": "train",
                "data/validation/manifest.json": "preprocess",
            },
        ),
        (
            "export",
            {
                "runs/x/checkpoints/checkpoint": "train",
                "runs/x/evaluation.json": "evaluate",
                "data/validation/manifest.json": "preprocess",
            },
        ),
        ("publish", {"runs/x/model/export.json": "export"}),
    ],
)
def test_what_the_stage_before_makes_must_be_there(stage, needed, run, bucket, storage_proxy):
    words = (f"--stage={stage}", "--name=x", f"--bucket={bucket}")
    done = run(*words)
    assert done.code == 1
    missing = [line for line in done.text.splitlines() if line.startswith("✗")]
    assert len(missing) == len(needed)
    for line, maker in zip(missing, needed.values(), strict=True):
        assert line.endswith(f"is not there: --stage={maker} makes it")
    for name in needed:
        storage_proxy.put(name, b"{}")
    done = run(*words)
    assert (done.code, done.error) == (0, "")


def test_examples_are_written_and_nothing_else_is_done(capfd, tmp_path):
    argv = ["submit", f"--write_specs={tmp_path}"]
    assert run_to_exit_code(submit, SubmitConfig, argv=argv, passthrough="x") == 0
    assert sorted(capfd.readouterr().out.split()) == sorted(map(str, tmp_path.glob("*.yaml")))


class _VertexAI(BaseHTTPRequestHandler):
    """Takes jobs, or refuses them."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path.partition("?")[0], json.loads(body)))
        status = self.server.status
        answer = {"name": "projects/1/locations/us-central1/customJobs/2"}
        if status != 200:
            answer = {"error": {"code": status, "message": "no quota for so many GPUs"}}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def vertex_ai(monkeypatch):
    """Vertex AI on this machine, and a client that asks it."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.aiplatform_v1 import JobServiceClient

    server = ThreadingHTTPServer(("127.0.0.1", 0), _VertexAI)
    server.asked, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    client = JobServiceClient(
        transport="rest",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": f"http://127.0.0.1:{server.server_address[1]}"},
    )
    monkeypatch.setattr(sending, "make_client", {"us-central1": client}.get)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.cloud
def test_the_client_sends_the_same_job(run, vertex_ai):
    done = run(*TRAIN, OFFLINE, "--submit", "--via=client")
    assert (done.code, done.error) == (0, "")
    assert "submitted: projects/1/locations/us-central1/customJobs/2" in done.text
    ((path, body),) = vertex_ai.asked
    assert path == "/v1/projects/my-project/locations/us-central1/customJobs"
    assert body["displayName"] == "mobilenet-v3-large-torchvision-train"
    assert body["labels"] == {"run": "mobilenet_v3_large_torchvision", "stage": "train"}
    (sent,), (asked,) = body["jobSpec"]["workerPoolSpecs"], done.spec["workerPoolSpecs"]
    assert sent["containerSpec"] == asked["containerSpec"]
    assert sent["replicaCount"] == "1"
    assert body["jobSpec"]["scheduling"] == done.spec["scheduling"]
    assert body["jobSpec"]["baseOutputDirectory"] == done.spec["baseOutputDirectory"]


@pytest.mark.cloud
def test_a_refusal_is_one_line(run, vertex_ai):
    vertex_ai.status = 429
    done = run(*TRAIN, OFFLINE, "--submit", "--via=client")
    assert done.code == 1
    (line,) = done.error.splitlines()
    assert ": Vertex AI did not take the job: " in line
    assert "no quota for so many GPUs" in line


def test_the_client_must_be_installed(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    done = run(*TRAIN, OFFLINE, "--submit", "--via=client")
    assert done.code == 1
    assert "--via=client needs google-cloud-aiplatform" in done.error
