"""The rules are few, each is needed, and what they keep from being run is right all the same."""

import re

import pytest

from common.errors import UsageError
from tests.checkout import ROOT
from tests.test_commands import COMMANDS

from .command_lines import check_module, check_shell
from .pages import (
    OTHERS,
    TYPED,
    all_commands,
    blocks_of,
    looks_typed,
    page_names,
    read,
)
from .rules import (
    GIVEN,
    GOES_ON_FROM,
    RULES,
    STARTS_FROM_NOTHING,
    Changed,
    Endless,
    NotHere,
    rule_of,
)
from .walks import typed

ALL = all_commands()
NOT_RUN = [command for command in ALL if isinstance(rule_of(command), NotHere)]


def test_each_rule_is_for_some_command():
    idle = [rule for rule in RULES if not any(rule.is_for(command) for command in ALL)]
    assert idle == []


def test_no_command_has_two_rules():
    for command in ALL:
        assert sum(rule.is_for(command) for rule in RULES) <= 1, command.name


def test_a_new_command_has_none():
    # Rules for all pages are for programs that are not ours; ours are named page by page.
    for command in ALL:
        for rule in RULES:
            if rule.page == "*" and rule.is_for(command):
                assert not re.match(r"python -m (?!pipeline\.serve)", command.plain)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.page} {rule.command[:40]}")
def test_a_rule_has_a_reason_and_names_a_test_that_there_is(rule):
    assert len(rule.reason.split()) > 1
    tested_by = getattr(rule, "tested_by", "")
    assert not tested_by or (ROOT / tested_by).exists()
    # Python needs one: its words cannot be looked at as those of a command can.
    python = [c for c in ALL if c.language == "python" and rule.is_for(c)]
    assert tested_by or not python


def test_a_rule_that_changes_a_command_does():
    for command in ALL:
        rule = rule_of(command)
        assert (typed(command, rule) != command.text) is (
            isinstance(rule, (Changed, Endless)) or command.language == "python"
        )


@pytest.mark.parametrize("command", NOT_RUN, ids=lambda command: command.name)
def test_a_command_that_is_not_run_takes_its_words(command):
    if command.language == "python":
        return  # the test that the rule names runs it
    found = check_shell(command.text)
    ours = re.match(r"(python -m (?!benchmarks)|make (run|train|fine|demo))", command.plain)
    assert found or not ours


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("training.train", ["--data_dir=a", "--model_dir=b", "--no_such_flag=1"]),
        ("training.launch", ["--num_workers=2", "--", "--no_such_flag=1"]),
    ],
)
def test_a_word_that_a_command_does_not_take_is_noticed(module, words):
    with pytest.raises(UsageError, match="no_such_flag"):
        check_module(module, words)


def test_a_target_that_there_is_not_is_noticed():
    with pytest.raises(ValueError, match="no-such-target"):
        check_shell("make no-such-target")


def test_nothing_is_installed_into_the_environment_of_the_tests():
    walked = [command for command in ALL if command not in NOT_RUN]
    assert not [c.name for c in walked if re.search(r"\b(pip|apt|apt-get) .*install", c.plain)]


def test_pages_that_rules_name_are_there():
    named = {*STARTS_FROM_NOTHING, *GOES_ON_FROM, *GOES_ON_FROM.values(), *GIVEN}
    assert named <= set(page_names())


def test_a_block_says_what_it_is():
    for page in page_names():
        for block in blocks_of(page, read(page)):
            where = f"{page}:{block.line}"
            assert block.language in (*TYPED, *OTHERS), f"{where}: say `shell` or `python`"
            if block.language not in TYPED:
                assert not looks_typed(block), f"{where} is typed: fence it with ```shell"


def test_commands_in_the_text_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    modules = {*COMMANDS, "pipeline.job"}
    for page in page_names():
        text = read(page)
        for module in re.findall(r"`python\s+-m\s+([\w.]+)", text):
            assert module in modules or not module.startswith(("pipeline", "training")), page
        for target in re.findall(r"`make ([a-z0-9-]+)", text):
            assert target in targets, f"{page}: make {target}"
