"""Jobs for plain Kubernetes: what the schema allows, what the cluster makes of them."""

import copy
import json
import os
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from common import command
from common.errors import UsageError, UserError
from pipeline.experiments import EXPERIMENTS, SCRATCH
from pipeline.manifests import FLAGS, render, write_manifests
from pipeline.stages import plan_stages
from training.stopping import RESUME_ME

from .cluster import (
    ROOT,
    command_in,
    container_of,
    flags_of,
    jobs_of,
    objects_of,
    pod_of,
    processes_of,
    verdict_on,
)

COMMITTED = sorted((ROOT / "infra" / "kubernetes").glob("*/*.yaml"))
OLDEST, NEWEST = "1.31", "1.37"
DEMO = ("--work_dir=/work/demo", "--init=scratch")
IN_A_BUCKET = ("--work_dir=gs://BUCKET/a/demo", "--init=scratch")
ON_FOUR = (*IN_A_BUCKET, "--workers=4", "--gpus=4", "--node_selector=pool=a,kind/of=b")


def all_objects(files: dict[str, list[dict]]) -> list[dict]:
    return [found for objects in files.values() for found in objects]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("words", [DEMO, ON_FOUR, (*DEMO, "--claim=mine", "--gpus=2")])
def test_objects_are_what_the_schema_allows(words, version):
    objects = all_objects(objects_of(*words))
    assert len(objects) >= 10
    for found in objects:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_schema_refuses_an_unknown_field_and_a_wrong_value():
    (job, *_) = jobs_of(objects_of(*DEMO))
    kubernetes_validate.validate(job, OLDEST, strict=True)
    for place, value in (("podFailurePolicies", {}), ("backoffLimit", "often")):
        wrong = copy.deepcopy(job)
        wrong["spec"][place] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_committed_is_what_its_command_writes(path):
    text = path.read_text(encoding="utf-8")
    words = command_in(text)
    assert f"--output={path.parent.relative_to(ROOT)}" in words
    texts = render(*command.parse(["", *words], *FLAGS))
    assert text == texts[path.name]
    assert sorted(texts) == sorted(other.name for other in path.parent.glob("*"))


def test_examples_are_committed_for_a_volume_and_for_a_bucket():
    assert {path.parent.name for path in COMMITTED} == {"demo", "imagenet"}
    for path in COMMITTED:
        for found in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            kubernetes_validate.validate(found, OLDEST, strict=True)


def test_the_committed_batch_can_be_shared_in_pairs():
    path = ROOT / "infra" / "kubernetes" / "imagenet" / "04-train.yaml"
    _, job = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    container = container_of(job)
    flags = dict(word[2:].partition("=")[::2] for word in container["args"][1:])
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert job["spec"]["completions"] * gpus == 32
    assert int(flags["batch_size"]) % (2 * 32) == 0


@pytest.mark.parametrize(
    ("words", "work_dir"), [(DEMO, "/work/demo"), (ON_FOUR, "gs://BUCKET/a/demo")]
)
def test_containers_run_the_commands_of_the_stages(words, work_dir, tmp_path):
    table = plan_stages(EXPERIMENTS["demo-scratch"], "demo", str(tmp_path), SCRATCH)
    wanted = {}
    for stage in table:
        words_of_stage = [stage.command.split(":")[0]]
        for config in stage.configs:
            words_of_stage += command.to_flags(config)
        wanted[f"demo-{stage.name.replace(' ', '-')}"] = [
            word.replace(str(tmp_path), work_dir)
            for word in words_of_stage
            if not word.startswith("--commands=")
        ]
    found = {}
    for job in jobs_of(objects_of(*words)):
        for process in processes_of(job):
            assert process.words[:3] == ["python", "-m", "pipeline.job"]
            found.setdefault(job["metadata"]["name"], process.words[3:])
            assert found[job["metadata"]["name"]] == process.words[3:]
    assert found == wanted


def test_files_are_in_the_order_in_which_they_can_run():
    done: set[str] = set()
    files = objects_of(*DEMO)
    for level in sorted({name[:2] for name in files}):
        jobs = jobs_of({name: found for name, found in files.items() if name[:2] == level})
        for job in jobs:
            after = job["metadata"]["annotations"]["mobilenet-pipeline/after"].split(",")
            assert {f"demo-{name}" for name in after if name} <= done
        done |= {job["metadata"]["name"] for job in jobs}
    assert len(done) == 10


@pytest.mark.parametrize(
    ("exit_code", "disrupted", "verdict"),
    [
        (RESUME_ME, False, "Ignore"),
        (RESUME_ME, True, "Ignore"),
        (143, True, "Ignore"),
        (1, True, "Ignore"),
        (UserError.exit_code, False, "FailJob"),
        (UsageError.exit_code, False, "FailJob"),
        (137, False, "Count"),
        (143, False, "Count"),
    ],
)
def test_the_exit_code_decides_whether_it_is_tried_again(exit_code, disrupted, verdict):
    for job in jobs_of(objects_of(*ON_FOUR)):
        assert verdict_on(job, exit_code, disrupted) == verdict
        # Rules hold only for pods that are never started again in place.
        assert pod_of(job)["restartPolicy"] == "Never"
        assert job["spec"]["podReplacementPolicy"] == "Failed"


def test_containers_are_as_the_restricted_standard_asks_and_can_write_what_they_must():
    for words in (DEMO, ON_FOUR):
        for job in jobs_of(objects_of(*words)):
            pod, container = pod_of(job), container_of(job)
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert sorted(mounts.values()) == sorted(volumes)
            (process, *_) = processes_of(job)
            assert process.variables["HOME"] in mounts
            assert process.variables["LOG_FORMAT"] == "json"
            assert "emptyDir" in volumes[mounts["/tmp"]]


def test_a_run_on_a_volume_has_it_in_every_container():
    files = objects_of(*DEMO)
    (claim,) = files["00-volume.yaml"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for job in jobs_of(files):
        (volume,) = (v for v in pod_of(job)["volumes"] if "persistentVolumeClaim" in v)
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        mount = {m["name"]: m["mountPath"] for m in container_of(job)["volumeMounts"]}
        for word in container_of(job)["args"]:
            assert "demo/" not in word or word.partition("=")[2].startswith(mount["work"])


def test_a_claim_that_is_there_is_used_and_a_bucket_needs_none():
    files = objects_of(*DEMO, "--claim=mine")
    assert "00-volume.yaml" not in files
    claims = {
        v["persistentVolumeClaim"]["claimName"] for v in pod_of(jobs_of(files)[0])["volumes"][1:]
    }
    assert claims == {"mine"}
    for job in jobs_of(objects_of(*IN_A_BUCKET, "--service_account=trainer")):
        assert not [v for v in pod_of(job)["volumes"] if "persistentVolumeClaim" in v]
        assert pod_of(job)["serviceAccountName"] == "trainer"


def test_workers_find_each_other_by_names_that_stay():
    files = objects_of(*ON_FOUR)
    service, job = files["05-train-scratch.yaml"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    others = [j["spec"]["template"]["metadata"]["labels"] for j in jobs_of(files) if j is not job]
    assert not [found for found in others if service["spec"]["selector"].items() <= found.items()]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert pod_of(job)["subdomain"] == service["metadata"]["name"]
    (port,) = (port["port"] for port in service["spec"]["ports"])
    processes = processes_of(job)
    hosts = [f"{process.host}:{port}" for process in processes]
    assert len(set(hosts)) == 4
    for index, process in enumerate(processes):
        assert json.loads(process.variables["TF_CONFIG"]) == {
            "cluster": {"worker": hosts},
            "task": {"type": "worker", "index": index},
        }


def test_accelerators_and_workers_are_for_training_alone():
    for job in jobs_of(objects_of(*ON_FOUR, "--train_cpus=90", "--train_memory=600Gi")):
        trains = "training.train" in container_of(job)["args"]
        resources = container_of(job)["resources"]
        gpus = resources["limits"].get("nvidia.com/gpu", 0)
        assert gpus == (4 if trains else 0)
        assert resources["requests"]["cpu"] == (90 if trains else 4)
        assert resources["requests"]["memory"] == ("600Gi" if trains else "8Gi")
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert len(processes_of(job)) == (4 if trains else 1)
        selector = {"pool": "a", "kind/of": "b"} if trains else None
        assert pod_of(job).get("nodeSelector") == selector


def test_a_single_worker_needs_no_service_and_no_cluster():
    files = objects_of(*DEMO)
    assert {found["kind"] for found in all_objects(files)} == {"PersistentVolumeClaim", "Job"}
    for job in jobs_of(files):
        (process,) = processes_of(job)
        assert "TF_CONFIG" not in process.variables


def test_words_are_not_taken_for_variables():
    words = ("--dataset=a $(HOME) $$(b)", "--train_source=gs://BUCKET/$(HOME)")
    files = objects_of("--work_dir=gs://BUCKET/x", *words)
    found = {job["metadata"]["name"]: processes_of(job)[0].words for job in jobs_of(files)}
    assert "--source=gs://BUCKET/$(HOME)" in found["x-preprocess-train"]
    assert "--title=mobilenet_v1 0.5 on a $(HOME) $$(b)" in found["x-report"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--work_dir=runs/demo", "--init=scratch"), "absolute path"),
        (("--work_dir=/data/demo", "--init=scratch"), "--mount=/work"),
        ((*DEMO, "--name=Demo"), "--name=Demo"),
        ((*DEMO, f"--name={'a' * 50}"), "at most 41 signs"),
        ((*DEMO, "--workers=0"), "--workers"),
        ((*DEMO, "--gpus=-1"), "--gpus"),
        ((*DEMO, "--memory=8"), "--memory=8"),
        ((*DEMO, "--memory="), "--memory="),
        ((*DEMO, "--memory=0Gi"), "--memory=0Gi must be an amount such as 16Gi"),
        ((*DEMO, "--train_memory=much"), "--train_memory=much must be an amount"),
        ((*DEMO, "--cpus=0"), "--cpus must be at least 1"),
        ((*DEMO, "--cpus=many"), "cpus"),
        ((*DEMO, "--train_cpus=-1"), "--train_cpus must be at least 0"),
        ((*DEMO, "--workers=-2"), "--workers must be at least 1"),
        ((*DEMO, "--mount=/"), "--mount=/ must be an absolute path"),
        (
            ("--work_dir=/tmp/run", "--mount=/tmp"),
            "--mount=/tmp must be .* not /, /tmp or /dev/shm",
        ),
        ((*DEMO, "--mount=/tmp/"), "--mount=/tmp/ must"),
        ((*DEMO, "--mount=/dev/shm"), "--mount=/dev/shm must"),
        ((*DEMO, "--mount=//tmp"), "--mount=//tmp must"),
        ((*DEMO, "--mount=/work/../tmp"), "--mount=/work/../tmp must"),
        ((*DEMO, "--mount=work"), "--mount=work must"),
        ((*DEMO, "--mount=/work:ro"), "--mount=/work:ro must"),
        ((*DEMO, "--claim=My Claim"), "--claim='My Claim' must be a name of small letters"),
        ((*DEMO, "--claim=a..b"), "--claim=a..b must"),
        ((*DEMO, "--claim=a-"), "--claim=a- must"),
        ((*DEMO, f"--claim={'.'.join(['a' * 63] * 4)}"), "--claim="),
        ((*DEMO, "--service_account=Foo Bar"), "--service_account='Foo Bar' must be a name"),
        ((*DEMO, "--volume_size=huge"), "--volume_size=huge must be an amount such as 100Gi"),
        ((*DEMO, "--volume_size=0Gi"), "--volume_size=0Gi must"),
        ((*DEMO, "--gpu_type=foo bar"), "--gpu_type='foo bar' must be a name such as nvidia.com"),
        (
            (*DEMO, "--gpus=1", "--gpu_type=NVIDIA_L4"),
            "--gpu_type=NVIDIA_L4 must .* nvidia.com/gpu",
        ),
        ((*DEMO, "--image= "), "--image=' ' must be an image such as"),
        ((*DEMO, "--image=foo bar"), "--image='foo bar' must be an image such as"),
        ((*DEMO, "--image=a:b:c"), "--image=a:b:c must"),
        ((*DEMO, "--node_selector=pool"), "--node_selector=pool must be a label KEY=VALUE"),
        ((*DEMO, "--node_selector=a=b=c"), "--node_selector=a=b=c must be a label KEY=VALUE"),
        ((*DEMO, "--node_selector=a=b,x y=z"), "--node_selector='x y=z' must be a label KEY=VALUE"),
        ((*DEMO, "--workers=4", "--train_flags=--strategy=default"), "--strategy=default .* 4"),
        ((*DEMO, "--train_flags=--strategy=tpu"), "--strategy=tpu.* no TPU"),
        ((*DEMO, "--workers=3", "--train_flags=--batch_size=7"), "--batch_size=7 .* by 3 replicas"),
        ((*DEMO, "--workers=4", "--gpus=8"), "--batch_size=32 .* 32 replicas: .* of 64"),
        ((*DEMO, "--stages=train"), "train-scratch"),
        ((*DEMO, "--validation_source=gs://b/x"), "--train_source"),
        ((*DEMO, "--train_flags=--epochs=none"), "epochs"),
    ],
)
def test_mistakes_are_told(words, told):
    with pytest.raises(UsageError, match=told):
        objects_of(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("--image=localhost:5000/a/b-c_d:1.0",),
        (f"--image=europe-docker.pkg.dev/p/r/train@sha256:{'0' * 64}",),
        ("--image=mobilenet-cpu:1",),
        ("--mount=/work/",),
        ("--mount=/work", "--claim=team.data-1", "--volume_size=2Ti", "--memory=500Mi"),
        ("--service_account=trainer", "--node_selector=cloud.google.com/gke-spot=true,a_b=C.d"),
        ("--gpus=4", "--gpu_type=amd.com/gpu"),
        ("--workers=4", "--train_flags=--strategy=multi_worker"),
        ("--gpus=4", "--gpu_type=google.com/tpu", "--train_flags=--strategy=tpu"),
        ("--train_flags=--strategy=mirrored --num_virtual_devices=2",),
        # What is not trained need not be shared.
        ("--workers=3", "--stages=evaluate-scratch"),
    ],
)
def test_what_a_cluster_takes_is_written(words):
    for found in all_objects(objects_of(*DEMO, *words)):
        kubernetes_validate.validate(found, OLDEST, strict=True)


def test_the_command_ends_with_one_line_and_writes_nothing(tmp_path):
    words = ["--format=kubernetes", f"--output={tmp_path / 'out'}", "--image=a", *DEMO]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.manifests", *words, "--claim=My Claim"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_longest_name_that_is_allowed_is():
    files = objects_of("--work_dir=gs://b/x", "--init=scratch", f"--name={'a' * 41}")
    lengths = [len(job["metadata"]["name"]) for job in jobs_of(files)]
    assert max(lengths) == 63  # of a label, and of a host
    files = objects_of(*ON_FOUR, "--stages=train-scratch", f"--name={'a' * 47}")
    hosts = [process.host.partition(".")[0] for process in processes_of(*jobs_of(files))]
    assert [len(host) for host in hosts] == [63] * 4


def test_a_directory_holds_what_was_written_last_and_nothing_of_others_is_lost(tmp_path):
    out = tmp_path / "out"

    def write(*words):
        write_manifests(*flags_of("--format=kubernetes", f"--output={out}", *DEMO, *words))
        return sorted(path.name for path in out.iterdir())

    assert len(write()) == 11
    assert write("--stages=train-scratch", "--claim=mine") == ["01-train-scratch.yaml"]
    mine = out / "notes.yaml"
    mine.write_text("a: 1\n")
    with pytest.raises(UsageError, match=r"holds notes\.yaml"):
        write()
    assert mine.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        write_manifests(*flags_of("--format=kubernetes", f"--output={tmp_path / 'file'}", *DEMO))


KUBECTL = """#!/bin/sh
# Keeps a line for each call; a Job ends, or kubectl breaks, at the second look at it.
printf '%s\\n' "$*" >> "$CALLS"
for word; do
  case $word in
    --filename=*)
      sed -n 's/^kind: //p' "${word#--filename=}" | tr 'A-Z' 'a-z' |
        sed "s/^job$/job.batch/; s|$|/$(basename "${word#--filename=}" .yaml)|" ;;
    job.batch/*)
      looks=$(grep -c "get $word " "$CALLS")
      [ "$looks" -lt 2 ] || [ -z "${BREAKS:-}" ] || { echo "$BREAKS" >&2; exit 3; }
      [ "$looks" -lt 2 ] || printf 'SuccessCriteriaMet\\n%s\\n' "${ENDS:-Complete}" ;;
  esac
done
"""


def apply(tmp_path, *words: str, **variables: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """`apply.sh` with a kubectl that only notes how it is called."""
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir(exist_ok=True)
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    calls = tmp_path / "calls"
    calls.write_text("")
    environment = {
        "PATH": f"{kubectl.parent}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "POLL_SECONDS": "0",
    }
    done = subprocess.run(
        [str(ROOT / "infra" / "kubernetes" / "apply.sh"), *words],
        env=environment | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, calls.read_text().splitlines()


def test_apply_waits_for_all_jobs_of_a_number_before_the_next(tmp_path):
    directory = ROOT / "infra" / "kubernetes" / "demo"
    done, calls = apply(tmp_path, str(directory), "--namespace=mine")
    assert done.returncode == 0, done.stderr
    assert all(call.startswith("--namespace=mine ") for call in calls)
    events = []
    for call in calls:
        words = call.split()
        if words[1] == "apply":
            events.append(("apply", os.path.basename(words[2]).removesuffix(".yaml")))
        elif words[1] == "get" and ("look", words[2].partition("/")[2]) not in events:
            events.append(("look", words[2].partition("/")[2]))
    names = sorted(path.stem for path in directory.glob("*.yaml"))
    by_level: dict[str, list[str]] = {}
    for name in names:
        by_level.setdefault(name[:2], []).append(name)
    wanted = []
    for level in by_level.values():
        wanted += [("apply", name) for name in level]
        wanted += [("look", name) for name in level if name != "00-volume"]
    assert events == wanted
    assert done.stdout.count(": Complete") == len(names) - 1


def test_apply_stops_at_a_job_that_failed(tmp_path):
    directory = ROOT / "infra" / "kubernetes" / "demo"
    done, calls = apply(tmp_path, str(directory), ENDS="Failed")
    assert done.returncode == 1
    assert "kubectl logs job.batch/01-draw-photos" in done.stderr
    assert not [call for call in calls if "02-" in call]


def test_apply_ends_with_what_kubectl_says_when_it_cannot_look(tmp_path):
    directory = ROOT / "infra" / "kubernetes" / "demo"
    lost = "Error from server (NotFound): it is gone"
    done, calls = apply(tmp_path, str(directory), BREAKS=lost)
    assert done.returncode == 3
    assert done.stderr == f"{lost}\n"
    assert len([call for call in calls if "get " in call]) == 2


def test_apply_is_clean_and_of_the_bash_that_macos_has():
    script = ROOT / "infra" / "kubernetes" / "apply.sh"
    linter = os.path.join(os.path.dirname(sys.executable), "shellcheck")
    done = subprocess.run([linter, str(script)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    # None of what came with bash 4: places from the end, maps, whole files, letters' case.
    later = r"\[-\d|declare -A|mapfile|readarray|\$\{\w+(,,|\^\^)|\|&|&>>"
    assert not re.search(later, script.read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", [(), ("--namespace=x",), ("no/such/directory",), ("EMPTY",)])
def test_apply_says_how_it_is_called(words, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done, calls = apply(tmp_path, *(str(empty) if word == "EMPTY" else word for word in words))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert calls == []
