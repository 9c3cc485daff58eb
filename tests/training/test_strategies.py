"""Who the workers are, by TF_CONFIG and Vertex AI's CLUSTER_SPEC; and how a batch is shared."""

import json

import pytest

from common.errors import UsageError, UserError
from training import strategies
from training.config import DistributionFlags
from training.strategies import Devices, choose_devices, read_cluster, without_cluster

HOSTS = ["a:1", "b:1", "c:1"]


def tf_config(role="worker", index=0, **cluster) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})}


def cluster_spec(pool: str, index: int) -> dict[str, str]:
    """As in Vertex AI's documentation of custom training with several worker pools."""
    return {
        "CLUSTER_SPEC": json.dumps(
            {
                "cluster": {
                    "workerpool0": HOSTS[:1],
                    "workerpool1": HOSTS[1:],
                    "workerpool2": ["reduces:1"],
                    "workerpool3": ["evaluates:1"],
                },
                "environment": "cloud",
                "task": {"type": pool, "index": index},
            }
        )
    }


@pytest.mark.parametrize(
    ("environment", "index"),
    [
        (tf_config(worker=HOSTS, index=0), 0),
        (tf_config(worker=HOSTS, index=2), 2),
        (tf_config(role="chief", chief=HOSTS[:1], worker=HOSTS[1:]), 0),
        (tf_config(chief=HOSTS[:1], worker=HOSTS[1:], index=1), 2),
        (cluster_spec("workerpool0", 0), 0),
        (cluster_spec("workerpool1", 0), 1),
        (cluster_spec("workerpool1", 1), 2),
    ],
)
def test_workers_are_found_with_the_chief_first(environment, index):
    cluster = read_cluster(environment)
    assert list(cluster.workers) == HOSTS and cluster.index == index
    # What TensorFlow is told is TF_CONFIG's form, and names the same task.
    role, number = cluster.spec["task"]["type"], cluster.spec["task"]["index"]
    assert cluster.spec["cluster"][role][number] == HOSTS[index]


@pytest.mark.parametrize(
    "environment",
    [
        cluster_spec("workerpool1", 0),
        tf_config(chief=HOSTS[:1], worker=HOSTS[1:], ps=["reduces:1"], evaluator=["evaluates:1"]),
    ],
)
def test_tensorflow_is_told_of_those_who_train_alone(environment):
    # It would wait for the others.
    cluster = read_cluster(environment)
    assert cluster.spec["cluster"] == {"chief": HOSTS[:1], "worker": HOSTS[1:]}


@pytest.mark.parametrize(
    "environment",
    [
        cluster_spec("workerpool3", 0),
        tf_config(role="evaluator", chief=HOSTS[:1], worker=HOSTS[1:]),
    ],
)
def test_an_evaluator_is_none_of_the_workers(environment):
    assert read_cluster(environment).is_evaluator
    devices = choose_devices(DistributionFlags(strategy="multi_worker"), environment)
    assert devices.is_evaluator and devices.num_workers == 1 and devices.is_chief


def test_tf_config_comes_before_cluster_spec():
    environment = tf_config(worker=["z:1"]) | cluster_spec("workerpool0", 0)
    assert read_cluster(environment).workers == ("z:1",)


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}])
def test_without_a_cluster_there_is_none(environment):
    assert read_cluster(environment) is None


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG cannot be understood"),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG cannot be understood"),
        ({"CLUSTER_SPEC": '{"cluster": {}}'}, "CLUSTER_SPEC cannot be understood"),
        (tf_config(worker=HOSTS, index=3), "task 3 of 'worker'"),
        (tf_config(role="ps", worker=HOSTS, ps=["d:1"]), "task 0 of 'ps'"),
        (cluster_spec("workerpool2", 0), "CLUSTER_SPEC cannot be understood"),
    ],
)
def test_a_cluster_that_makes_no_sense_is_one_line(environment, told):
    with pytest.raises(UserError, match=told) as error:
        read_cluster(environment)
    assert "\n" not in str(error.value)


def test_several_workers_need_a_strategy_for_several():
    with pytest.raises(UsageError, match="--strategy=default, but TF_CONFIG"):
        choose_devices(DistributionFlags(strategy="default"), tf_config(worker=HOSTS))


def test_several_workers_need_to_be_named():
    with pytest.raises(UsageError, match="needs TF_CONFIG or CLUSTER_SPEC"):
        choose_devices(DistributionFlags(strategy="multi_worker"), {})


def test_no_tpu_is_one_line():
    with pytest.raises(UserError, match="no TPU answers") as error:
        choose_devices(DistributionFlags(strategy="tpu"), {})
    assert "\n" not in str(error.value)


def test_one_device_is_the_default():
    devices = choose_devices(DistributionFlags(), tf_config(worker=HOSTS[:1]))
    assert (devices.num_replicas, devices.num_workers, devices.is_chief) == (1, 1, True)
    assert devices.total([3.0, 4.0]) == [3.0, 4.0]


@pytest.mark.parametrize(
    ("flags", "environment", "name"),
    [
        ({}, {}, "default"),
        ({"num_virtual_devices": 2}, {}, "mirrored"),
        ({"tpu": "a-name"}, {}, "tpu"),
        ({}, {"TPU_NAME": "a-name"}, "tpu"),
    ],
)
def test_auto_is_what_flags_and_environment_ask_for(monkeypatch, flags, environment, name):
    monkeypatch.setattr(strategies, "_MAKERS", dict(strategies._MAKERS))
    monkeypatch.setitem(strategies._MAKERS, name, lambda *_: name)
    assert choose_devices(DistributionFlags(**flags), environment) == name


def test_without_a_cluster_all_else_stays():
    environment = tf_config(worker=HOSTS) | cluster_spec("workerpool0", 0) | {"TPU_NAME": "a-name"}
    assert without_cluster(environment) == {"TPU_NAME": "a-name"}


class FourReplicas:
    num_replicas_in_sync = 4


def test_a_batch_is_shared_evenly_and_in_pairs():
    devices = Devices(FourReplicas())
    assert devices.replica_batch(16) == 4
    for batch in (6, 12, 15):
        with pytest.raises(UsageError, match="take a multiple of 8"):
            devices.replica_batch(batch)
    assert devices.replica_batch(32, parts=4, in_pairs=True) == 8
    with pytest.raises(UsageError, match="in 4 parts each: take a multiple of 32"):
        devices.replica_batch(16, parts=4)
