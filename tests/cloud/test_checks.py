"""What is found to be wrong with a job before it is sent."""

import copy
import dataclasses
import json
import re

import pytest

from pipeline.cloud import bucket_checks, checks
from pipeline.cloud.checks import Outcome
from pipeline.cloud.commands import COMMANDS, Command
from pipeline.cloud.spec_files import EXAMPLES, spec_of
from pipeline.cloud.topologies import TOPOLOGIES
from pipeline.experiments import find_experiment
from preprocessing.build_dataset import BuildConfig, build_dataset
from training.config import DataFlags

from ..preprocessing.conftest import make_tree

pytest_plugins = ["tests.storage_emulator"]

RUN_DIR = "gs://BUCKET/runs/x"
SPECS = {example.name: spec_of(example)[1] for example in EXAMPLES}


def changed(name: str, *path, value) -> dict:
    """A copy of a specification of infra/vertex/ with another value at a place."""
    spec = copy.deepcopy(SPECS[name])
    inner = spec
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return spec


def pools(name: str, *path, value) -> dict:
    return changed(name, "workerPoolSpecs", *path, value=value)


def lines_of(found) -> list[str]:
    return [str(check) for check in found]


@pytest.mark.parametrize("name", SPECS)
def test_nothing_is_wrong_with_the_examples(name):
    found = [*checks.check_shape(SPECS[name]), *checks.check_machines(SPECS[name])]
    found.append(checks.check_entry_point(SPECS[name]))
    assert {check.outcome for check in found} == {Outcome.RIGHT}
    assert len(found) >= 3


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"workerPoolSpecs": []}, "there is no chief"),
        ({"workerPoolSpecs": [{}, {"replicaCount": 1}]}, "there is no chief"),
        (pools("gpu-4x8", 0, "replicaCount", value=2), "worker pool 0, the chief, must have one"),
        (
            pools("gpu-4x8", 1, "machineSpec", "machineType", value=None),
            "worker pool 1 has no machineSpec.machineType",
        ),
        (
            pools("gpu-4x8", 1, "containerSpec", value=None),
            "worker pool 1 must have one of containerSpec and pythonPackageSpec",
        ),
        (pools("gpu-8", 0, "containerSpec", "imageUri", value=""), "does not say what it runs"),
        (
            pools("cpu-package", 0, "pythonPackageSpec", "packageUris", value=[]),
            "does not say what it runs",
        ),
        (
            changed("gpu-8", "workerPoolSpecs", value=SPECS["gpu-8"]["workerPoolSpecs"] * 5),
            "there are 5 worker pools, and 4 places for them",
        ),
        (
            changed("tpu-v3", "workerPoolSpecs", value=SPECS["tpu-v3"]["workerPoolSpecs"] * 2),
            "a TPU must be the only machine",
        ),
        (
            changed("tpu-v5e", "workerPoolSpecs", value=SPECS["tpu-v5e"]["workerPoolSpecs"] * 2),
            "a TPU must be the only machine",
        ),
    ],
)
def test_what_the_protos_let_pass_is_seen(spec, told):
    lines = lines_of(checks.check_shape(spec))
    assert any(line.startswith("✗") and told in line for line in lines), lines


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        (
            {
                "machineType": "a2-highgpu-8g",
                "acceleratorType": "NVIDIA_TESLA_A100",
                "acceleratorCount": 4,
            },
            "✗ a2-highgpu-8g cannot have 4 NVIDIA_TESLA_A100, but 8 NVIDIA_TESLA_A100",
        ),
        (
            {"machineType": "a2-highgpu-8g", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 8},
            "✗ a2-highgpu-8g cannot have NVIDIA_L4: it may have 8 NVIDIA_TESLA_A100",
        ),
        (
            {"machineType": "g2-standard-16"},
            "✗ g2-standard-16 must have 1 NVIDIA_L4, and none is asked for",
        ),
        (
            {"machineType": "n2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1},
            "✗ n2-standard-8 cannot have NVIDIA_L4: it may have no accelerators",
        ),
        (
            {
                "machineType": "n1-standard-32",
                "acceleratorType": "NVIDIA_TESLA_V100",
                "acceleratorCount": 2,
            },
            "✗ n1-standard-32 cannot have 2 NVIDIA_TESLA_V100, but 4 or 8 NVIDIA_TESLA_V100",
        ),
        (
            {
                "machineType": "n1-standard-16",
                "acceleratorType": "NVIDIA_TESLA_T4",
                "acceleratorCount": 2,
            },
            "✓ n1-standard-16 may have 2 NVIDIA_TESLA_T4",
        ),
        (
            {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "4x4"},
            "✗ ct5lp-hightpu-4t cannot have tpuTopology 4x4: there is 2x2",
        ),
        (
            {"machineType": "ct5lp-hightpu-4t"},
            "✗ ct5lp-hightpu-4t cannot have tpuTopology nothing: there is 2x2",
        ),
        (
            {"machineType": "n2-standard-8", "tpuTopology": "2x2"},
            "✗ n2-standard-8 cannot have tpuTopology 2x2: there is none",
        ),
        (
            {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2", "acceleratorCount": 4},
            "✗ cloud-tpu cannot have 4 TPU_V2, but 8 TPU_V2",
        ),
        (
            {"machineType": "x9-huge"},
            "? x9-huge is not in the table of machine types, pipeline.cloud.machines",
        ),
    ],
)
def test_accelerators_must_be_those_of_the_machine(machine, line):
    spec = {"workerPoolSpecs": [{"machineSpec": machine}]}
    assert lines_of(checks.check_machines(spec)) == [line]


@pytest.mark.parametrize(
    ("module", "words", "told"),
    [
        ("training.train", ("--data_dir=a",), "✓ training.train takes these flags"),
        ("training.train", (), "--data_dir is required"),
        ("training.train", ("--data_dir=a", "--lr=fast"), "--lr"),
        ("training.train", ("--data_dir=a", "--lr=-1"), "--lr must be above 0"),
        ("training.trane", ("--data_dir=a",), "training.trane is no command"),
        ("os", (), "os is no command"),
        ("pipeline.train_recipe", ("--recipe=no_such", "--data_dir=a"), "✓"),
        ("pipeline.evaluate", ("--data_dir=a", "--", "--x"), "unexpected argument"),
    ],
)
def test_a_command_must_take_its_words(module, words, told):
    check, parsed = checks.check_command(Command(module, words), RUN_DIR)
    assert told in str(check)
    assert bool(parsed) == (check.outcome is Outcome.RIGHT)


def test_variables_are_set_while_flags_are_parsed_and_not_after(monkeypatch):
    import os

    monkeypatch.setenv("AIP_MODEL_DIR", "mine")
    monkeypatch.delenv("AIP_CHECKPOINT_DIR", raising=False)
    before = dict(os.environ)
    _, (_, _, _, _, _, run) = checks.check_command(
        Command("training.train", ("--data_dir=a",)), RUN_DIR
    )
    assert run.model_dir == f"{RUN_DIR}/checkpoints/"
    assert dict(os.environ) == before


def test_a_package_does_not_find_accelerators_by_itself():
    assert checks.check_package(SPECS["gpu-8"]) is None
    assert checks.check_package(SPECS["cpu-package"]).outcome is Outcome.RIGHT
    spec = pools(
        "cpu-package", 0, "machineSpec", value={"machineType": "x", "acceleratorType": "y"}
    )
    assert checks.check_package(spec).outcome is Outcome.DOUBTFUL


def test_an_entry_point_that_is_not_there_is_seen():
    spec = pools("cpu-package", 0, "pythonPackageSpec", "pythonModule", value="pipeline.jobb")
    assert str(checks.check_entry_point(spec)) == "✗ the entry point pipeline.jobb does not exist"


@pytest.mark.parametrize(
    ("recipe", "topology", "changes", "line"),
    [
        ("mobilenet_v3_large_torchvision", "gpu-8", {}, "✓ a batch of 1024 is 128 on each of 8 re"),
        ("mobilenet_v3_large_torchvision", "gpu-4x8", {}, "✓ a batch of 1024 is 32 on each of 32"),
        ("demo", "cpu", {"batch_size": 7}, "✓ a batch of 7 is 7 on each of 1 replica"),
        # Replicas are given pairs: 8 x 2.
        ("demo", "gpu-8", {"batch_size": 24}, "take a multiple of 16"),
        ("demo", "tpu-v5e", {"batch_size": 24, "gradient_accumulation": 2}, "a multiple of 16"),
        ("demo", "gpu-8", {"batch_size": 48}, "✓ a batch of 48 is 6 on each of 8 replicas"),
    ],
)
def test_the_batch_must_be_shared_evenly(recipe, topology, changes, line):
    flags = find_experiment(recipe).recipe
    flags = dataclasses.replace(
        flags, optimization=dataclasses.replace(flags.optimization, **changes)
    )
    check = checks.check_batch(flags, TOPOLOGIES[topology])
    assert line in str(check)
    assert (check.outcome is Outcome.RIGHT) == line.startswith("✓")


def test_a_recipe_that_goes_on_from_weights_needs_them():
    recipe = find_experiment("fine-tune").recipe
    assert checks.check_start(recipe, needs_checkpoint=False) is None
    assert "--init_checkpoint=gs://" in str(checks.check_start(recipe, needs_checkpoint=True))
    run = dataclasses.replace(recipe.run, init_checkpoint="gs://a/b.ckpt")
    check = checks.check_start(dataclasses.replace(recipe, run=run), needs_checkpoint=True)
    assert str(check) == "✓ it starts from gs://a/b.ckpt"


@pytest.mark.parametrize(
    ("uri", "region", "outcome"),
    [
        ("us-central1-docker.pkg.dev/p/r/i:1", "us-central1", Outcome.RIGHT),
        ("us-docker.pkg.dev/p/r/i:1", "us-central1", Outcome.RIGHT),
        ("europe-docker.pkg.dev/p/r/i:1", "europe-west4", Outcome.RIGHT),
        ("eu.gcr.io/p/i", "europe-west4", Outcome.RIGHT),
        ("gcr.io/p/i", "us-east1", Outcome.RIGHT),
        ("us-west1-docker.pkg.dev/p/r/i:1", "us-central1", Outcome.DOUBTFUL),
        ("us-docker.pkg.dev/p/r/i:1", "europe-west4", Outcome.DOUBTFUL),
        ("gcr.io/p/i", "asia-east1", Outcome.DOUBTFUL),
        ("docker.io/library/python", "us-central1", Outcome.UNCHECKED),
        ("example.com/notgcr.io/x", "us-central1", Outcome.UNCHECKED),
    ],
)
def test_an_image_should_lie_near_the_job(uri, region, outcome):
    assert checks.check_image(uri, region).outcome is outcome


def test_a_job_that_is_ended_too_early_is_told():
    assert checks.check_time(None, 10) == []
    assert checks.check_time(10.0, 10)[0].outcome is Outcome.RIGHT
    (check,) = checks.check_time(10.2, 10)
    assert check.outcome is Outcome.DOUBTFUL
    assert "is ended after 10" in check.text


@pytest.mark.parametrize(
    ("strategy", "hosts", "devices", "tpu", "told"),
    [
        ("mirrored", 4, 8, None, "--strategy=mirrored is for one host, and there are 4"),
        ("default", 4, 1, None, "take multi_worker"),
        ("default", 1, 8, None, "computes on one device, and there are 8: take mirrored"),
        ("multi_worker", 1, 8, None, "is for several hosts, and there is one"),
        ("tpu", 1, 8, False, "--strategy=tpu, but there is no TPU"),
        ("mirrored", 1, 8, True, "--strategy=mirrored on a TPU: take tpu"),
        *(("auto", hosts, devices, None, "") for hosts in (1, 4) for devices in (0, 1, 8)),
        *(("auto", 1, 8, tpu, "") for tpu in (True, False)),
        ("multi_worker", 4, 8, None, ""),
        ("multi_worker", 2, 0, False, ""),
        ("mirrored", 1, 8, False, ""),
        ("mirrored", 1, 1, None, ""),
        ("default", 1, 1, False, ""),
        ("default", 1, 0, None, ""),
        ("tpu", 1, 8, True, ""),
        ("tpu", 1, 8, None, ""),
    ],
)
def test_the_strategy_must_suit_hosts_and_devices(strategy, hosts, devices, tpu, told):
    said = checks.check_strategy(strategy, hosts, devices, tpu)
    assert told in said and bool(told) == bool(said)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_topologys_own_strategy_suits_it(name):
    topology = TOPOLOGIES[name]
    words = ("--data_dir=gs://a/b", f"--strategy={topology.strategy}")
    _, parsed = checks.check_command(Command("training.train", words), RUN_DIR)
    assert [c.outcome for c in checks.check_devices(parsed, topology)] == [Outcome.RIGHT]


def test_every_flag_that_takes_a_path_is_looked_at():
    told = r"director|\bfiles?\b|\bpath|gs://|checkpoint|where the"
    no_paths = {"split", "calibration_split", "split_name", "formats", "width_multiplier"}
    for module, flags in COMMANDS.items():
        for group in flags.groups:
            for field in dataclasses.fields(group):
                takes_text = str(field.type).startswith("str") and not field.metadata["choices"]
                if takes_text and re.search(told, field.metadata["help"], re.IGNORECASE):
                    assert field.name in {*checks.PATH_FLAGS, *no_paths}, (module, field.name)
    known = {
        f.name for each in COMMANDS.values() for g in each.groups for f in dataclasses.fields(g)
    }
    assert set(checks.PATH_FLAGS) <= known


def test_paths_of_one_machine_are_refused():
    words = [f"--{name}=here" for name in ("data_dir", "log_dir", "init_checkpoint")]
    words.append("--teacher_checkpoint=here")
    _, parsed = checks.check_command(Command("training.train", tuple(words)), RUN_DIR)
    lines = lines_of(checks.check_paths(parsed))
    assert [line.partition(" is a path on the job's own machine")[0] for line in lines] == [
        *("✗ --data_dir=here", "✗ --teacher_checkpoint=here"),
        *("✗ --log_dir=here", "✗ --init_checkpoint=here"),
    ]
    for path in ("gs://a/b", "/gcs/a/b"):
        _, parsed = checks.check_command(
            Command("training.train", (f"--data_dir={path}",)), RUN_DIR
        )
        assert checks.check_paths(parsed) == []


def test_fields_are_not_checked_without_the_client(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    monkeypatch.delattr("google.cloud.aiplatform_v1", raising=False)
    check = checks.check_fields(SPECS["gpu-8"])
    assert check.outcome is Outcome.UNCHECKED
    assert "extra 'vertex'" in check.text


@pytest.mark.cloud
def test_fields_are_checked_with_the_client():
    assert (
        str(checks.check_fields(SPECS["gpu-8"]))
        == "✓ every field is one of Vertex AI's CustomJobSpec"
    )
    assert str(checks.check_fields(SPECS["tuning"])) == (
        "✓ every field is one of Vertex AI's HyperparameterTuningJob"
    )
    wrong = checks.check_fields(changed("gpu-8", "scheduling", "timeOut", value="1s"))
    assert wrong.outcome is Outcome.WRONG
    assert "timeOut" in wrong.text and "\n" not in wrong.text


@pytest.mark.cloud
def test_options_of_beam_are_checked_with_its_cloud_parts():
    (build,) = [example for example in EXAMPLES if example.name == "preprocess"]
    command = spec_of(build)[0].command
    assert checks.check_beam(command).outcome is Outcome.RIGHT
    more = Command(command.module, (*command.words, "--max_num_worker=3"))
    check = checks.check_beam(more)
    assert check.outcome is Outcome.WRONG
    assert "max_num_workers" in check.text
    assert checks.check_beam(Command("training.train", ("--data_dir=a",))) is None


def make_bucket(proxy, name: str, location: str) -> None:
    headers = {"Content-Type": "application/json"}
    # The emulator puts all buckets into the US at first.
    for request, fields in (
        (("POST", "/storage/v1/b?project=test"), {"name": name}),
        (("PATCH", f"/storage/v1/b/{name}"), {"location": location}),
    ):
        assert proxy.ask(*request, json.dumps(fields).encode(), headers).status == 200


@pytest.mark.parametrize(
    ("location", "line"),
    [
        ("US-CENTRAL1", "✓ gs://there lies in us-central1, where the job runs"),
        ("EUROPE-WEST4", "✗ gs://there lies in europe-west4 and the job runs in us-central1"),
        ("US", "! gs://there is spread over us"),
        ("NAM4", "! gs://there is spread over nam4"),
    ],
)
def test_a_bucket_should_lie_where_the_job_runs(location, line, storage_proxy):
    make_bucket(storage_proxy, "there", location)
    assert str(bucket_checks.check_bucket("gs://there/runs", "us-central1")).startswith(line)


def test_a_bucket_that_cannot_be_looked_at_is_told_at_once(bucket, storage_proxy):
    check = bucket_checks.check_bucket("gs://no-such-bucket/x", "us-central1")
    assert str(check) == "✗ gs://no-such-bucket does not exist"
    for status, told in ((403, "storage.buckets.get"), (503, "cannot be reached")):
        storage_proxy.fail(status)
        check = bucket_checks.check_bucket(f"{bucket}/x", "us-central1")
        assert check.outcome is Outcome.UNCHECKED
        assert told in check.text
        assert storage_proxy.num_faults == 1  # it is not tried again


def test_the_splits_that_training_reads_must_be_there(tmp_path, bucket, storage_proxy):
    data = DataFlags(data_dir=f"{bucket}/data", train_split="train[:90%]", eval_split="train[90%:]")
    found, manifests = bucket_checks.check_data(data)
    assert lines_of(found) == [f"✗ {bucket}/data has no split 'train': --stage=preprocess makes it"]
    assert manifests == {}
    tree = make_tree(tmp_path / "photos", per_folder=12)
    for split in ("train", "validation"):
        build_dataset(
            BuildConfig(source=str(tree), output_dir=f"{bucket}/data", split=split, num_shards=1)
        )
    found, manifests = bucket_checks.check_data(data)
    (line,) = lines_of(found)
    number = manifests["train"].num_examples
    assert line == f"✓ {bucket}/data has {number} examples of 3 classes in 'train'"
    assert number == 36 and manifests.keys() == {"train"}
    found, _ = bucket_checks.check_data(dataclasses.replace(data, eval_split="test"))
    assert [check.outcome for check in found] == [Outcome.WRONG, Outcome.RIGHT]
    storage_proxy.put("data/train/manifest.json", b"{}")
    (line,) = lines_of(bucket_checks.check_data(data)[0])
    assert line.startswith(f"✗ {bucket}/data/train/manifest.json is damaged")


def test_shards_that_others_made_are_found_by_their_names(bucket, storage_proxy):
    storage_proxy.put("classic/train-00000-of-00002", b"")
    storage_proxy.put("tfds/toys/1.0.0/toys-train.tfrecord-00000-of-00001", b"")
    classic = DataFlags(data_dir=f"{bucket}/classic", eval_split="")
    tfds = DataFlags(data_dir=f"{bucket}/tfds", dataset_name="toys")
    assert lines_of(bucket_checks.check_data(classic)[0]) == [
        f"✓ {bucket}/classic has 1 shards of 'train', made by others"
    ]
    assert [check.outcome for check in bucket_checks.check_data(tfds)[0]] == [
        Outcome.RIGHT,
        Outcome.WRONG,
    ]
    made_up = DataFlags(data_dir="gs://x", dataset_name="synthetic")
    assert [c.outcome for c in bucket_checks.check_data(made_up)[0]] == [Outcome.RIGHT]


def test_what_a_stage_reads_must_be_there(bucket, storage_proxy):
    storage_proxy.put("runs/x/evaluation.json", b"{}")
    path = f"{bucket}/runs/x/evaluation.json"
    assert str(bucket_checks.check_input(path, "a")) == f"✓ {path} is there"
    assert str(bucket_checks.check_input(f"{path}x", "--stage=evaluate")) == (
        f"✗ {path}x is not there: --stage=evaluate makes it"
    )
