"""The flex template and its launch script, as far as they go without the cloud."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from common.command import parse
from preprocessing.build_dataset import BEAM_OPTIONS, BuildConfig, build_dataset, make_plan
from preprocessing.resume import settle_plan, shards_to_do
from tests.preprocessing.conftest import ROOT, make_tree

pytest_plugins = ["tests.storage_emulator"]

INFRA = ROOT / "infra/dataflow"
METADATA = json.loads((INFRA / "metadata.json").read_text())
PARAMETERS = {parameter["name"]: parameter for parameter in METADATA["parameters"]}
FLAGS = {field.name: field for field in dataclasses.fields(BuildConfig)}
WHERE = {"PROJECT": "a-project", "REGION": "europe-west4", "BUCKET": "pictures"}

# For each parameter a value that it takes and one that it refuses.
VALUES = {
    "source": ("gs://pictures/photos.tar", "tfds:imagenette"),
    "output_dir": ("gs://pictures/out", "/data/out"),
    "sdk_container_image": ("europe-docker.pkg.dev/a-project/images/worker:1", "an image"),
    "split": ("my_validation", "my-validation"),
    "num_shards": ("1024", "0"),
    "labels_file": ("gs://pictures/labels.txt", "labels.txt"),
    "classes": ("gs://pictures/classes.txt", "classes.txt"),
    "class_text": ("gs://pictures/texts.txt", "texts.txt"),
    "bounding_boxes": ("gs://pictures/boxes.csv", "boxes.csv"),
    "seed": ("-7", "seven"),
    "holdout_fraction": ("0.1", "1"),
    "validate": ("decode", "body"),
    "shorter_side": ("256", "-1"),
    "jpeg_quality": ("100", "101"),
    "max_rejected_fraction": ("1", "1.5"),
    "max_pixels": ("1000000", "0"),
    "read_threads": ("0", "-1"),
    "number_of_worker_harness_threads": ("2", "0"),
    "disk_size_gb": ("60", "0"),
}


@pytest.fixture(scope="module")
def template():
    """The file that the launcher runs, as a module."""
    spec = importlib.util.spec_from_file_location("flex_template", INFRA / "flex_template.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files_under(root: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_words_are_the_builds_or_beams(template):
    words = [
        "--source=gs://a/b=c",
        "--labels_file=gs://a/labels",
        "--runner=DataflowRunner",
        '--labels={"by": "the launcher"}',
        "--num_workers=2",
        "--read_threads=",
        "--no_use_public_ips",
        "--unheard_of=1",
    ]
    ours, beams = template.split_words(words)
    assert ours == ["--source=gs://a/b=c", "--labels=gs://a/labels"]
    assert beams == [words[3], words[4], *words[6:]]


def test_every_name_that_beam_knows_too_is_beams(template):
    from preprocessing.runners.options import make_options

    beams = make_options("DataflowRunner", []).get_all_options()
    assert FLAGS.keys() & beams.keys() == {*template.BEAMS_OWN}
    assert not template.RENAMED.keys() & (beams.keys() | FLAGS.keys())
    assert {*template.RENAMED.values()} <= {*template.BEAMS_OWN}


@pytest.fixture
def job(template, tmp_path):
    """Runs the job of a build here; returns the directory that it wrote to."""

    def call(config: BuildConfig) -> pathlib.Path:
        import apache_beam as beam
        from apache_beam.runners.portability.fn_api_runner import fn_runner

        root, plan, body = make_plan(config)
        plan = settle_plan(config.output_dir, plan, body)
        todo = shards_to_do(config.output_dir, plan)
        with beam.Pipeline(runner=fn_runner.FnApiRunner()) as pipeline:
            template.construct(pipeline, config, root, plan, todo)
        return pathlib.Path(config.output_dir)

    return call


def test_the_job_leaves_what_a_build_leaves_and_goes_on_with_it(job, tmp_path):
    tree = make_tree(tmp_path / "photos")
    (tree / "cat/cat_0.JPEG").write_bytes(b"no image")
    flags = {"source": str(tree), "num_shards": 3, "max_rejected_fraction": 0.5}
    whole = tmp_path / "whole"
    build_dataset(BuildConfig(output_dir=str(whole), **flags))
    out = tmp_path / "out"
    out.mkdir()
    config = BuildConfig(output_dir=str(out), **flags)
    with pytest.raises(Exception, match=r"--max_rejected_fraction=0\.01"):
        job(dataclasses.replace(config, max_rejected_fraction=0.01))
    assert not (out / "train/manifest.json").exists()
    # All shards are whole, so that there is nothing to do but the manifest.
    shards = {path.name: path.stat().st_ino for path in out.glob("train-*")}
    assert len(shards) == 3
    assert files_under(job(config)) == files_under(whole)
    assert {path.name: path.stat().st_ino for path in out.glob("train-*")} == shards


def test_parameters_are_the_flags_of_the_build(template):
    renamed = {old: new for new, old in template.RENAMED.items()}
    # Preparing TFDS' files takes TensorFlow, which the image does without.
    expected = {renamed.get(name, name) for name in FLAGS} - {"tfds_dir", "num_workers", "runner"}
    of_beam = {"sdk_container_image", "number_of_worker_harness_threads", "disk_size_gb"}
    assert PARAMETERS.keys() == expected | of_beam
    assert len(METADATA["parameters"]) == len(PARAMETERS)
    for name in expected:
        flag, parameter = FLAGS[template.RENAMED.get(name, name)], PARAMETERS[name]
        is_required = flag.default is dataclasses.MISSING
        assert parameter.get("isOptional", False) != is_required, name
        default = None if is_required or flag.default is None else str(flag.default)
        assert parameter.get("defaultValue") == default, name
        choices = [option["value"] for option in parameter.get("enumOptions", [])]
        assert choices == list(flag.metadata["choices"]), name
    from preprocessing.runners.options import make_options

    assert of_beam <= make_options("DataflowRunner", []).get_all_options().keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_takes_what_its_flag_takes(template, name):
    good, bad = VALUES[name]
    expressions = PARAMETERS[name]["regexes"]

    def passes(value: str) -> bool:
        return all(re.search(expression, value) for expression in expressions)

    assert passes(good) and not passes(bad) and not passes(f"{good}\n--x")
    default = PARAMETERS[name].get("defaultValue")
    assert default is None or passes(default)
    needed = ["--source=gs://a/b", "--output_dir=gs://a/c"]
    ours, beams = template.split_words([*needed, f"--{name}={good}"])
    (config,) = parse(["program", *ours], BuildConfig)
    if beams:
        assert name not in FLAGS and beams == [f"--{name}={good}"]
    else:
        assert str(getattr(config, template.RENAMED.get(name, name))) == str(
            type(getattr(config, template.RENAMED.get(name, name)))(good)
        )


@pytest.fixture
def launch():
    """Runs the launch script; with nothing else said, it prints its command."""

    def call(*words: str, dry="1", path=os.environ["PATH"], **variables: str):
        return subprocess.run(
            ["bash", INFRA / "launch.sh", *words],
            env={"PATH": path, "DRY_RUN": dry, **WHERE, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


BUILD = ("--source=gs://pictures/photos", "--output_dir=gs://pictures/out", "--split=my_Test")


def test_waiting_is_the_command_of_the_manual(launch):
    network = "regions/r/subnetworks/s"
    done = launch(
        "wait", *BUILD, "--", "--disk_size_gb=60", SUBNETWORK=network, REPOSITORY="images"
    )
    assert (done.returncode, done.stderr) == (0, "")
    words = words_of(done.stdout)
    assert words[:3] == ["python", "-m", "preprocessing.build_dataset"]
    dashes = words.index("--")
    (config,) = parse(words[2:dashes], BuildConfig, passthrough=BEAM_OPTIONS)
    assert config == BuildConfig(
        source="gs://pictures/photos",
        output_dir="gs://pictures/out",
        split="my_Test",
        runner="DataflowRunner",
    )
    from preprocessing.runners.options import make_options

    options = make_options("DataflowRunner", words[dashes + 1 :])
    given = options.get_all_options(drop_default=True, retain_unknown_options=True)
    assert re.fullmatch(r"build-my-test-\d{8}-\d{6}", given.pop("job_name"))
    assert given == {
        "runner": "DataflowRunner",
        "save_main_session": False,
        "project": "a-project",
        "region": "europe-west4",
        "temp_location": "gs://pictures/tmp",
        "sdk_container_image": "europe-west4-docker.pkg.dev/a-project/images/dataflow-worker:1",
        "service_account_email": "builder@a-project.iam.gserviceaccount.com",
        "machine_type": "n2-standard-4",
        "number_of_worker_harness_threads": 2,
        "num_workers": 2,
        "max_num_workers": 20,
        "autoscaling_algorithm": "THROUGHPUT_BASED",
        "labels": ["purpose=build"],
        "subnetwork": network,
        "use_public_ips": False,
        "disk_size_gb": 60,
    }


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (("--split", "validation"), "validation"),
        (("--split=test", "--split", "my_Test"), "my-test"),
        (("--split", "test", "--split=train"), "train"),
        ((), "train"),
    ],
)
def test_the_name_of_the_job_has_the_split(launch, words, split):
    done = launch("wait", *BUILD[:2], *words)
    (name,) = [word for word in words_of(done.stdout) if word.startswith("--job_name=")]
    assert re.fullmatch(rf"--job_name=build-{split}-\d{{8}}-\d{{6}}", name)


def words_of(printed: str) -> list[str]:
    """The words of a command as a shell reads them."""
    text = f"printf '%s\\0' {printed}"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def parameters_of(words: list[str]) -> dict[str, str]:
    """As `gcloud topic escaping` says: what stands between the ^ parts the pairs."""
    (text,) = [word.partition("=")[2] for word in words if word.startswith("--parameters=")]
    _, delimiter, pairs = text.split("^", 2)
    return dict(pair.split("=", 1) for pair in pairs.split(delimiter))


def test_the_template_gets_the_flags_as_parameters(launch):
    labels = "gs://pictures/labels, all=1.txt"
    done = launch("template", *BUILD, f"--labels={labels}", JOB_NAME="a-job", IMAGE="an/image:2")
    assert (done.returncode, done.stderr) == (0, "")
    words = words_of(done.stdout)
    assert words[:5] == ["gcloud", "dataflow", "flex-template", "run", "a-job"]
    given = parameters_of(words)
    assert given == {
        "source": "gs://pictures/photos",
        "output_dir": "gs://pictures/out",
        "split": "my_Test",
        "labels_file": labels,
        "sdk_container_image": "an/image:2",
        "number_of_worker_harness_threads": "2",
    }
    assert given.keys() <= PARAMETERS.keys()
    assert "--template-file-gcs-location=gs://pictures/templates/build_dataset.json" in words
    made = words_of(launch("spec").stdout)
    assert made[3:5] == ["build", "gs://pictures/templates/build_dataset.json"]
    assert "--image=europe-west4-docker.pkg.dev/a-project/mobilenet/dataflow-template:1" in made
    (metadata,) = [word.partition("=")[2] for word in made if word.startswith("--metadata-file=")]
    assert pathlib.Path(metadata).samefile(INFRA / "metadata.json")


@pytest.mark.parametrize(
    "words, variables, message",
    [
        (["wait", *BUILD], {"BUCKET": ""}, "BUCKET is not set"),
        (["wait", *BUILD], {"BUCKET": "gs://pictures"}, "leave gs:// out"),
        (["begin"], {}, "'begin': the first word is wait, template or spec"),
        (["template", "--source", "x"], {}, "'--source': flags of the build have the form"),
        (["template", "--source=a;b"], {}, "';'"),
        (["template", *BUILD, "--", "--x=1"], {}, "'--x=1'"),
        (["spec", "--source=a"], {}, "spec takes no flags"),
    ],
)
def test_mistakes_are_one_line(launch, words, variables, message):
    done = launch(*words, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and message in done.stderr


def test_without_dry_run_the_command_is_run(launch, tmp_path):
    python = tmp_path / "a python"
    python.write_text('#!/bin/sh\nfor word; do echo "<$word>"; done; exit 7\n')
    python.chmod(0o755)
    done = launch("wait", "--source=two words", dry="", PYTHON=str(python))
    assert done.returncode == 7
    assert done.stdout.splitlines()[:3] == [
        "<-m>",
        "<preprocessing.build_dataset>",
        "<--source=two words>",
    ]


def test_help_names_every_variable(launch):
    done = launch("--help")
    assert done.returncode == 0
    script = (INFRA / "launch.sh").read_text()
    code = script.partition("\nTEXT\n")[2]
    used = set(re.findall(r"\$\{(?!!)([A-Z_]{3,})", code)) - {"BASH_SOURCE"}
    assert len(used) > 10
    assert not {name for name in used if not re.search(rf"\b{name}\b", done.stdout)}


@pytest.mark.parametrize("program, file", [("shellcheck", "launch.sh"), ("hadolint", "Dockerfile")])
def test_linters_find_nothing(program, file):
    found = shutil.which(program, path=os.path.dirname(sys.executable)) or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, INFRA / file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_names_the_file_that_it_holds():
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    copied = {word[1]: word[2] for line in lines if (word := line.split())[:1] == ["COPY"]}
    (entry,) = [line.partition("PY_FILE=")[2] for line in lines if line.startswith("ENV")]
    assert copied["flex_template.py"] == entry
    assert (INFRA / "flex_template.py").is_file()


def test_the_costs_of_the_manual_are_those_of_the_estimate():
    from pipeline.cloud.estimate import estimate_build
    from pipeline.cloud.prices import find_price

    page = (ROOT / "docs/dataflow.md").read_text()
    costs = page.partition("## What it costs")[2]
    for name in ("dataflow vCPU", "dataflow memory", "dataflow disk", "bucket"):
        dollars = f"{find_price(name).dollars:.6f}".strip("0")
        assert f"${dollars}" in costs, name
    assert f"${estimate_build().dollars:.2f}".replace("$0", "$") in costs
    dollars = re.findall(r"^\|[^*\n]+\| \$(\.\d+) \|$", costs, re.MULTILINE)
    (total,) = re.findall(r"\*\*\$([\d.]+)\*\*", costs)
    assert len(dollars) == 6
    assert sum(map(float, dollars)) == pytest.approx(float(total), abs=0.05)


# What follows needs Google's parts of Beam.

# As the launcher starts the file, but without what the image lacks, and without a search for
# credentials that would take 20 seconds.
AS_LAUNCHED = """
import runpy, sys
lacking = "jinja2", "keras", "matplotlib", "rich", "tensorboard", "tensorflow"
sys.modules.update(dict.fromkeys(lacking))
from apache_beam.internal.gcp import auth
auth._Credentials._credentials, auth._Credentials._credentials_init = None, True
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def launched(bucket, tmp_path):
    """Starts the template's file as the launcher does, with the build's parameters."""

    def call(**parameters: object) -> tuple[subprocess.CompletedProcess, pathlib.Path]:
        job = tmp_path / "job_object"
        job.unlink(missing_ok=True)
        given = {
            **parameters,
            "sdk_container_image": "europe-docker.pkg.dev/a-project/images/worker:1",
            "runner": "DataflowRunner",
            "project": "a-project",
            "region": "europe-west4",
            "temp_location": f"{bucket}/tmp",
            "staging_location": f"{bucket}/tmp/staging",
            "job_name": "build-train",
            "num_workers": 2,
            "labels": "purpose=build",
            "service_account_email": "builder@a-project.iam.gserviceaccount.com",
            "template_location": job,
        }
        words = [f"--{name}={value}" for name, value in given.items()]
        argv = [sys.executable, "-c", AS_LAUNCHED, INFRA / "flex_template.py", *words, "--no_auth"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done, job

    return call


def run_here(job: dict) -> None:
    """Runs a job that was described for Dataflow, by what it says alone."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    from common.files import read_bytes

    place = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    pipeline = beam_runner_api_pb2.Pipeline.FromString(read_bytes(place))
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = "beam:env:embedded_python:v1", b""
    result = fn_runner.FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([]))
    result.wait_until_finish()


@pytest.mark.cloud
def test_what_the_launcher_takes_builds_the_data_set(launched, bucket, storage_proxy, tmp_path):
    tree = make_tree(tmp_path / "photos")
    for path in tree.rglob("*.JPEG"):
        storage_proxy.put(f"photos/{path.relative_to(tree)}", path.read_bytes())
    flags = {"source": f"{bucket}/photos", "output_dir": f"{bucket}/out", "num_shards": 3}
    done, job = launched(**flags)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 shards and the manifest are left to the job" in done.stdout
    described = json.loads(job.read_text())
    (pool,) = described["environment"]["workerPools"]
    assert pool["numWorkers"] == 2
    assert pool["workerHarnessContainerImage"].endswith("/worker:1")
    assert described["labels"] == {"purpose": "build"}
    assert not [name for name in storage_proxy.objects() if name.startswith("out/train-")]

    run_here(described)
    whole = tmp_path / "photos_built"
    build_dataset(BuildConfig(source=str(tree), output_dir=str(whole), num_shards=3))
    there = {
        name.removeprefix("out/"): content
        for name, content in storage_proxy.objects().items()
        if name.startswith("out/")
    }
    assert there == files_under(whole)

    done, job = launched(**flags)
    assert done.returncode == 1 and not job.exists()
    assert done.stderr.strip().endswith("is finished: nothing to do")


@pytest.mark.cloud
def test_the_template_refuses_what_the_build_refuses(launched, bucket, tmp_path):
    done, job = launched(source=f"{bucket}/photos", output_dir=str(tmp_path / "out"))
    assert done.returncode == 2 and not job.exists()
    assert "--output_dir=" in done.stderr and done.stderr.count("\n") == 1
    done, job = launched(source=f"{bucket}/photos", output_dir=f"{bucket}/photos/out")
    assert done.returncode == 2 and not job.exists()
    assert "among the photos" in done.stderr


@pytest.mark.cloud
def test_dataflow_itself_knows_every_field(launch):
    from google.cloud import dataflow_v1beta3 as dataflow
    from google.protobuf import json_format

    metadata = dataflow.TemplateMetadata.pb()()
    json_format.ParseDict(METADATA, metadata)
    assert len(metadata.parameters) == len(PARAMETERS)
    assert all(one.name and one.label and one.help_text for one in metadata.parameters)
    parameters = parameters_of(words_of(launch("template", *BUILD).stdout))
    dataflow.LaunchFlexTemplateParameter(job_name="a-job", parameters=parameters)
