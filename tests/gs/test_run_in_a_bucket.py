"""`pipeline.run` with --work_dir in a bucket: what is skipped, run again, and set aside."""

import dataclasses
import logging

import pytest

from common import files
from common.command import flag
from common.errors import UserError
from pipeline.run import RunConfig, run_line
from pipeline.stage import Stage
from pipeline.stages import choose_photos
from pipeline.start import choose_start
from preprocessing.demo_photos import DemoConfig, draw_photos

pytest_plugins = ["tests.storage_emulator"]


@dataclasses.dataclass(frozen=True)
class CopyConfig:
    source: str = flag(help="file")
    target: str = flag(help="directory")
    setting: str = flag("a", help="anything")
    commands: str = flag("", help="as that of the report")


def copy(config: CopyConfig) -> None:
    content = files.read_bytes(config.source)
    files.write_bytes(files.join(config.target, "part-0"), content + config.setting.encode())
    files.write_json(files.join(config.target, "manifest.json"), {"bytes": len(content)})


class Line:
    """A line of two stages in a bucket, from a file and a folder of photos to a directory each."""

    def __init__(self, bucket: str, monkeypatch, caplog):
        self.work, self.source = files.join(bucket, "run"), files.join(bucket, "source", "x")
        self._folder, self._caplog = files.join(bucket, "photos"), caplog
        self.setting = "a"
        monkeypatch.setattr("pipeline.run.plan_stages", lambda *_: list(self._stages()))
        for name in ("1.JPEG", "a/2.JPEG"):
            files.write_bytes(files.join(self._folder, name), b"1")
        files.write_bytes(self.source, b"content")

    def change_photo(self) -> None:
        files.write_bytes(files.join(self._folder, "a", "2.JPEG"), b"2")

    def _stages(self):
        for name, source, folders, setting in (
            ("first", self.source, (self._folder,), "a"),
            ("second", files.join(self.work, "first", "part-0"), (), self.setting),
        ):
            target = files.join(self.work, name)
            commands = files.join(self.work, "commands.txt")
            yield Stage(
                name=name,
                command=f"{__name__}:copy",
                configs=(CopyConfig(source, target, setting, commands),),
                inputs=(source,),
                outputs=(files.join(target, "manifest.json"),),
                owns=(name, f"{name}-*"),
                folders=folders,
            )

    def run(self) -> list[str]:
        """Names of the stages that ran."""
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO):
            run_line(RunConfig(self.work, init="scratch"))
        told = [record.getMessage() for record in self._caplog.records]
        return [line.split()[1][:-1] for line in told if ": done in " in line]


@pytest.fixture
def line(bucket, monkeypatch, caplog) -> Line:
    return Line(bucket, monkeypatch, caplog)


def test_a_stage_runs_once_and_again_when_something_has_changed(line):
    assert line.run() == ["first", "second"]
    assert files.read_bytes(files.join(line.work, "second", "part-0")) == b"contentaa"
    commands = files.read_bytes(files.join(line.work, "commands.txt")).decode()
    assert f"--target={line.work}/second" in commands
    assert line.run() == []
    line.setting = "b"
    assert line.run() == ["second"]
    assert files.read_bytes(files.join(line.work, "second", "part-0")) == b"contentab"
    old = files.join(line.work, "outdated", "1", "second")
    assert files.read_bytes(files.join(old, "part-0")) == b"contentaa"
    line.change_photo()
    assert line.run() == ["first"]  # what it wrote is the same
    files.write_bytes(line.source, b"other")
    assert line.run() == ["first", "second"]
    entries = files.list_directory(files.join(line.work, "outdated"))
    assert [entry.name for entry in entries] == ["1", "2", "3", "4"]
    assert line.run() == []


def test_what_was_lost_or_cut_is_written_again(line):
    line.run()
    files.write_bytes(files.join(line.work, "first", "part-0"), b"cont")
    assert line.run() == ["first"]
    files.remove(files.join(line.work, "second", "manifest.json"))
    assert line.run() == ["second"]
    files.write_bytes(files.join(line.work, "second", "note"), b"somebody's")
    assert line.run() == []


@pytest.mark.parametrize("fault", [503, "reset"])
def test_faults_change_nothing(line, storage_proxy, fault):
    storage_proxy.fail(fault, every=5)
    assert line.run() == ["first", "second"]
    line.setting = "b"
    assert line.run() == ["second"]
    assert line.run() == []
    assert storage_proxy.num_faults > 10


def test_what_a_data_set_and_a_start_in_a_bucket_are(bucket):
    for name in ("tree/train/a/1", "tree/val/a/2", "one/a/1", "ckpt-12.index", "ckpt-12.data-0"):
        files.write_bytes(files.join(bucket, name), b"1")
    tree, one = files.join(bucket, "tree"), files.join(bucket, "one")
    photos = choose_photos(tree, "work")
    assert photos.sources == {"train": f"{tree}/train", "validation": f"{tree}/val"}
    assert choose_photos(one, "work").sources == {"train": one, "validation": one}
    with pytest.raises(UserError, match="none is no directory"):
        choose_photos(files.join(bucket, "none"), "work")
    prefix = files.join(bucket, "ckpt-1")
    with pytest.raises(UserError, match="ckpt-1 is no checkpoint"):
        choose_start(prefix, None, "work")
    start = choose_start(f"{prefix}2", None, "work")
    assert start.inputs == (f"{prefix}2.data-0", f"{prefix}2.index")
    assert choose_start(one, None, "work").inputs == (one,)


def test_the_demo_is_drawn_into_a_bucket(bucket, tmp_path):
    flags = {"train_per_class": 1, "validation_per_class": 1, "num_workers": 1}
    places = (str(tmp_path / "photos"), files.join(bucket, "photos"))
    for place in places:
        draw_photos(DemoConfig(place, **flags))
    ours, theirs = (
        {n: files.read_bytes(files.join(place, n)) for n, _ in files.list_tree(place)}
        for place in places
    )
    assert ours == theirs and len(ours) == 42
    draw_photos(DemoConfig(places[1], **flags))  # it is there
    with pytest.raises(UserError, match="holds demo photos of other settings"):
        draw_photos(DemoConfig(places[1], **flags, seed=2))
    files.write_bytes(files.join(bucket, "other", "note"), b"1")
    with pytest.raises(UserError, match="holds files that are not demo photos"):
        draw_photos(DemoConfig(files.join(bucket, "other"), **flags))
