"""The pipeline for Kubeflow and Vertex Pipelines: the same stages, as its compiler writes them."""

import functools
import re
import sys

import pytest
import yaml

from common import command
from common.errors import UsageError
from pipeline.cloud.stage_graph import Task, plan_tasks
from pipeline.experiments import EXPERIMENTS, SCRATCH
from pipeline.manifests import FLAGS, render

from .cluster import ROOT, command_in, container_of, flags_of, jobs_of, objects_of

COMMITTED = ROOT / "infra" / "kubeflow" / "pipeline.yaml"
FOR_KUBEFLOW = ("--format=kubeflow", "--output=pipeline.yaml")
WORK_DIR = "gs://BUCKET/here"
PARAMETER = "{{$.inputs.parameters['work_dir']}}"


@functools.cache
def compiled(*words: str) -> dict:
    (text,) = render(*flags_of(*FOR_KUBEFLOW, f"--work_dir={WORK_DIR}", *words)).values()
    return yaml.safe_load(text)


@functools.cache
def committed() -> dict:
    return yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))


def needs_of(pipeline: dict) -> dict[str, set[str]]:
    steps = pipeline["root"]["dag"]["tasks"]
    return {name: set(step.get("dependentTasks", ())) for name, step in steps.items()}


def executor_of(pipeline: dict, name: str) -> dict:
    component = pipeline["root"]["dag"]["tasks"][name]["componentRef"]["name"]
    label = pipeline["components"][component]["executorLabel"]
    return pipeline["deploymentSpec"]["executors"][label]["container"]


def words_of(pipeline: dict, name: str, work_dir: str) -> list[str]:
    container = executor_of(pipeline, name)
    return [word.replace(PARAMETER, work_dir) for word in container["command"] + container["args"]]


def words_in_jobs(*words: str) -> dict[str, list[str]]:
    """The same line as Jobs, for a run called `x`."""
    jobs = jobs_of(objects_of("--name=x", *words))
    return {
        job["metadata"]["name"].removeprefix("x-"): container_of(job)["command"]
        + container_of(job)["args"]
        for job in jobs
    }


def assert_same(pipeline: dict, tasks: list[Task], work_dir: str) -> None:
    assert needs_of(pipeline) == {task.name: set(task.needs) for task in tasks}
    for task in tasks:
        wanted = ["python", "-m", "pipeline.job", *task.words_in(work_dir)]
        assert words_of(pipeline, task.name, work_dir) == wanted


def test_the_committed_pipeline_has_the_stages_of_the_table():
    flags, _, _, run = command.parse(["", *command_in(COMMITTED.read_text("utf-8"))], *FLAGS)
    assert flags.output == str(COMMITTED.relative_to(ROOT))
    words = words_in_jobs(
        f"--work_dir={run.work_dir}",
        f"--dataset={run.dataset}",
        f"--experiment={run.experiment}",
        f"--train_flags={run.train_flags}",
        f"--train_source={flags.train_source}",
        f"--validation_source={flags.validation_source}",
    )
    found = {name: words_of(committed(), name, run.work_dir) for name in needs_of(committed())}
    assert found == words
    (parameter,) = committed()["root"]["inputDefinitions"]["parameters"].items()
    assert (parameter[0], parameter[1]["defaultValue"]) == ("work_dir", run.work_dir)


def test_the_committed_pipeline_starts_each_step_after_what_it_reads():
    finished: set[str] = set()
    waiting = needs_of(committed())
    while ready := [name for name, needs in waiting.items() if needs <= finished]:
        finished.update(ready)
        waiting = {name: needs for name, needs in waiting.items() if name not in finished}
    assert not waiting
    assert len(finished) == 9
    needs = needs_of(committed())
    assert {"verify-train", "verify-validation"} <= needs["train"]
    assert needs["evaluate"] == {"train"}
    assert needs["export"] == {"evaluate"}


def test_the_committed_pipeline_passes_paths_alone_and_is_never_skipped():
    for name, step in committed()["root"]["dag"]["tasks"].items():
        assert not step["cachingOptions"].get("enableCache", False)
        assert step["retryPolicy"]["maxRetryCount"] > 0
        (component,) = [step["componentRef"]["name"]]
        inputs = committed()["components"][component]["inputDefinitions"]
        assert inputs == {"parameters": {"work_dir": {"parameterType": "STRING"}}}
        assert "outputDefinitions" not in committed()["components"][component]
        container = executor_of(committed(), name)
        assert ("accelerator" in container["resources"]) == (name == "train")
        assert {"name": "LOG_FORMAT", "value": "json"} in container["env"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--work_dir=/work/demo", "--init=scratch"), "gs://"),
        ((f"--work_dir={WORK_DIR}", "--init=scratch", "--workers=4"), "--workers=4"),
        ((f"--work_dir={WORK_DIR}", "--init=tf1"), "--init=tf1"),
        ((f"--work_dir={WORK_DIR}", "--init=scratch", "--image=foo bar"), "--image='foo bar' must"),
        ((f"--work_dir={WORK_DIR}", "--init=scratch", "--gpu_type=L4 x"), "--gpu_type='L4 x' must"),
    ],
)
def test_mistakes_are_told(words, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        render(*flags_of(*FOR_KUBEFLOW, *words))


def test_it_is_told_that_the_compiler_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[kubeflow\]'"):
        render(*flags_of(*FOR_KUBEFLOW, f"--work_dir={WORK_DIR}", "--init=scratch"))


@pytest.mark.cloud
def test_what_is_committed_is_what_its_command_writes():
    text = COMMITTED.read_text(encoding="utf-8")
    (found,) = render(*command.parse(["", *command_in(text)], *FLAGS)).values()
    assert yaml.safe_load(found) == committed()
    assert found == text


@pytest.mark.cloud
def test_steps_are_the_tasks_of_the_table():
    tasks = plan_tasks(EXPERIMENTS["demo-scratch"], "demo", SCRATCH)
    assert_same(compiled("--init=scratch"), tasks, WORK_DIR)
    part = compiled("--init=scratch", "--stages=train-scratch,export-scratch")
    assert needs_of(part) == {"train-scratch": set(), "export-scratch": {"train-scratch"}}


@pytest.mark.cloud
def test_kubeflow_fills_the_parameter_in_as_the_tests_do():
    from kfp.local.placeholder_utils import replace_placeholders

    pipeline = compiled("--init=scratch")
    for name in needs_of(pipeline):
        container = executor_of(pipeline, name)
        filled = replace_placeholders(
            container["command"] + container["args"],
            {
                "inputs": {"parameterValues": {"work_dir": "gs://other/place"}},
                "outputs": {"outputFile": ""},
            },
            *("pipeline", "task", "root", "1"),
        )
        assert filled == words_of(pipeline, name, "gs://other/place")
        assert not [word for word in filled if "{" in word]


@pytest.mark.cloud
def test_the_specification_knows_every_field():
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    for pipeline in (committed(), compiled("--init=scratch", "--gpus=2")):
        spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
        assert spec.root.dag.tasks
    wrong = {**committed(), "stages": []}
    with pytest.raises(json_format.ParseError, match="stages"):
        json_format.ParseDict(wrong, pipeline_spec_pb2.PipelineSpec())


@pytest.mark.cloud
def test_only_training_has_accelerators():
    words = ("--gpus=2", "--gpu_type=NVIDIA_L4", "--train_cpus=24", "--train_memory=96Gi")
    pipeline = compiled("--init=scratch", *words)
    for name in needs_of(pipeline):
        resources = executor_of(pipeline, name)["resources"]
        if name == "train-scratch":
            assert resources["accelerator"]["resourceCount"] == "2"
            assert resources["accelerator"]["resourceType"] == "NVIDIA_L4"
            assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == (
                *("24", "96Gi"),
            )
        else:
            assert "accelerator" not in resources
            assert resources["resourceCpuLimit"] == "4"


@pytest.mark.cloud
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gpus=3", "--train_flags=--batch_size=7"), "--batch_size=7 cannot be shared in pairs"),
        (("--gpus=2", "--train_flags=--strategy=default"), "--strategy=default"),
        (("--train_flags=--strategy=multi_worker",), "--strategy=multi_worker"),
        (("--gpus=8", "--gpu_type=TPU_V3", "--train_flags=--strategy=mirrored"), "take tpu"),
    ],
)
def test_what_training_would_refuse_is_told(words, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        compiled("--init=scratch", *words)


@pytest.mark.cloud
def test_kubeflow_reads_what_it_wrote():
    from kfp import components

    loaded = components.load_component_from_file(str(COMMITTED))
    assert loaded.name == "imagenet"
    assert list(loaded.component_spec.inputs) == ["work_dir"]


@pytest.mark.cloud
def test_vertex_takes_the_pipeline_and_its_parameter():
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    def job(**parameters):
        return aiplatform.PipelineJob(
            display_name="imagenet",
            template_path=str(COMMITTED),
            pipeline_root="gs://BUCKET/pipelines",
            parameter_values=parameters,
            project="PROJECT",
            location="us-central1",
            credentials=AnonymousCredentials(),
        )

    config = job(work_dir="gs://BUCKET/other")._gca_resource.runtime_config
    assert dict(config.parameter_values) == {"work_dir": "gs://BUCKET/other"}
    with pytest.raises(ValueError, match="workdir"):
        job(workdir="gs://BUCKET/other")
