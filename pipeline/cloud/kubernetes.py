"""The stages as plain Kubernetes objects: a Job each, and what these need.

A Job's container ends with the exit codes of the commands: 75, and any end by the cluster itself
(eviction, preemption, drain), starts it again and costs no attempt; 1 and 2 end the Job, since the
same would happen again; all else, a lack of memory for example, is tried a few times.

Objects are dictionaries here; the command writes them as YAML.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from common import files
from common.command import flag
from common.errors import UsageError
from pipeline.cloud.containers import (
    ENTRY_POINT,
    ENVIRONMENT,
    LABEL_VALUE,
    OBJECT_NAME,
    QUALIFIED_NAME,
    QUANTITY,
    ContainerFlags,
    require_form,
)
from pipeline.cloud.stage_graph import Task
from training.stopping import RESUME_ME

_PART_OF = "mobilenet-pipeline"
_CONTAINER = "stage"
_PORT = 2222  # on which workers listen for each other
_USER = 1000  # of infra/docker/; files of a volume belong to its group
_SECONDS_TO_SAVE = 120  # from SIGTERM to SIGKILL
_ATTEMPTS = 6
_FAILED, _WRONG_COMMAND_LINE = 1, 2
_LONGEST_NAME = 63  # of an object that is a host name, too
_ACCESS_MODES = ("ReadWriteMany", "ReadWriteOnce")
_TEMPORARY, _SHARED_MEMORY = "/tmp", "/dev/shm"  # mounts of every container, and of NCCL's
_NAME_WANTED = "a name of small letters, digits, hyphens and dots, such as data-1"
_NODE_LABEL = re.compile(f"{QUALIFIED_NAME.pattern}={LABEL_VALUE.pattern}")
_MOUNT = re.compile(rf"(?!({_TEMPORARY}|{_SHARED_MEMORY})/?\Z)(/(?!\.\.?(/|\Z))[^/:\s]+)+/?")


@dataclasses.dataclass(frozen=True)
class ClusterFlags:
    """kubernetes: how the Jobs lie in the cluster."""

    workers: int = flag(1, help="kubernetes: containers that train together, one a node")
    claim: str = flag(
        "",
        help="kubernetes: PersistentVolumeClaim that --work_dir lies on; empty to write one",
    )
    mount: str = flag("/work", help="kubernetes: where that volume is mounted")
    volume_size: str = flag("100Gi", help="kubernetes: size of the claim that is written")
    access_mode: str = flag(
        _ACCESS_MODES[0],
        help="kubernetes: of that claim; ReadWriteOnce is for clusters of one node",
        choices=_ACCESS_MODES,
    )
    service_account: str = flag(
        "", help="kubernetes: ServiceAccount whose rights the stages have, to reach a bucket"
    )
    node_selector: tuple[str, ...] = flag(
        (), help="kubernetes: labels KEY=VALUE of the nodes that train"
    )

    def __post_init__(self):
        if self.workers < 1:
            raise UsageError(f"--workers must be at least 1, not {self.workers}")
        require_form(
            *("mount", self.mount, _MOUNT),
            f"an absolute path such as /work, and not /, {_TEMPORARY} or {_SHARED_MEMORY}",
        )
        require_form("volume_size", self.volume_size, QUANTITY, "an amount such as 100Gi")
        for name in ("claim", "service_account"):
            if value := getattr(self, name):
                require_form(name, value, OBJECT_NAME, _NAME_WANTED)
        for label in self.node_selector:
            require_form("node_selector", label, _NODE_LABEL, "a label KEY=VALUE such as pool=gpu")


def describe_cluster(
    name: str, tasks: Sequence[Task], work_dir: str, given: ContainerFlags, cluster: ClusterFlags
) -> dict[str, list[dict[str, Any]]]:
    """The objects of a run by the file that they go into, in the order in which they are applied.

    Args:
        name: what all names of objects begin with.
        tasks: the stages.
        work_dir: a directory below the mount of the volume, or in a bucket, which needs no volume.
        given: image and resources.
        cluster: all else.

    Raises:
        UsageError: a name is too long, or the directory is on no volume.
    """
    if given.gpus and "/" not in given.gpu_type:
        raise UsageError(
            f"--gpu_type={given.gpu_type} must be the name of a resource of the nodes, such as"
            " nvidia.com/gpu"
        )
    volume = "" if files.is_remote(work_dir) else cluster.claim or f"{name}-work"
    if volume and not f"{work_dir.rstrip('/')}/".startswith(f"{cluster.mount.rstrip('/')}/"):
        raise UsageError(
            f"--work_dir={work_dir} is neither in a bucket nor below --mount={cluster.mount}, where"
            " the volume is: another stage would not find it"
        )
    described = {}
    if volume and not cluster.claim:
        described["00-volume"] = [_claim(volume, name, cluster)]
    jobs = [_Job(name, task, work_dir, volume, given, cluster) for task in tasks]
    _require_short(name, max((job.longest_name for job in jobs), key=len))
    for job in jobs:
        described[f"{job.task.level:02d}-{job.task.name}"] = job.objects()
    return described


def _require_short(name: str, longest: str) -> None:
    if len(longest) > _LONGEST_NAME:
        raise UsageError(
            f"{longest} is too long a name for Kubernetes: take a --name of at most"
            f" {_LONGEST_NAME - len(longest) + len(name)} signs"
        )


@dataclasses.dataclass(frozen=True)
class _Job:
    """One task as objects; the arguments are those of `describe_cluster`."""

    run: str
    task: Task
    work_dir: str
    volume: str
    given: ContainerFlags
    cluster: ClusterFlags

    @property
    def name(self) -> str:
        return f"{self.run}-{self.task.name}"

    @property
    def longest_name(self) -> str:
        """Of the Job, or of its last worker's host."""
        return f"{self.name}-{self.workers - 1}" if self.workers > 1 else self.name

    @property
    def workers(self) -> int:
        return self.cluster.workers if self.task.trains else 1

    @property
    def labels(self) -> dict[str, str]:
        return {**_labels(self.run), "app.kubernetes.io/component": self.task.name}

    def objects(self) -> list[dict[str, Any]]:
        return [self._service(), self._job()] if self.workers > 1 else [self._job()]

    def _job(self) -> dict[str, Any]:
        together = {
            "completionMode": "Indexed",
            "completions": self.workers,
            "parallelism": self.workers,
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "annotations": {f"{_PART_OF}/after": ",".join(self.task.needs)},
            },
            "spec": {
                **(together if self.workers > 1 else {}),
                "backoffLimit": _ATTEMPTS,
                # Never two at work on the same files: the old one must have ended.
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {"rules": _rules()},
                "template": {"metadata": {"labels": self.labels}, "spec": self._pod()},
            },
        }

    def _pod(self) -> dict[str, Any]:
        asked = self.given.resources(self.task)
        pod: dict[str, Any] = {
            "restartPolicy": "Never",  # the Job starts a new one, by its rules
            "terminationGracePeriodSeconds": _SECONDS_TO_SAVE,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",  # a data set has many files
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self._container()],
            "volumes": self._volumes(),
        }
        if self.workers > 1:
            pod["subdomain"] = self.name  # with the Service it gives each worker a name
        if self.cluster.service_account:
            pod["serviceAccountName"] = self.cluster.service_account
        if self.task.trains and self.cluster.node_selector:
            labels = (label.partition("=") for label in self.cluster.node_selector)
            pod["nodeSelector"] = {key: value for key, _, value in labels}
        if asked.gpus:
            taint = {"key": self.given.gpu_type, "operator": "Exists", "effect": "NoSchedule"}
            pod["tolerations"] = [taint]
        return pod

    def _container(self) -> dict[str, Any]:
        asked = self.given.resources(self.task)
        gpus = {self.given.gpu_type: asked.gpus} if asked.gpus else {}
        container: dict[str, Any] = {
            "name": _CONTAINER,
            "image": self.given.image,
            "command": list(ENTRY_POINT),
            # Kubernetes would take $(NAME) for a variable.
            "args": [word.replace("$(", "$$(") for word in self.task.words_in(self.work_dir)],
            "env": [
                {"name": "HOME", "value": _TEMPORARY},  # where libraries keep what they fetch
                *({"name": name, "value": value} for name, value in ENVIRONMENT.items()),
                *(self._place_among_workers() if self.workers > 1 else []),
            ],
            "resources": {
                "requests": {"cpu": asked.cpus, "memory": asked.memory},
                # CPUs that are free may be used.
                "limits": {"memory": asked.memory, **gpus},
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": [
                {"name": volume["name"], "mountPath": self._mounts[volume["name"]]}
                for volume in self._volumes()
            ],
            "terminationMessagePolicy": "FallbackToLogsOnError",  # `kubectl describe` tells why
        }
        if self.workers > 1:
            container["ports"] = [{"name": "workers", "containerPort": _PORT}]
        return container

    def _place_among_workers(self) -> list[dict[str, Any]]:
        """TF_CONFIG, whose index comes from the variable before it."""
        index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        hosts = [f"{self.name}-{n}.{self.name}:{_PORT}" for n in range(self.workers)]
        who = json.dumps({"cluster": {"worker": hosts}})[:-1]
        task = '{"type": "worker", "index": $(WORKER_INDEX)}'
        return [
            {"name": "WORKER_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": "TF_CONFIG", "value": f'{who}, "task": {task}}}'},
        ]

    @property
    def _mounts(self) -> dict[str, str]:
        return {
            "temporary": _TEMPORARY,
            "shared-memory": _SHARED_MEMORY,
            "work": self.cluster.mount,
        }

    def _volumes(self) -> list[dict[str, Any]]:
        volumes: list[dict[str, Any]] = [{"name": "temporary", "emptyDir": {}}]
        if self.given.resources(self.task).gpus > 1:
            # NCCL may pass gradients through it; a container has 64 MB of it by default.
            memory = {"medium": "Memory", "sizeLimit": "2Gi"}
            volumes.append({"name": "shared-memory", "emptyDir": memory})
        if self.volume:
            claim = {"claimName": self.volume}
            volumes.append({"name": "work", "persistentVolumeClaim": claim})
        return volumes

    def _service(self) -> dict[str, Any]:
        """Gives each worker a name that stays when its pod is replaced."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,  # they look for each other while they start
                "selector": self.labels,
                "ports": [{"name": "workers", "port": _PORT}],
            },
        }


def _rules() -> list[dict[str, Any]]:
    """What becomes of a Job when a pod of it fails; the first rule that fits counts."""

    def on(*codes: int) -> dict[str, Any]:
        return {"containerName": _CONTAINER, "operator": "In", "values": list(codes)}

    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {"action": "Ignore", "onExitCodes": on(RESUME_ME)},
        {"action": "FailJob", "onExitCodes": on(_FAILED, _WRONG_COMMAND_LINE)},
    ]


def _claim(volume: str, run: str, cluster: ClusterFlags) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume, "labels": _labels(run)},
        "spec": {
            "accessModes": [cluster.access_mode],
            "resources": {"requests": {"storage": cluster.volume_size}},
        },
    }


def _labels(run: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": _PART_OF, "app.kubernetes.io/instance": run}
