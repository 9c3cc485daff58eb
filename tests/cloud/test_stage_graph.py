"""The stages as tasks of a scheduler, held against the table that `pipeline.run` goes by."""

import re
import shlex

import pytest

from common.errors import UsageError, UserError
from pipeline.cloud.stage_graph import Sources, Task, choose_tasks, is_shared, plan_tasks
from pipeline.experiments import EXPERIMENTS, SCRATCH
from pipeline.stages import plan_stages

IMAGENET = EXPERIMENTS["mobilenet_v3_large"]
TARS = Sources("gs://BUCKET/train.tar", "gs://BUCKET/val.tar")


def demo_tasks() -> list[Task]:
    return plan_tasks(EXPERIMENTS["demo-scratch"], "demo", SCRATCH)


def before(tasks: list[Task], name: str) -> set[str]:
    """All that must have succeeded before a task starts, by following what each needs."""
    (task,) = (task for task in tasks if task.name == name)
    return set(task.needs).union(*(before(tasks, other) for other in task.needs))


def flags_of(task: Task) -> dict[str, str]:
    return dict(word[2:].partition("=")[::2] for word in task.words[1:])


def test_commands_are_those_of_the_table(tmp_path):
    work_dir = str(tmp_path)
    table = plan_stages(EXPERIMENTS["demo-scratch"], "demo", work_dir, SCRATCH)
    lines = [shlex.split(stage.command_line)[2:] for stage in table]
    tasks = demo_tasks()
    assert [task.name for task in tasks] == [stage.name.replace(" ", "-") for stage in table]
    # Nobody but pipeline.run writes down the commands that the report would show.
    without = [[word for word in line if not word.startswith("--commands=")] for line in lines]
    assert without[-1] != lines[-1] and without[:-1] == lines[:-1]
    assert [task.words_in(work_dir) for task in tasks] == without


def test_whoever_reads_a_file_comes_after_the_one_that_writes_it():
    table = plan_stages(EXPERIMENTS["demo-scratch"], "demo", "W", SCRATCH)
    tasks = demo_tasks()
    pairs = [
        (writer.name.replace(" ", "-"), reader.name.replace(" ", "-"))
        for writer in table
        for reader in table
        if set(writer.outputs) & set(reader.inputs)
    ]
    assert len(pairs) > 12
    for writer, reader in pairs:
        assert writer in before(tasks, reader)


def test_nothing_is_trained_on_what_is_not_verified_and_splits_take_turns():
    tasks = demo_tasks()
    assert {"verify-train", "verify-validation"} <= before(tasks, "train-scratch")
    assert "preprocess-train" in before(tasks, "preprocess-validation")
    # Nothing is in the way of what could run at the same time.
    assert "verify-train" not in before(tasks, "preprocess-validation")
    assert "publish-scratch" not in before(tasks, "report-scratch")


def test_no_need_is_told_twice_and_levels_follow_from_needs():
    tasks = demo_tasks()
    levels = {task.name: task.level for task in tasks}
    for task in tasks:
        for name in task.needs:
            assert not any(name in before(tasks, other) for other in task.needs)
        assert task.level == max((levels[name] + 1 for name in task.needs), default=1)
    assert [task.name for task in tasks if task.trains] == ["train-scratch"]


def test_photos_that_only_the_scheduler_sees_are_named():
    tasks = {task.name: task for task in plan_tasks(IMAGENET, "imagenet", SCRATCH, TARS)}
    for split, source in (("train", TARS.train), ("validation", TARS.validation)):
        build = tasks[f"preprocess-{split}"]
        assert flags_of(build)["source"] == source
        assert "holdout_fraction" not in flags_of(build)
    assert flags_of(tasks["report"])["title"] == "mobilenet_v3_large 1.0 on imagenet"


def test_a_part_of_one_tree_is_held_out_as_pipeline_run_does_it(tmp_path):
    (tmp_path / "cat").mkdir()
    seen = plan_tasks(IMAGENET, str(tmp_path), SCRATCH)
    named = plan_tasks(IMAGENET, str(tmp_path), SCRATCH, Sources(str(tmp_path)))
    assert flags_of(seen[0])["holdout_fraction"] == "0.2"
    assert named == seen


def test_training_starts_from_a_checkpoint_that_all_machines_see():
    plain = plan_tasks(IMAGENET, "imagenet", SCRATCH, TARS)
    tuned = plan_tasks(IMAGENET, "imagenet", "gs://BUCKET/other/best", TARS)
    changed = [(a, b) for a, b in zip(plain, tuned, strict=True) if a != b]
    ((before_it, after_it),) = changed
    assert before_it.trains
    assert set(after_it.words) - set(before_it.words) == {
        "--init_checkpoint=gs://BUCKET/other/best"
    }


@pytest.mark.parametrize(
    ("experiment", "dataset", "init", "sources", "kind", "told"),
    [
        ("demo", "demo", "tf1", None, UsageError, "--init=scratch"),
        ("fine-tune", "demo", "", None, UsageError, "path of a checkpoint"),
        ("small", "demo", "runs/model", None, UsageError, "--init=runs/model"),
        ("small", "imagenette", SCRATCH, TARS, UsageError, "--train_source"),
        ("small", "no/such/photos", SCRATCH, None, UserError, "--train_source"),
        ("small", "x", SCRATCH, Sources("photos/train"), UsageError, "photos/train"),
    ],
)
def test_what_lies_on_this_machine_alone_is_refused(experiment, dataset, init, sources, kind, told):
    with pytest.raises(kind, match=re.escape(told)):
        plan_tasks(EXPERIMENTS[experiment], dataset, init, sources)


def test_a_part_of_the_stages_keeps_its_order():
    tasks = demo_tasks()
    names = ("report-scratch", "train-scratch", "preprocess-train")
    chosen = choose_tasks(tasks, names)
    assert [(task.name, task.needs, task.level) for task in chosen] == [
        ("preprocess-train", (), 1),
        ("train-scratch", ("preprocess-train",), 2),
        ("report-scratch", ("train-scratch",), 3),
    ]
    with pytest.raises(UsageError, match=r"no 'train', but .*train-scratch"):
        choose_tasks(tasks, ("train",))


def test_shared_paths():
    assert [is_shared(path) for path in ("gs://b/x", "/work", "work", "./x", "")] == [
        *(True, True),
        *(False, False, False),
    ]
