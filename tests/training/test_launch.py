"""The launcher with real processes: tiny workers that do as they are told."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from common.errors import UsageError
from training.launch import LaunchFlags, Loss, why_to_give_up, worker_environments

ROOT = pathlib.Path(__file__).parents[2]

# Notes each start as DIRECTORY/INDEX.START, serves on its port, then acts as its worker's part
# of the script says: a dictionary from "INDEX.START" to Python.
WORKER = """
import json, os, pathlib, signal, socket, sys, time
directory, script = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
config = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))
index = config["task"]["index"]
start = len(list(directory.glob(f"{index}.*")))
def serve():
    global server
    host, port = config["cluster"]["worker"][index].split(":")
    server = socket.create_server((host, int(port)))
def begin():
    draft = directory / f"draft-{index}"
    draft.write_text(str(os.getpid()))
    draft.rename(directory / f"{index}.{start}")
def resumable():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
def wait():
    time.sleep(60)
def wait_for(*names):
    while not all((directory / name).exists() for name in names):
        time.sleep(0.01)
exec(script.get(f"{index}.{start}", script.get("*", "begin()")))
"""


@pytest.fixture
def start(tmp_path):
    """Starts the launcher on workers that follow a script; ends what is left of it."""
    (tmp_path / "fake_worker.py").write_text(WORKER)
    (tmp_path / "notes").mkdir()
    started = []

    def begin(script: dict[str, str], *flags: str) -> subprocess.Popen:
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        command = [sys.executable, "-m", "training.launch", "--module=fake_worker", *flags]
        process = subprocess.Popen(
            [*command, "--", str(tmp_path / "notes"), json.dumps(script)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "TF_CONFIG": "not ours"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def result(process: subprocess.Popen) -> tuple[int, list[str], list[str]]:
    out, errors = process.communicate(timeout=30)
    return process.returncode, out.splitlines(), errors.splitlines()


def pids(tmp_path, *names: str) -> list[int]:
    """Process numbers of these starts, once all are there."""
    paths = [tmp_path / "notes" / name for name in names]
    deadline = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, names
        time.sleep(0.02)
    return [int(path.read_text()) for path in paths]


def starts(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "notes").iterdir() if "draft" not in p.name)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def test_each_worker_is_told_who_it_is_and_the_chief_is_heard(start, tmp_path):
    script = {
        "*": "serve(); begin(); print(json.dumps(config)); print('warn', index, file=sys.stderr)"
    }
    code, out, errors = result(start(script, "--num_workers=3"))
    assert code == 0
    (line,) = out
    assert line.startswith("[worker 0] ")
    config = json.loads(line.removeprefix("[worker 0] "))
    assert config["task"] == {"type": "worker", "index": 0}
    addresses = config["cluster"]["worker"]
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert sorted(errors) == [f"[worker {n}] warn {n}" for n in range(3)]
    assert starts(tmp_path) == ["0.0", "1.0", "2.0"]


def test_all_output_shows_every_worker_whole_lines_each(start):
    script = {"*": "print('a' * 200_000); print('b', end='')"}
    code, out, _ = result(start(script, "--num_workers=2", "--all_output"))
    assert code == 0
    expected = [f"[worker {n}] {text}" for n in range(2) for text in ("a" * 200_000, "b")]
    assert sorted(out) == expected


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "worker 1 was ended by SIGKILL"),
        ("sys.exit(75)", "worker 1 asked to be resumed"),
        ("sys.exit('disk on fire')", "worker 1 ended with exit code 1: disk on fire"),
    ],
)
def test_when_one_is_lost_all_are_ended_and_started_again(start, tmp_path, end, words):
    script = {
        "1.0": f"serve(); begin(); wait_for('0.0', '2.0'); {end}",
        "*": "serve(); begin(); print('done') if start else wait()",
    }
    process = start(script, "--num_workers=3", "--grace_seconds=5")
    before = pids(tmp_path, "0.0", "2.0")
    code, out, errors = result(process)
    assert code == 0
    assert f"{words}: starting all 3 again (1 of at most 10 times)" in "\n".join(out + errors)
    assert "[worker 0] done" in out
    assert starts(tmp_path) == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert not any(map(is_alive, before))


def test_a_worker_that_does_not_heed_sigterm_is_killed(start, tmp_path):
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve(); begin(); wait()"
    script = {
        "0.0": ignoring,
        "1.0": "serve(); begin(); wait_for('0.0'); sys.exit(75)",
    }
    code, _, _ = result(start(script, "--num_workers=2", "--grace_seconds=0.5"))
    assert code == 0
    assert starts(tmp_path) == ["0.0", "0.1", "1.0", "1.1"]
    assert not is_alive(*pids(tmp_path, "0.0"))


def test_it_gives_up_after_so_many_restarts(start, tmp_path):
    script = {"0.0": "begin(); sys.exit(75)", "0.1": "begin(); sys.exit(75)"}
    process = start(script, "--num_workers=1", "--max_restarts=1")
    code, _, errors = result(process)
    assert code == 1
    assert errors == [
        "python -m training.launch: error: worker 0 asked to be resumed; all were started again 1"
        " times (--max_restarts): the same command goes on"
    ]
    assert starts(tmp_path) == ["0.0", "0.1"]


@pytest.mark.parametrize(
    ("action", "num_starts"),
    [
        ("sys.exit(2)", 1),
        ("sys.exit('no data')", 2),
        # In a log of JSON each line has a time of its own.
        ("sys.exit(json.dumps({'message': 'no data', 'timestamp': time.time()}))", 2),
    ],
)
def test_it_does_not_try_again_what_cannot_help(start, tmp_path, action, num_starts):
    script = {"*": f"begin(); {action}"}
    code, _, errors = result(start(script, "--num_workers=1"))
    assert code == 1
    assert "starting it again would not help" in errors[-1]
    assert len(starts(tmp_path)) == num_starts


def test_a_worker_that_does_not_come_up_is_named_in_time(start, tmp_path):
    script = {"1.0": "begin(); wait()", "*": "serve(); begin(); wait()"}
    began = time.monotonic()
    process = start(script, "--num_workers=2", "--start_timeout=1", "--grace_seconds=2")
    there = pids(tmp_path, "0.0", "1.0")
    code, _, errors = result(process)
    assert code == 1
    assert time.monotonic() - began < 15
    assert "worker 1 did not come up" in errors[-1] and "--start_timeout" in errors[-1]
    assert not any(map(is_alive, there))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_resume_me_is_the_answer(start, tmp_path, number):
    script = {"*": "resumable(); serve(); begin(); wait()"}
    process = start(script, "--num_workers=2")
    there = pids(tmp_path, "0.0", "1.0")
    process.send_signal(number)
    code, _, errors = result(process)
    assert code == 75
    assert errors == [f"stopped by {number.name}: the same command goes on"]
    assert starts(tmp_path) == ["0.0", "1.0"]
    assert not any(map(is_alive, there))


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("sys.exit(0)", 75, "the same command goes on"),  # the other one asks to be resumed
        ("sys.exit(3)", 1, "worker 1 ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 1, "worker 1 was ended by SIGSEGV"),
        ("wait()", 1, "worker 1 was ended by SIGKILL"),
    ],
)
def test_after_a_signal_the_exit_code_tells_how_all_have_ended(
    start, tmp_path, action, code, words
):
    handler = f"signal.signal(signal.SIGTERM, lambda *_: {action})"
    script = {
        "1.0": f"{handler}; serve(); begin(); wait()",
        "*": "resumable(); serve(); begin(); wait()",
    }
    process = start(script, "--num_workers=2", "--grace_seconds=1")
    there = pids(tmp_path, "0.0", "1.0")
    process.send_signal(signal.SIGTERM)
    ended, _, errors = result(process)
    assert ended == code
    assert words in errors[-1]
    assert not any(map(is_alive, there))


def test_a_killed_launcher_takes_its_workers_with_it(start, tmp_path):
    # They heed neither SIGTERM nor a closed pipe.
    script = {"*": "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve(); begin(); wait()"}
    process = start(script, "--num_workers=2")
    there = pids(tmp_path, "0.0", "1.0")
    assert all(map(is_alive, there))
    process.kill()
    deadline = time.monotonic() + 5
    while any(map(is_alive, there)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_worker_alone_needs_no_cluster():
    given = {"PATH": "/bin", "TF_CONFIG": "{}", "CLUSTER_SPEC": "{}"}
    (one,) = worker_environments(given, [5000])
    assert one == {"PATH": "/bin", "PYTHONUNBUFFERED": "1"}


def test_tensorflow_and_training_understand_what_workers_are_told(monkeypatch):
    import tensorflow as tf

    from training.strategies import read_cluster

    for index, environment in enumerate(worker_environments({}, [5000, 5001])):
        cluster = read_cluster(environment)
        assert (cluster.workers, cluster.index) == (("127.0.0.1:5000", "127.0.0.1:5001"), index)
        monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        assert (resolver.task_type, resolver.task_id) == ("worker", index)
        assert resolver.cluster_spec().as_dict() == {"worker": list(cluster.workers)}


def test_another_end_than_before_is_worth_another_start():
    full, slow = Loss(0, 1, "disk full"), Loss(0, 1, "no network")
    assert why_to_give_up(full, full)
    assert not why_to_give_up(full, slow)
    assert not why_to_give_up(Loss(0, -9, "same"), Loss(0, -9, "same"))
    assert not why_to_give_up(Loss(0, 75, "same"), Loss(0, 75, "same"))


@pytest.mark.parametrize(
    "values",
    [{"num_workers": 0}, {"max_restarts": -1}, {"start_timeout": 0.0}, {"grace_seconds": -1.0}],
)
def test_wrong_flags_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        LaunchFlags(**{"num_workers": 2, **values})
