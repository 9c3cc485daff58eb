"""The images, without Docker: what they hold, how they start, and that their lines can run.

The tests that install what an image installs take minutes: `make test-long`.
"""

import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from tests.infra.dockerfile import Ignore, Stage, read_stages
from tests.training.conftest import build, draw_photos

ROOT = pathlib.Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"
STAGES = read_stages((DOCKER / "Dockerfile").read_text())
TRAIN = ("train-cpu", "train-gpu", "train-tpu")
WORKER = "dataflow-worker"
IMAGES = (*TRAIN, WORKER)
IGNORE = Ignore((ROOT / ".dockerignore").read_text())

PROGRAMS = pathlib.Path(sys.executable).parent
UV = str(PROGRAMS / "uv")

PACKAGES = ("common", "loaders", "pipeline", "preprocessing", "training")
TEXTS = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml", "setup.py")

KEPT_OUT = (
    ".env",
    ".git/config",
    ".venv/bin/python",
    "key.json",
    "benchmarks/latency.py",
    "docs/architecture.md",
    "infra/docker/Dockerfile",
    "infra/terraform/terraform.tfstate",
    "infra/terraform/terraform.tfvars",
    "runs/demo/model/config.json",
    "tests/conftest.py",
    "training/__pycache__/config.cpython-311.pyc",
    "training/models/__pycache__/archs.cpython-311.pyc",
    "training/models/.DS_Store",
)


def constraint(name: str) -> str:
    text = (ROOT / "constraints.txt").read_text()
    return re.search(rf"^{re.escape(name)}==(\S+)", text, re.MULTILINE)[1]


def tracked(*paths: str) -> list[str]:
    result = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for path in result.stdout.splitlines() if (ROOT / path).is_file()]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "infra").rglob("Dockerfile")), ids=lambda path: path.parent.name
)
def test_the_linter_has_nothing_to_say(path):
    result = subprocess.run(
        [PROGRAMS / "hadolint", "--failure-threshold=style", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_there_is_an_image_for_each_topology():
    from pipeline.cloud.topologies import TOPOLOGIES

    assert {f"train-{topology.image}" for topology in TOPOLOGIES.values()} == set(TRAIN)


@pytest.mark.parametrize("name", IMAGES)
def test_every_base_is_pinned(name):
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-[\w.-]+)?", STAGES[name].origin)


def test_python_and_beam_are_the_same_for_who_hands_a_job_over_and_who_does_it():
    python = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-\w+", STAGES["train-cpu"].origin)[1]
    beam = f"apache/beam_python{python}_sdk:{constraint('apache-beam')}"
    assert STAGES[WORKER].origin == beam


@pytest.mark.parametrize("name", TRAIN)
def test_training_does_not_run_as_root(name):
    assert int(STAGES[name].last("USER")) >= 1000
    made = [each.text for each in STAGES[name].all("RUN") if each.text.startswith("useradd")]
    assert [re.search(r"--uid=(\d+)", text)[1] for text in made] == [STAGES[name].last("USER")]


def test_a_worker_is_started_by_beam():
    assert not STAGES[WORKER].last("ENTRYPOINT")
    assert not STAGES[WORKER].last("CMD")
    # Otherwise each worker makes an environment of its own first.
    assert STAGES[WORKER].variables()["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT"] == "1"


@pytest.mark.parametrize("name", IMAGES)
def test_labels_say_what_it_is(name):
    labels = "".join(each.text for each in STAGES[name].all("LABEL"))
    for key in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{key}=" in labels


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_what_is_copied_is_there_and_let_in(stage):
    for copy in (each for each in stage.own if each.name == "COPY"):
        sources = [word for word in copy.words[:-1] if not word.startswith("--")]
        assert sources
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source == "." or IGNORE.lets_in(source), source


@pytest.mark.parametrize("name", IMAGES)
def test_new_code_is_a_small_layer_on_top(name):
    """All that is installed from a registry is installed before any code is there."""
    changes = [each for each in STAGES[name].instructions if each.name in ("RUN", "COPY")]
    *before, last = changes
    assert "from=wheel" in last.text
    assert "--no-deps" in last.words
    for copy in (each for each in before if each.name == "COPY"):
        assert set(copy.words[:-1]) <= {
            "setup.py",
            "constraints.txt",
            "infra/docker/tpu.txt",
            "infra/docker/worker.txt",
        }


def test_all_of_the_package_is_let_in_and_nothing_else():
    mine = [path for path in tracked(*PACKAGES) if not path.endswith(".pyc")]
    assert len(mine) > 100
    assert [path for path in mine if not IGNORE.lets_in(path)] == []
    assert [path for path in TEXTS if not IGNORE.lets_in(path)] == []
    others = [path for path in tracked() if path.split("/")[0] not in (*PACKAGES, *TEXTS)]
    let_in = {path for path in others if IGNORE.lets_in(path)}
    assert let_in == {"infra/docker/tpu.txt", "infra/docker/worker.txt"}
    assert [path for path in KEPT_OUT if IGNORE.lets_in(path)] == []


def test_cloud_build_is_sent_what_docker_would_be(tmp_path):
    """Git reads the file, whose syntax is its own."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    candidates = [*tracked(), *KEPT_OUT]
    result = subprocess.run(
        [
            *("git", "-c", f"core.excludesFile={DOCKER / 'gcloudignore'}"),
            *("check-ignore", "--no-index", "--stdin"),
        ],
        cwd=tmp_path,
        input="\n".join(candidates),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    sent = set(candidates) - set(result.stdout.splitlines())
    needed = {path for path in candidates if IGNORE.lets_in(path)}
    in_docker = set(tracked("infra/docker")) | {".dockerignore"}
    assert sent == needed | in_docker


def test_cloud_build_builds_a_stage_and_pushes_it():
    build = yaml.safe_load((DOCKER / "cloudbuild.yaml").read_text())
    (step,), (image,) = build["steps"], build["images"]
    assert f"--tag={image}" in step["args"]
    assert "--target=$_IMAGE" in step["args"]
    assert "--file=infra/docker/Dockerfile" in step["args"]
    header = (DOCKER / "cloudbuild.yaml").read_text().split("steps:")[0]
    given = dict(
        pair.split("=") for pair in re.search(r"--substitutions=(\S+)", header)[1].split(",")
    )
    used = set(re.findall(r"\$(_\w+)", json.dumps(build)))
    assert set(given) == used
    assert given["_IMAGE"] in IMAGES


@pytest.mark.cloud
def test_cloud_build_knows_each_field():
    if importlib.util.find_spec("google.cloud.devtools") is None:
        pytest.skip("google-cloud-build is not installed: `make test-cloud` does it")
    from google.cloud.devtools import cloudbuild_v1
    from google.protobuf import json_format

    build = yaml.safe_load((DOCKER / "cloudbuild.yaml").read_text())
    message = cloudbuild_v1.Build.pb(cloudbuild_v1.Build())
    json_format.ParseDict(build, message)
    assert message.timeout.seconds == 3600
    build["options"]["machine"] = "E2_HIGHCPU_8"
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(build, cloudbuild_v1.Build.pb(cloudbuild_v1.Build()))


def test_the_entry_point_runs_what_it_is_told_to(tmp_path):
    program, *words = STAGES["train-cpu"].command()
    assert program == "python"
    result = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "--work_dir" in result.stdout
    assert {tuple(STAGES[name].command()) for name in TRAIN} == {(program, *words)}


# From here on the lines of the Dockerfile are run, each in a directory that has what was copied.


def version_of_python(stage: Stage) -> str:
    return re.search(r"python:?(\d+\.\d+)", stage.origin)[1]


def interpreter(version: str) -> str:
    """The image's Python, as this machine has it."""
    find = [UV, "python", "find", "--no-project", "--no-python-downloads", version]
    result = subprocess.run(find, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"no Python {version} here")
    return result.stdout.strip()


# Stands in for pip where it installs: uv takes the same words and a tenth of the time.
SHIM = """#!/bin/sh
case "$1" in
  install | uninstall) exec {uv} pip "$@" ;;
  *) exec {python} -m pip "$@" ;;
esac
"""


def make_environment(directory: pathlib.Path, stage: Stage) -> dict[str, str]:
    """A fresh virtual environment of the image's Python, first on the path."""
    python = interpreter(version_of_python(stage))
    subprocess.run([UV, "venv", "-q", "--seed", f"-p{python}", directory], check=True)
    pip = directory / "bin" / "pip"
    pip.unlink()
    pip.write_text(SHIM.format(uv=UV, python=directory / "bin" / "python"))
    pip.chmod(0o755)
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        **{name: value for name, value in stage.variables().items() if name.startswith("PIP_")},
        "PATH": os.pathsep.join([str(directory / "bin"), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(directory),
    }


def run_lines(
    stage: Stage, context: pathlib.Path, directory: pathlib.Path, environment: dict[str, str]
) -> None:
    """Runs what the stage runs; `context` is what Docker would be sent."""
    directory.mkdir(exist_ok=True)
    wheels = directory.parent / "wheels"
    for each in stage.instructions:
        if each.name == "COPY":
            for source in each.words[:-1]:
                if source == ".":
                    shutil.copytree(context, directory, dirs_exist_ok=True)
                else:
                    shutil.copy(context / source, directory)
        elif each.name == "RUN" and not each.text.startswith("useradd"):
            line = re.sub(r"--mount=\S+ *", "", each.text).replace("/wheels", str(wheels))
            done = subprocess.run(
                ["bash", "-ec", line],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def run_python(environment: dict[str, str], *words: str, cwd: pathlib.Path) -> str:
    """Runs what has to succeed; returns what it prints."""
    result = subprocess.run(
        [shutil.which("python", path=environment["PATH"]), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="session")
def context(tmp_path_factory) -> Iterator[pathlib.Path]:
    """What Docker is sent, with the wheel built beside it."""
    directory = tmp_path_factory.mktemp("docker") / "context"
    for path in tracked():
        if IGNORE.lets_in(path):
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target)
    stage = STAGES["wheel"]
    environment = make_environment(directory.parent / "builder", stage)
    run_lines(stage, context=directory, directory=directory.parent / "src", environment=environment)
    assert len(list((directory.parent / "wheels").glob("*.whl"))) == 1
    yield directory
    shutil.rmtree(directory.parent)  # environments are gigabytes


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> pathlib.Path:
    return draw_photos(tmp_path_factory.mktemp("photos") / "drawn")


@pytest.fixture(scope="session")
def data(photos, tmp_path_factory) -> str:
    """The data set as this environment builds it."""
    return build(photos, tmp_path_factory.mktemp("data") / "data", num_shards=3)


def install(name: str, context: pathlib.Path) -> dict[str, str]:
    """The environment of an image, installed by its own lines."""
    environment = make_environment(context.parent / f"{name}-venv", STAGES[name])
    run_lines(STAGES[name], context, context.parent / name, environment)
    return environment


def entry_point(name: str) -> list[str]:
    program, *words = json.loads(STAGES[name].last("ENTRYPOINT"))
    assert program == "python"
    return words


def training(data: str, model_dir: pathlib.Path) -> list[str]:
    words = ["training.train", f"--data_dir={data}", f"--model_dir={model_dir}"]
    words += ["--model_name=mobilenet_v1", "--width_multiplier=0.25", "--resolution=32"]
    return [*words, "--eval_split=train", "--batch_size=8", "--epochs=1"]


@pytest.mark.long
def test_pip_finds_versions_that_go_together(context, tmp_path):
    """pip is stricter than uv, which passes over an upper bound of a package's Python."""
    stage = STAGES["dependencies"]
    environment = make_environment(tmp_path / "venv", stage)
    copied = [source for each in stage.all("COPY") for source in each.words[:-1]]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "README.md").touch()
    for source in copied:
        shutil.copy(context / source, tmp_path / "src")
    lines = [each.text for each in stage.own if "-c constraints.txt" in each.text]
    (words,) = [shlex.split(line.split("&&")[-1]) for line in lines]
    assert words[:2] == ["pip", "install"]
    run_python(environment, "-m", "pip", "install", "--dry-run", *words[2:], cwd=tmp_path / "src")


@pytest.mark.long
def test_the_image_for_cpus_trains(context, data, tmp_path):
    environment = install("train-cpu", context)
    run_python(environment, "-m", "pip", "check", cwd=tmp_path)
    words = [*entry_point("train-cpu"), *training(data, tmp_path / "run")]
    run_python(environment, *words, cwd=tmp_path)
    assert list((tmp_path / "run" / "checkpoints").glob("*.index"))


@pytest.mark.long
def test_the_image_for_gpus_can_be_installed(context, tmp_path):
    """CUDA is gigabytes: what would be installed is asked for, and not installed."""
    own = [each for each in STAGES["dependencies-gpu"].own if each.name == "RUN"]
    (words,) = [each.words for each in own]
    assert words[:2] == ["pip", "install"]
    python = version_of_python(STAGES["train-gpu"])
    subprocess.run([UV, "venv", "-q", f"-p{interpreter(python)}", tmp_path / "venv"], check=True)
    result = subprocess.run(
        [UV, "pip", "install", "--dry-run", f"--python={tmp_path / 'venv'}", *words[2:]],
        cwd=context,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    planned = dict(re.findall(r"^ \+ (\S+)==(\S+)$", result.stderr, re.MULTILINE))
    assert planned["tensorflow"] == constraint("tensorflow")
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12", "nvidia-cuda-nvcc-cu12"} <= set(planned)


@pytest.mark.long
def test_the_image_for_tpus_has_a_tensorflow_that_loads_their_runtime(context, data, tmp_path):
    """There is no TPU here: it evaluates on the CPU, for which it has no XLA to train with."""
    environment = install("train-tpu", context)
    packages = next((context.parent / "train-tpu-venv").glob("lib/python3*/site-packages"))
    python = version_of_python(STAGES["train-tpu"])
    path = STAGES["train-tpu"].variables()["TPU_LIBRARY_PATH"]
    inside = f"/usr/local/lib/python{python}/site-packages"
    runtime = packages / pathlib.PurePosixPath(path).relative_to(inside)
    # Functions that TensorFlow looks up by name. Its ordinary wheel does not; later runtimes have
    # lost the second.
    for library in (runtime, packages / "tensorflow" / "libtensorflow_cc.so.2"):
        content = library.read_bytes()
        for function in (b"TfTpu_Initialize", b"ConfigureDistributedTpuOp_DoWork"):
            assert b"\0" + function + b"\0" in content, (library, function)
    # Without the second, the runtime asks Google's cloud about this machine for many minutes.
    environment |= {"TPU_LIBRARY_PATH": str(runtime), "TPU_SKIP_MDS_QUERY": "1"}
    train = [sys.executable, "-m", *training(data, tmp_path / "run")]
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
    evaluate = ["pipeline.evaluate", f"--checkpoint_path={tmp_path / 'run'}"]
    evaluate += [f"--data_dir={data}", "--split=train", "--diagnose=never"]
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    here = [sys.executable, "-m", *evaluate, f"--output={ours}"]
    subprocess.run(here, cwd=ROOT, check=True, capture_output=True)
    words = [*entry_point("train-tpu"), *evaluate, f"--output={theirs}"]
    run_python(environment, *words, cwd=tmp_path)
    loss = json.loads(ours.read_text())["loss"]
    assert json.loads(theirs.read_text())["loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.long
def test_the_image_for_workers_has_what_the_build_imports(context, photos, data, tmp_path):
    environment = install(WORKER, context)
    words = ["-m", "preprocessing.build_dataset", f"--source={photos}", "--num_shards=3"]
    run_python(environment, *words, f"--output_dir={tmp_path / 'data'}", cwd=tmp_path)
    ours = {path.name: path.read_bytes() for path in pathlib.Path(data).glob("*-of-*")}
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "data").glob("*-of-*")}
    assert len(ours) == 3
    assert theirs == ours
    find = "import importlib.util as u; print(u.find_spec('tensorflow'))"
    assert run_python(environment, "-c", find, cwd=tmp_path) == "None\n"
