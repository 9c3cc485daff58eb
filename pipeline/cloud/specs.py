"""Jobs as Vertex AI's specifications: a CustomJobSpec, and one of a tuning job.

All functions here are pure. What they return are dictionaries with the names of the REST API, as
`gcloud ... --config` reads them from YAML.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from pipeline.cloud.commands import JOB_MODULE, Command
from pipeline.cloud.topologies import Machine, Topology

CUSTOM_JOB, TUNING_JOB = "custom-jobs", "hp-tuning-jobs"  # as gcloud calls them
VALIDATION_TOP_1 = "validation_top_1"
SECONDS_AN_HOUR = 3600
# What Vertex AI takes where a job says nothing.
DEFAULT_HOURS = 7 * 24
# Vertex AI's smallest disk. Checkpoints and data lie in the bucket.
_DISK = {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100}
# Log lines that Cloud Logging reads as entries with a severity.
_ENVIRONMENT = {"LOG_FORMAT": "json"}


@dataclasses.dataclass(frozen=True)
class Image:
    """A container that holds this package; its entry point is `python -m pipeline.job`.

    Attributes:
        uri: where it lies.
        is_worker: whether it is that of Dataflow's workers, whose entry point is another one.
    """

    uri: str
    is_worker: bool = False

    def task(self, command: Command) -> dict[str, Any]:
        entry_point = {"command": ["python", "-m", JOB_MODULE]} if self.is_worker else {}
        container = {
            "imageUri": self.uri,
            **entry_point,
            "args": command.all_words,
            "env": _variables(),
        }
        return {"containerSpec": container}


@dataclasses.dataclass(frozen=True)
class Package:
    """The code as a file, which one of Vertex AI's own containers installs at its start.

    Attributes:
        uri: gs:// path of the wheel or the source distribution.
        executor: that container.
    """

    uri: str
    executor: str

    def task(self, command: Command) -> dict[str, Any]:
        package = {
            "executorImageUri": self.executor,
            "packageUris": [self.uri],
            "pythonModule": JOB_MODULE,
            "args": command.all_words,
            "env": _variables(),
        }
        return {"pythonPackageSpec": package}


@dataclasses.dataclass(frozen=True)
class Job:
    """One job, in full.

    Attributes:
        name: what the console shows.
        command: what each machine runs, besides reduction servers.
        topology: on which machines.
        code: the container or the package.
        region: where it runs.
        service_account: as whom.
        run_dir: baseOutputDirectory.
        max_hours: when it is ended, finished or not.
        labels: for the bill.
    """

    name: str
    command: Command
    topology: Topology
    code: Image | Package
    region: str
    service_account: str
    run_dir: str
    max_hours: int = DEFAULT_HOURS
    labels: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Range:
    """Values that a tuning job may give to a flag.

    Attributes:
        flag: name of the flag of training.
        low: the least.
        high: the most.
        logarithmic: whether a factor matters, as in learning rates, rather than a difference.
    """

    flag: str
    low: float
    high: float
    logarithmic: bool = False


def custom_job_spec(job: Job) -> dict[str, Any]:
    """The CustomJobSpec of a job."""
    return {
        "workerPoolSpecs": [
            _worker_pool(job, place, machine, count)
            for place, (machine, count) in enumerate(job.topology.pools)
        ],
        "scheduling": _scheduling(job),
        "serviceAccount": job.service_account,
        "baseOutputDirectory": {"outputUriPrefix": job.run_dir},
    }


def tuning_job_spec(
    job: Job, ranges: Sequence[Range], max_trials: int, parallel_trials: int
) -> dict[str, Any]:
    """A HyperparameterTuningJob whose trials are this job with other flags.

    A trial counts by the best of its evaluations, since the best checkpoint is what it leaves
    behind. One that is worse than half of the others were at the same step is ended.
    """
    return {
        "displayName": job.name,
        "maxTrialCount": max_trials,
        "parallelTrialCount": parallel_trials,
        "studySpec": {
            "metrics": [{"metricId": VALIDATION_TOP_1, "goal": "MAXIMIZE"}],
            "parameters": [
                {
                    "parameterId": each.flag,
                    "scaleType": "UNIT_LOG_SCALE" if each.logarithmic else "UNIT_LINEAR_SCALE",
                    "doubleValueSpec": {"minValue": each.low, "maxValue": each.high},
                }
                for each in ranges
            ],
            "measurementSelectionType": "BEST_MEASUREMENT",
            "medianAutomatedStoppingSpec": {"useElapsedDuration": False},
        },
        "trialJobSpec": custom_job_spec(job),
    }


def custom_job_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The CustomJobSpec in what either of the two functions above returns."""
    return spec.get("trialJobSpec", spec)


def image_uri(project: str, region: str, repository: str, name: str, tag: str) -> str:
    """An image of `infra/docker/` in this project's Artifact Registry."""
    return f"{region}-docker.pkg.dev/{project}/{repository}/{name}:{tag}"


def image_name(image: str, is_build: bool) -> str:
    """Which target of `infra/docker/` a job runs: a build that of its workers, to be like them.

    Args:
        image: of the topology.
        is_build: whether the job builds a data set on Dataflow.
    """
    return "dataflow-worker" if is_build else f"train-{image}"


def account_of(project: str, is_build: bool) -> str:
    """The account of `infra/terraform/` that a job runs as."""
    return f"{'builder' if is_build else 'trainer'}@{project}.iam.gserviceaccount.com"


def continent_of(region: str) -> str:
    """The multi-region of Google's own images that is nearest to a region."""
    start = region.partition("-")[0]
    return start if start in ("asia", "europe") else "us"


def gcloud_command(
    job: Job, project: str, spec_path: str, trials: tuple[int, int] | None = None
) -> list[str]:
    """The command that submits the specification in a file.

    Args:
        job: what is submitted.
        project: id of the project.
        spec_path: the file.
        trials: of a tuning job: how many at most, and how many at a time, for which gcloud has
            flags that are 1 where they are left out.
    """
    kind = TUNING_JOB if trials else CUSTOM_JOB
    counts = []
    if trials:
        counts = [f"--max-trial-count={trials[0]}", f"--parallel-trial-count={trials[1]}"]
    labels = ",".join(f"{key}={value}" for key, value in job.labels)
    return [
        *("gcloud", "ai", kind, "create"),
        f"--project={project}",
        f"--region={job.region}",
        f"--display-name={job.name}",
        *([f"--labels={labels}"] if labels else []),
        *counts,
        f"--config={spec_path}",
    ]


def label(value: str) -> str:
    """A value as a label of Google Cloud may be: at most 63 small letters, digits, - and _."""
    return re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63]


def _worker_pool(job: Job, place: int, machine: Machine, count: int) -> dict[str, Any]:
    """One of the four pools; an empty one holds its place."""
    if count == 0:
        return {}
    task = job.code.task(job.command)
    if place == 2:
        # Not our image: it sums what NCCL sends to it, and has no settings.
        continent = continent_of(job.region)
        uri = f"{continent}-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"
        task = {"containerSpec": {"imageUri": uri}}
    return {
        "machineSpec": machine_spec(machine),
        "replicaCount": count,
        "diskSpec": dict(_DISK),
        **task,
    }


def machine_spec(machine: Machine) -> dict[str, Any]:
    """The MachineSpec of a machine."""
    spec: dict[str, Any] = {"machineType": machine.machine_type}
    if machine.accelerator_type:
        spec["acceleratorType"] = machine.accelerator_type
        spec["acceleratorCount"] = machine.accelerator_count
    if machine.tpu_topology:
        spec["tpuTopology"] = machine.tpu_topology
    return spec


def _scheduling(job: Job) -> dict[str, Any]:
    """When the job ends, on what it runs, and that all of its machines start anew together.

    Workers that train in step cannot go on with one that is new: all begin again at the last
    checkpoint.
    """
    topology = job.topology
    scheduling: dict[str, Any] = {"timeout": f"{job.max_hours * SECONDS_AN_HOUR}s"}
    if topology.spot or topology.num_hosts > 1:
        scheduling["restartJobOnWorkerRestart"] = True
    if topology.spot:
        scheduling["strategy"] = "SPOT"
    return scheduling


def _variables() -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()]
