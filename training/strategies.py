"""On what a run is computed: one device, Mirrored, MultiWorkerMirrored or TPU.

Made before anything else touches TensorFlow's devices: collective operations and virtual devices
must be set up before the first tensor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Mapping, Sequence

import tensorflow as tf

from common.errors import UsageError, UserError
from training.config import DistributionFlags, Recipe
from training.order import NEIGHBOURS

# Vertex AI names the tasks of a job by worker pools; TensorFlow by roles. The third pool, of
# parameter or reduction servers, is left out: TensorFlow would wait for them.
_POOLS = {"workerpool0": "chief", "workerpool1": "worker", "workerpool3": "evaluator"}
_CHIEFS = ("chief", "worker")
_OF_THE_CLUSTER = ("TF_CONFIG", "CLUSTER_SPEC")  # the first that is set counts
_EVALUATOR = "evaluator"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Attributes:
        workers: their addresses, the chief first.
        index: which of them this process is; 0 is the chief.
        spec: what TensorFlow is told: TF_CONFIG as a dictionary.
        is_evaluator: whether this process is none of them, but evaluates their checkpoints.
    """

    workers: tuple[str, ...]
    index: int
    spec: dict
    is_evaluator: bool = False


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG, or Vertex AI's CLUSTER_SPEC, describes; None without either.

    Raises:
        UserError: the variable cannot be understood, or this process is no worker in it.
    """
    variable = next((v for v in _OF_THE_CLUSTER if environment.get(v)), None)
    if variable is None:
        return None
    try:
        config = json.loads(environment[variable])
        if variable == "CLUSTER_SPEC":
            config = _from_pools(config)
        cluster = config.get("cluster", {})
        workers = [address for role in _CHIEFS for address in cluster.get(role, [])]
        task = config.get("task", {"type": "worker", "index": 0})
        role, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{variable} cannot be understood ({error!r}): see TensorFlow's guide"
        ) from (None)
    if not workers:
        return None
    if role == _EVALUATOR:
        return Cluster(tuple(workers), -1, {}, is_evaluator=True)
    if role not in _CHIEFS or index >= len(cluster.get(role, [])):
        raise UserError(
            f"{variable} makes this process task {index} of {role!r}, but it trains as a chief or"
            f" worker only, of which there are {len(workers)}, and evaluates as an evaluator"
        )
    place = index + (len(cluster.get("chief", [])) if role == "worker" else 0)
    trains = {name: cluster[name] for name in _CHIEFS if cluster.get(name)}
    return Cluster(tuple(workers), place, {**config, "cluster": trains})


def without_cluster(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to be no worker of a cluster."""
    return {k: v for k, v in environment.items() if k not in _OF_THE_CLUSTER}


def _from_pools(config: dict) -> dict:
    """TF_CONFIG from Vertex AI's CLUSTER_SPEC."""
    pools, task = config["cluster"], config["task"]
    return {
        "cluster": {role: pools[pool] for pool, role in _POOLS.items() if pools.get(pool)},
        "task": {"type": _POOLS[task["type"]], "index": task["index"]},
    }


@dataclasses.dataclass(frozen=True)
class Devices:
    """The strategy of a run, and this process' part in it.

    Attributes:
        strategy: TensorFlow's; models and state are made within its scope.
        num_workers: processes that train together.
        worker: which of them this is; 0 is the chief, which writes.
        description: for people, one line.
        is_evaluator: whether this process is none of them, but evaluates their checkpoints.
    """

    strategy: tf.distribute.Strategy
    num_workers: int = 1
    worker: int = 0
    description: str = ""
    is_evaluator: bool = False

    @property
    def num_replicas(self) -> int:
        """Copies of the model, over all workers."""
        return self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.worker == 0

    def replica_batch(self, global_batch: int, parts: int = 1, in_pairs: bool = False) -> int:
        """Examples of a global batch that one replica gets.

        Args:
            global_batch: examples of a step.
            parts: how many parts the replica computes them in, `--gradient_accumulation`.
            in_pairs: whether neighbours must stay together, to be mixed.

        Raises:
            UsageError: the batch cannot be shared evenly.
        """
        paired = in_pairs or self.num_replicas > 1  # pairs are what replicas are given
        divisor = parts * (NEIGHBOURS if paired else 1) * self.num_replicas
        if global_batch % divisor:
            raise UsageError(
                f"--batch_size={global_batch} cannot be shared"
                f" {'in pairs ' if paired else ''}by {self.num_replicas} replicas"
                f"{f' in {parts} parts each' if parts > 1 else ''}: take a multiple of {divisor}"
            )
        return global_batch // self.num_replicas

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums what each worker gives; every worker must call it, and all get the same."""
        if self.num_workers == 1:
            return [float(value) for value in values]
        local = self.num_replicas // self.num_workers  # each of them adds the worker's values
        sums = self._summed(tf.constant(values, tf.float64))
        return [float(value) / local for value in sums.numpy()]

    def agree(self, *values: object) -> bool:
        """Whether all workers gave the same; every worker must call it, and all hear the same."""
        number = zlib.crc32(repr(values).encode()) % 2**20  # so that sums of squares are exact
        total, of_squares = self.total([number, number**2])
        return total**2 == self.num_workers * of_squares  # which is so of equal numbers alone

    @functools.cached_property
    def _summed(self):
        def of_replica(values):
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(values))

        @tf.function
        def summed(values):
            per_replica = self.strategy.run(of_replica, (values,))
            return self.strategy.experimental_local_results(per_replica)[0]

        return summed


def share_batch(recipe: Recipe, devices: Devices) -> int:
    """Examples of a global batch that one replica gets under all the settings of a run.

    Raises:
        UsageError: the batch cannot be shared evenly, or in these parts.
    """
    parts = recipe.optimization.gradient_accumulation
    if parts > 1 and recipe.distribution.sync_batch_norm and devices.num_replicas > 1:
        raise UsageError(
            "--gradient_accumulation and --sync_batch_norm do not go together on several replicas:"
            " batch norm sees one part of a replica at a time"
        )
    return devices.replica_batch(recipe.optimization.batch_size, parts, recipe.augmentation.mixes)


def choose_devices(flags: DistributionFlags, environment: Mapping[str, str]) -> Devices:
    """Makes the strategy that is asked for, or the one that suits what is there.

    Raises:
        UserError: the strategy needs what is not there.
    """
    cluster = read_cluster(environment)
    if cluster and cluster.is_evaluator:
        alone = dataclasses.replace(flags, strategy="auto")
        devices = choose_devices(alone, without_cluster(environment))
        return dataclasses.replace(devices, is_evaluator=True)
    name = flags.strategy
    if name == "auto":
        name = _suitable(flags, cluster, environment)
    if cluster and len(cluster.workers) > 1 and name != "multi_worker":
        raise UsageError(
            f"--strategy={name}, but TF_CONFIG or CLUSTER_SPEC name {len(cluster.workers)} workers"
        )
    return _MAKERS[name](flags, cluster)


def _suitable(
    flags: DistributionFlags, cluster: Cluster | None, environment: Mapping[str, str]
) -> str:
    if cluster and len(cluster.workers) > 1:
        return "multi_worker"
    if flags.tpu or tf.config.list_physical_devices("TPU") or environment.get("TPU_NAME"):
        return "tpu"
    number = len(tf.config.list_physical_devices("GPU")) or flags.num_virtual_devices
    return "mirrored" if number > 1 else "default"


def _default(flags: DistributionFlags, cluster: Cluster | None) -> Devices:
    del flags, cluster
    gpus = tf.config.list_physical_devices("GPU")
    return Devices(tf.distribute.get_strategy(), description=f"one {'GPU' if gpus else 'CPU'}")


def _mirrored(flags: DistributionFlags, cluster: Cluster | None) -> Devices:
    del cluster
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return Devices(tf.distribute.MirroredStrategy(), description=f"{len(gpus)} GPUs, mirrored")
    number = flags.num_virtual_devices
    cut_cpu(number)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(number)])
    return Devices(strategy, description=f"{number} virtual devices of one CPU, mirrored")


def _multi_worker(flags: DistributionFlags, cluster: Cluster | None) -> Devices:
    del flags
    if cluster is None:
        raise UsageError(
            "--strategy=multi_worker needs TF_CONFIG or CLUSTER_SPEC: who are the workers?"
        )
    os.environ["TF_CONFIG"] = json.dumps(cluster.spec)
    # Reduction servers sum what NCCL sends, and nothing else.
    collectives = tf.distribute.experimental.CommunicationImplementation
    on_gpus = tf.config.list_physical_devices("GPU")
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=collectives.NCCL if on_gpus else collectives.AUTO
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    number = len(cluster.workers)
    return Devices(
        strategy,
        num_workers=number,
        worker=cluster.index,
        description=f"worker {cluster.index} of {number}, {strategy.num_replicas_in_sync} replicas",
    )


def _tpu(flags: DistributionFlags, cluster: Cluster | None) -> Devices:
    del cluster
    name = flags.tpu or os.environ.get("TPU_NAME", "")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name or "local")
        if name:
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--strategy=tpu, but no TPU answers: {reason}") from None
    strategy = tf.distribute.TPUStrategy(resolver)
    return Devices(strategy, description=f"TPU with {strategy.num_replicas_in_sync} cores")


_MAKERS = {
    "default": _default,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def cut_cpu(number: int) -> None:
    """Makes `number` virtual devices of the CPU, before TensorFlow uses it.

    Raises:
        UserError: TensorFlow has started with another number.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    with contextlib.suppress(RuntimeError):  # it has started: then they must be there already
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * number
        )
    there = len(tf.config.list_logical_devices("CPU"))
    if there < number:
        raise UserError(
            f"--num_virtual_devices={number}, but TensorFlow has started with {there} in this"
            " process"
        )


def mean_over_replicas(variables: Sequence[tf.Variable]) -> None:
    """Gives all replicas the mean of their copies, in replica context.

    For batch norm's moving statistics, which each replica gathers from its own part of the batch.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or not variables:
        return
    means = context.all_reduce("MEAN", [tf.identity(variable) for variable in variables])
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(mean)
