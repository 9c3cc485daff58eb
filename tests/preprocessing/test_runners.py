"""Runners and Beam's own options are checked before any work."""

import socket
import subprocess
import sys

import pytest

from common.command import run_to_exit_code
from common.errors import UsageError
from preprocessing.build_dataset import BuildConfig, build_dataset
from preprocessing.runners import RunnerConfig

from .conftest import ROOT

CLOUD = ("--project=p", "--region=r", "--temp_location=gs://bucket/tmp")
SETUP = "--setup_file=setup.py"


def complaint(runner: str, *flags: str, output_dir="gs://b/out", source="gs://b/in", **options):
    with pytest.raises(UsageError) as caught:
        RunnerConfig(runner, beam_flags=flags, **options).check(output_dir, source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("runner", "flags", "told"),
    [
        ("DirectRunner", ["--projct=p"], "is no option of Beam's; is it --project?"),
        ("DirectRunner", ["p"], "'p' behind the --: options of Beam have the form --name=value"),
        ("DirectRunner", ["--direct_num_workers=2"], "say --num_workers=N before it"),
        ("DirectRunner", ["--runner=FlinkRunner"], "--runner behind the --"),
        ("DirectRunner", ["--job_port=many"], "argument --job_port: invalid int value: 'many'"),
        ("DataflowRunner", [], "needs --project, --region, --temp_location"),
        ("DataflowRunner", CLOUD[:2], "needs --temp_location"),
        ("DataflowRunner", [*CLOUD[:2], "--temp_location=/tmp"], "it must be gs://BUCKET/"),
        ("DataflowRunner", CLOUD, "--setup_file=./setup.py, or --sdk_container_image"),
        ("DataflowRunner", [*CLOUD, "--setup_file=none.py"], "--setup_file=none.py does not exist"),
        ("DataflowRunner", [*CLOUD, SETUP, "--max_num_worker=3"], "is it --max_num_workers?"),
        ("DataflowRunner", [*CLOUD, SETUP, "--flink_conf_dir=x"], "--flink_conf_dir"),
        ("DataflowRunner", [*CLOUD, SETUP, "--dry_run=True"], "described and not run"),
        ("DataflowRunner", [*CLOUD, SETUP, "--template_location=t"], "described and not run"),
        ("FlinkRunner", ["--paralelism=2"], "is it --parallelism?"),
        ("FlinkRunner", ["--flink_job_server_jar=no.jar"], "no.jar does not exist"),
        ("FlinkRunner", ["--job_server_java_launcher=no-java"], "there is none: install Java"),
        ("PortableRunner", [], "needs a running job server"),
        ("PortableRunner", ["--job_endpoint=localhost"], "it must be HOST:PORT"),
        ("PrismRunner", ["--prism_location=/no/prism"], "/no/prism does not exist"),
    ],
)  # fmt: skip
def test_a_wrong_option_of_beam_is_one_line_before_any_work(runner, flags, told):
    assert told in complaint(runner, *flags)


def test_a_job_server_that_does_not_answer_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"--job_endpoint=127.0.0.1:{server.getsockname()[1]}"
        RunnerConfig("PortableRunner", beam_flags=(endpoint, "--known_to=it")).check("out")
    for runner in ("PortableRunner", "FlinkRunner"):
        assert "nothing answers there" in complaint(runner, endpoint)


@pytest.mark.parametrize(
    ("runner", "cure"),
    [
        ("FlinkRunner", "-- --parallelism=4"),
        ("PortableRunner", "-- --parallelism=4"),
        ("DataflowRunner", "-- --max_num_workers=4"),
        ("PrismRunner", "leave it out"),
    ],
)
def test_num_workers_is_for_this_machine(runner, cure):
    text = complaint(runner, num_workers=4)
    assert text.startswith("--num_workers=4 is for DirectRunner") and cure in text


def test_dataflow_needs_what_its_workers_can_see():
    assert "--output_dir=out is on this machine" in complaint("DataflowRunner", output_dir="out")
    assert "--source=photos is on this machine" in complaint("DataflowRunner", source="photos")


def test_there_are_no_other_runners():
    assert "DirectRunner, FlinkRunner" in complaint("SparkRunner")
    assert "at least 1" in complaint("DirectRunner", num_workers=0)


def test_the_command_takes_beams_options_behind_a_bare_dash_dash(tree, tmp_path, capfd):
    def call(*words) -> tuple[int, str]:
        argv = ["x", f"--source={tree}", f"--output_dir={tmp_path}/out", "--num_shards=2", *words]
        code = run_to_exit_code(build_dataset, BuildConfig, argv=argv, passthrough="Beam's")
        return code, capfd.readouterr().err

    for words, told in (
        (["--", "--projct=p"], "is it --project?"),
        (["--runner=DataflowRunner", "--", *CLOUD, SETUP], "it must be gs://BUCKET/"),
        (["--project=p"], "behind a bare -- go Beam's"),
    ):
        code, text = call(*words)
        assert code == 2 and told in text and text.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert call("--", "--job_name=mine") == (0, "")


def test_the_plain_case_does_not_wait_for_beam():
    program = (
        "import sys\n"
        "from preprocessing.runners import RunnerConfig\n"
        "RunnerConfig(num_workers=3).check('out', 'in')\n"
        "assert 'apache_beam' not in sys.modules\n"
        "import preprocessing.runners.job\n"
        "unwanted = {'pymongo', 'google.cloud.storage', 'apache_beam.io.gcp', 'tensorflow'}\n"
        "assert not unwanted & set(sys.modules), unwanted & set(sys.modules)\n"
        "import pymongo, apache_beam.io.gcp.gcsio\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
