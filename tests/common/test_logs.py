"""What a command says as JSON, and where its flags take their defaults from."""

import dataclasses
import datetime
import json
import logging

import pytest

from common.command import flag, run_to_exit_code
from common.errors import UserError
from common.logs import task_of


@dataclasses.dataclass(frozen=True)
class Walk:
    goal: str = flag(help="where to", variable="WALK_GOAL")
    pace: str = flag("slow", help="how", choices=("slow", "fast"), variable="WALK_PACE")


@pytest.fixture
def outcome(capsys):
    def call(main, *words):
        code = run_to_exit_code(main, Walk, argv=["walk.py", *words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    yield call
    logging.basicConfig(force=True)


def say(walk: Walk) -> None:
    logging.info("to %s, %s", walk.goal, walk.pace)


def test_flags_come_before_variables_and_variables_before_defaults(outcome, monkeypatch):
    assert outcome(say, "--goal=hill")[1] == ["to hill, slow"]
    monkeypatch.setenv("WALK_GOAL", "sea")
    monkeypatch.setenv("WALK_PACE", "fast")
    assert outcome(say)[1] == ["to sea, fast"]
    assert outcome(say, "--goal=hill", "--pace=slow")[1] == ["to hill, slow"]
    monkeypatch.setenv("WALK_GOAL", "")  # as good as unset
    code, _, (error,) = outcome(say)
    assert code == 2 and "--goal is required (or $WALK_GOAL)" in error


def test_a_wrong_variable_is_one_line(outcome, monkeypatch):
    monkeypatch.setenv("WALK_PACE", "crawl")
    code, _, (error,) = outcome(say, "--goal=hill")
    assert code == 2
    assert "error: $WALK_PACE: " in error and "crawl" in error and "slow|fast" in error
    assert outcome(say, "--goal=hill", "--pace=slow")[1] == ["to hill, slow"]


def test_a_log_format_of_another_program_is_none_of_ours(outcome, monkeypatch):
    monkeypatch.setenv("LOG_FORMAT", "combined")
    assert outcome(say, "--goal=hill")[1] == ["to hill, slow"]


def test_help_names_the_variables(outcome):
    _, lines, _ = outcome(say, "--help")
    text = " ".join(" ".join(lines).split())
    assert "where to (required) (or $WALK_GOAL)" in text
    assert "--log_format={text,json}" in text


def entries(lines: list[str]) -> list[dict]:
    found = [json.loads(line) for line in lines]
    for one in found:
        moment = datetime.datetime.fromisoformat(one["timestamp"].replace("Z", "+00:00"))
        assert abs(moment.timestamp() - datetime.datetime.now().timestamp()) < 600
    return found


def test_json_has_an_entry_a_line_with_its_severity(outcome, monkeypatch):
    monkeypatch.setenv("CLUSTER_SPEC", '{"task": {"type": "workerpool1", "index": 3}}')

    def speak(walk: Walk) -> None:
        logging.info("two\nlines")
        logging.warning("beware of %s", "Ü")
        raise UserError("the bridge\nis down")

    code, out, err = outcome(speak, "--goal=hill", "--log_format=json")
    first, second = entries(out)
    assert (first["severity"], first["message"]) == ("INFO", "two\nlines")
    assert (second["severity"], second["message"]) == ("WARNING", "beware of Ü")
    assert {entry["task"] for entry in (first, second)} == {"workerpool1-3"}
    (error,) = entries(err)
    assert code == 1 and error["severity"] == "ERROR" and error["exit_code"] == 1
    assert error["message"].endswith("error: the bridge is down")


def test_json_is_asked_for_by_a_variable_too_and_holds_a_bug_with_its_traceback(
    outcome, monkeypatch
):
    monkeypatch.setenv("LOG_FORMAT", "json")

    def stumble(walk: Walk) -> None:
        raise LookupError("no map")

    code, _, err = outcome(stumble, "--goal=hill")
    bug, end = entries(err)
    assert code == 1 and bug["severity"] == "CRITICAL"
    assert bug["message"].startswith("Traceback") and "no map" in bug["message"]
    assert "no map" in end["message"]
    assert outcome(say, "--goal=hill", "--log_format=text")[1] == ["to hill, slow"]


@pytest.mark.parametrize(
    ("environment", "task"),
    [
        ({}, ""),
        ({"TF_CONFIG": "{"}, ""),
        ({"TF_CONFIG": "[]"}, ""),
        ({"TF_CONFIG": '{"task": {"type": "worker", "index": 0}}'}, "worker-0"),
        ({"TF_CONFIG": "", "CLUSTER_SPEC": '{"task": {"type": "a", "index": 1}}'}, "a-1"),
    ],
)
def test_a_process_knows_its_task(environment, task):
    assert task_of(environment) == task
