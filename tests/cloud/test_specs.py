"""The specifications of infra/vertex/: current, and such that Vertex AI and training take them."""

import ast
import copy
import json
import pathlib
import re
import shlex
import subprocess

import pytest
import yaml

from common.command import parse
from common.errors import UsageError
from pipeline.cloud.commands import (
    COMMANDS,
    Command,
    parse_command,
    recipe_of,
    variables_of,
)
from pipeline.cloud.spec_files import EXAMPLES, folded, text_of, to_yaml, write_spec_files
from pipeline.cloud.specs import continent_of, label
from pipeline.cloud.topologies import BUILD, TOPOLOGIES
from preprocessing.runners.names import DATAFLOW
from training.config import FLAG_GROUPS
from training.strategies import read_cluster

ROOT = pathlib.Path(__file__).parents[2]
VERTEX = ROOT / "infra/vertex"
FILES = sorted(VERTEX.glob("*.yaml"))
BY_NAME = {example.name: example for example in EXAMPLES}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def spec_in(path: pathlib.Path) -> dict:
    """The CustomJobSpec of a file, be it of a job or of the trials of a tuning job."""
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    return spec.get("trialJobSpec", spec)


def pools_in(path: pathlib.Path) -> list[dict]:
    return spec_in(path)["workerPoolSpecs"]


def task_of(pool: dict) -> dict:
    return pool.get("containerSpec") or pool["pythonPackageSpec"]


def comment_of(path: pathlib.Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line[2:] for line in lines if line.startswith("#"))


def test_the_files_are_those_that_the_command_writes(tmp_path):
    written = [pathlib.Path(path) for path in write_spec_files(str(tmp_path))]
    assert [path.name for path in FILES] == sorted(path.name for path in written)
    for path in written:
        current = (VERTEX / path.name).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == current, (
            f"{path.name} is old: python -m pipeline.submit --write_specs=infra/vertex"
        )


def test_there_is_a_file_for_each_topology():
    shown = {example.topology.name for example in EXAMPLES}
    assert shown == {*TOPOLOGIES, BUILD.name}
    assert all(BY_NAME[name].topology == topology for name, topology in TOPOLOGIES.items())


@each_file
def test_the_command_of_each_machine_exists_and_takes_its_flags(path):
    spec = spec_in(path)
    pools = spec["workerPoolSpecs"]
    environment = variables_of(spec["baseOutputDirectory"]["outputUriPrefix"])
    found = 0
    for place, pool in enumerate(pools):
        if not pool or place == 2:
            continue
        module, *words = task_of(pool)["args"]
        parse_command(Command(module, tuple(words)), environment)
        with pytest.raises(UsageError, match="no_such_flag"):
            parse_command(Command(module, ("--no_such_flag=1", *words)), environment)
        found += 1
    assert found >= 1
    # Whatever trains together must do so by the same flags.
    assert len({str(task_of(pool)) for n, pool in enumerate(pools) if pool and n != 2}) == 1


@each_file
def test_what_is_written_goes_below_the_directory_that_vertex_is_told(path):
    spec = spec_in(path)
    base = spec["baseOutputDirectory"]["outputUriPrefix"]
    module, *words = task_of(spec["workerPoolSpecs"][0])["args"]
    parsed = parse_command(Command(module, tuple(words)), variables_of(base))
    places = {
        "pipeline.train_recipe": lambda: recipe_of(parsed).run.model_dir,
        "pipeline.run": lambda: parsed[0].work_dir,
        "preprocessing.build_dataset": lambda: parsed[0].output_dir,
    }
    expected = {"preprocessing.build_dataset": "gs://BUCKET/data"}.get(
        module, f"{base}/checkpoints/"
    )
    assert places[module]() == expected
    assert base.startswith("gs://BUCKET/runs/")


@each_file
def test_the_comment_tells_how_the_file_is_submitted(path, tmp_path):
    lines = comment_of(path).replace("\\\n", " ").splitlines()
    (replaced,) = [line for line in lines if line.startswith("  sed ")]
    (submitted,) = [line for line in lines if line.startswith("  gcloud ")]
    script, target = replaced.rsplit(">", 1)
    done = subprocess.run(
        script, shell=True, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert not re.search(
        "PROJECT|REGION|BUCKET|REPOSITORY|VERSION", to_yaml(yaml.safe_load(done.stdout))
    )
    words = shlex.split(submitted)
    kind = "hp-tuning-jobs" if "studySpec" in done.stdout else "custom-jobs"
    assert words[:4] == ["gcloud", "ai", kind, "create"]
    assert {word.partition("=")[0] for word in words[4:]} == {
        "--project",
        "--region",
        "--display-name",
        "--labels",
        "--config",
    } | ({"--max-trial-count", "--parallel-trial-count"} if kind == "hp-tuning-jobs" else set())
    if kind == "hp-tuning-jobs":
        spec = yaml.safe_load(done.stdout)
        assert f"--max-trial-count={spec['maxTrialCount']}" in words
        assert f"--parallel-trial-count={spec['parallelTrialCount']}" in words
    assert f"--config={target.strip()}" in words
    assert target.strip() == path.name


@each_file
def test_training_understands_the_cluster_that_vertex_makes_of_the_pools(path):
    topology = BY_NAME[path.stem].topology
    pools = {
        f"workerpool{place}": [f"host-{place}-{n}:2222" for n in range(pool["replicaCount"])]
        for place, pool in enumerate(pools_in(path))
        if pool
    }
    tasks = [(pool, n) for pool in pools for n in range(len(pools[pool]))]
    roles = []
    for pool, index in tasks:
        if pool == "workerpool2":  # not our image
            continue
        spec = {"cluster": pools, "environment": "cloud", "task": {"type": pool, "index": index}}
        cluster = read_cluster({"CLUSTER_SPEC": json.dumps(spec)})
        assert len(cluster.workers) == topology.num_hosts
        roles.append("evaluator" if cluster.is_evaluator else cluster.index)
    workers = [role for role in roles if role != "evaluator"]
    assert workers == list(range(topology.num_hosts))
    assert ("evaluator" in roles) == bool(topology.evaluator)


def test_spot_machines_are_asked_for_and_all_start_again_together():
    for path in FILES:
        topology, scheduling = BY_NAME[path.stem].topology, spec_in(path)["scheduling"]
        assert scheduling.get("strategy") == ("SPOT" if topology.spot else None)
        together = topology.spot or topology.num_hosts > 1
        assert scheduling.get("restartJobOnWorkerRestart", False) == together
        assert re.fullmatch(r"\d+s", scheduling["timeout"])
    assert spec_in(VERTEX / "gpu-1-spot.yaml")["scheduling"] == {
        "timeout": "604800s",
        "restartJobOnWorkerRestart": True,
        "strategy": "SPOT",
    }


def test_reduction_servers_run_googles_image_of_the_continent():
    pool = pools_in(VERTEX / "gpu-4x8-reduction.yaml")[2]
    assert pool["replicaCount"] == 13
    assert pool["machineSpec"] == {"machineType": "n1-highcpu-16"}
    assert pool["containerSpec"] == {
        "imageUri": "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"
    }
    regions = ("us-central1", "europe-west4", "asia-east1", "australia-southeast1", "me-west1")
    assert [continent_of(region) for region in regions] == ["us", "europe", "asia", "us", "us"]


def test_places_that_are_left_free_hold_nothing():
    pools = pools_in(VERTEX / "gpu-4x8-evaluator.yaml")
    assert pools[2] == {}
    assert [pool.get("replicaCount", 0) for pool in pools] == [1, 3, 0, 1]


def test_with_an_evaluator_the_workers_evaluate_once():
    for path in FILES:
        seldom = [word for word in task_of(pools_in(path)[0])["args"] if "eval_every" in word]
        wanted = ["--eval_every_epochs=600"] if path.stem == "gpu-4x8-evaluator" else []
        assert seldom == wanted, path


def test_the_build_runs_in_the_workers_image_by_our_entry_point():
    (pool,) = pools_in(VERTEX / "preprocess.yaml")
    task = pool["containerSpec"]
    assert task["command"] == ["python", "-m", "pipeline.job"]
    before, behind = (task["args"][: task["args"].index("--")], task["args"])
    assert f"--runner={DATAFLOW}" in before
    assert f"--sdk_container_image={task['imageUri']}" in behind
    assert "--temp_location=gs://BUCKET/tmp" in behind
    assert "--num_shards=1024" in before


def test_a_package_is_started_by_the_same_entry_point():
    (pool,) = pools_in(VERTEX / "cpu-package.yaml")
    (image,) = pools_in(VERTEX / "cpu.yaml")
    assert "containerSpec" not in pool
    assert pool["pythonPackageSpec"]["pythonModule"] == "pipeline.job"
    assert pool["pythonPackageSpec"]["args"] == image["containerSpec"]["args"]


def test_a_tuning_job_varies_flags_of_training_within_what_they_may_be():
    study = yaml.safe_load((VERTEX / "tuning.yaml").read_text(encoding="utf-8"))["studySpec"]
    assert study["metrics"] == [{"metricId": "validation_top_1", "goal": "MAXIMIZE"}]
    names = [parameter["parameterId"] for parameter in study["parameters"]]
    assert {"lr", "label_smoothing"} <= set(names)
    for parameter in study["parameters"]:
        limits = parameter["doubleValueSpec"]
        assert isinstance(limits["minValue"], float) and isinstance(limits["maxValue"], float)
        assert limits["minValue"] < limits["maxValue"]
        if parameter["scaleType"] == "UNIT_LOG_SCALE":
            assert limits["minValue"] > 0
        for value in limits.values():
            words = ["", "--data_dir=a", "--model_dir=b", f"--{parameter['parameterId']}={value}"]
            groups = parse(words, *FLAG_GROUPS)
            assert any(getattr(g, parameter["parameterId"], None) == value for g in groups)


def test_each_command_is_parsed_by_the_groups_that_it_parses_itself():
    for module, flags in COMMANDS.items():
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        (call,) = [
            node
            for node in ast.walk(tree.body[-1])
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("run", "command.run")
        ]
        names = []
        for argument in call.args[1:]:
            if ast.unparse(argument) == "*FLAG_GROUPS":
                names += [group.__name__ for group in FLAG_GROUPS]
            else:
                names.append(ast.unparse(argument))
        assert names == [group.__name__ for group in flags.groups], module
        options = {keyword.arg for keyword in call.keywords}
        assert ("passthrough" in options) == bool(flags.passthrough)
        assert ("argv" in options) == (flags.prepare is not list)


def test_what_occurs_twice_is_written_twice():
    text = to_yaml({"a": (same := {"x": 1}), "b": same})
    assert text == "a:\n  x: 1\nb:\n  x: 1\n"
    assert "&id" not in text_of(BY_NAME["gpu-4x8"])


def test_a_folded_command_is_the_same_command():
    words = ["gcloud", "--labels=a=b", *(f"--flag_{n}=a value {n}" for n in range(20))]
    shown = folded(words)
    assert max(map(len, shown.splitlines())) <= 96
    assert shlex.split(shown.replace("\\\n", "")) == words  # as a shell joins lines


def test_a_label_is_one_that_google_takes():
    assert label("MobileNet v3.Large_x") == "mobilenet-v3-large_x"
    assert len(label("x" * 100)) == 63


@pytest.fixture(scope="module")
def strictly():
    """Reads a specification as Vertex AI's proto, and refuses what is not in it."""
    aiplatform_v1 = pytest.importorskip("google.cloud.aiplatform_v1")
    from google.protobuf import json_format

    def read(spec: dict):
        kind = aiplatform_v1.CustomJobSpec
        if "studySpec" in spec:
            kind = aiplatform_v1.HyperparameterTuningJob
        return json_format.ParseDict(spec, kind.pb(kind()))

    return read


@pytest.mark.cloud
@each_file
def test_each_file_is_vertex_ais_proto_without_an_unknown_field(path, strictly):
    read = strictly(yaml.safe_load(path.read_text(encoding="utf-8")))
    job = getattr(read, "trial_job_spec", read)
    topology = BY_NAME[path.stem].topology
    assert [pool.replica_count for pool in job.worker_pool_specs] == [n for _, n in topology.pools]
    assert job.worker_pool_specs[0].machine_spec.machine_type == topology.machine.machine_type
    assert job.scheduling.timeout.seconds == BY_NAME[path.stem].max_hours * 3600


@pytest.mark.cloud
@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (("scheduling", "timeOut"), "1s", "timeOut"),
        (("scheduling", "timeout"), "1d", "1d"),
        (("scheduling", "strategy"), "CHEAP", "CHEAP"),
        (("workerPoolSpecs", 0, "machineSpec", "acceleratorType"), "NVIDIA_A9", "NVIDIA_A9"),
        (("workerPoolSpecs", 0, "replicaCount"), "one", "one"),
        (("workerPoolSpecs", 0, "containerSpec", "env", 0, "valeu"), "x", "valeu"),
    ],
)
def test_the_protos_refuse_what_is_wrong(where, value, told, strictly):
    from google.protobuf.json_format import ParseError

    spec = copy.deepcopy(spec_in(VERTEX / "gpu-8.yaml"))
    strictly(spec)
    *path, last = where
    inner = spec
    for step in path:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(ParseError, match=told):
        strictly(spec)
