import fcntl
import os
import signal
import subprocess
import time

import pytest

from preprocessing.manifest import load_manifest

from .conftest import MODULE, ROOT, contents, encoded, make_tree


def test_a_killed_build_goes_on_where_it_was(tmp_path, build):
    photos = tmp_path / "photos"
    content = encoded("PNG", size=(600, 600))  # repaired, which takes a while
    for number in range(60):
        path = photos / f"c{number % 3}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    whole = build(photos, tmp_path / "whole", num_shards=30)
    out = tmp_path / "killed"
    command = [*MODULE, f"--source={photos}", f"--output_dir={out}", "--num_shards=30"]
    process = subprocess.Popen(command, cwd=ROOT)
    rows = out / "train" / "rows"
    deadline = time.monotonic() + 60
    # Files that are being written begin with a dot.
    while time.monotonic() < deadline and len(list(rows.glob("[0-9]*.parquet"))) < 5:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()

    finished = {path.stem: path for path in rows.glob("[0-9]*.parquet")}
    assert 5 <= len(finished) < 30 and not (out / "train" / "manifest.json").exists()
    shards = [out / f"train-{stem}-of-00030" for stem in finished]
    times = [path.stat().st_mtime_ns for path in shards]
    (out / f".tmp-{process.pid}-1-train-00029-of-00030").write_bytes(b"half a shard")
    (out / ".tmp-1-1-validation-00000-of-00030").write_bytes(b"another split's")
    damaged = shards[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")

    build(photos, out, num_shards=30)
    assert [path.stat().st_mtime_ns for path in shards[1:]] == times[1:]
    (out / ".tmp-1-1-validation-00000-of-00030").unlink()
    assert contents(out) == contents(whole)


def test_a_finished_build_is_left_alone_and_a_lost_shard_is_made_again(
    tree, tmp_path, build, command
):
    out = build(tree, tmp_path / "out")
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    code, text = command(f"--source={tree}", f"--output_dir={out}", "--num_shards=3")
    assert code == 0 and "is finished" in text
    assert {path: path.stat().st_mtime_ns for path in times} == times

    (out / "train-00001-of-00003").unlink()
    (out / "train/records.parquet").write_bytes(b"rubbish")
    code, text = command(f"--source={tree}", f"--output_dir={out}", "--num_shards=3")
    assert code == 0 and "2 of 3 shards are finished already" in text
    assert contents(out) == before


def test_a_file_that_could_not_be_read_is_tried_again(tree, tmp_path, command):
    source = tmp_path / "later.JPEG"
    (tree / "cat/link.JPEG").symlink_to(source)
    flags = [f"--source={tree}", f"--output_dir={tmp_path / 'out'}", "--num_shards=4"]
    assert command(*flags)[0] == 1
    source.write_bytes(b"")  # of the size that the plan has noted
    code, text = command(*flags, "--max_rejected_fraction=0.5")
    assert code == 0 and "3 of 4 shards are finished already" in text
    assert load_manifest(str(tmp_path / "out"), "train").rejected == {"empty": 1}


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--num_shards=2", "--num_shards was 3 and is 2"),
        ("--seed=9", "--seed was 0 and is 9"),
        ("--max_pixels=5000", "--max_pixels was 100000000 and is 5000"),
        ("--validate=decode", "--validate was header and is decode"),
        ("--shorter_side=20", "--shorter_side was 0 and is 20"),
        ("--holdout_fraction=0.3", "--holdout_fraction was 0.0 and is 0.3"),
        ("--classes={tmp}/classes", "the class list was 3 classes (folders)"),
    ],
)
def test_another_build_into_the_same_place_is_refused(tree, tmp_path, build, command, flag, words):
    (tmp_path / "classes").write_text("fox\ndog\ncat\n")
    out = build(tree, tmp_path / "out")
    before = contents(out)
    flags = [f"--source={tree}", f"--output_dir={out}", "--num_shards=3"]
    code, text = command(*flags, flag.format(tmp=tmp_path))
    assert code == 1 and words in text and "use another --output_dir, or delete" in text
    assert contents(out) == before


def test_changed_images_and_foreign_shards_are_refused(tree, tmp_path, build, command):
    out = build(tree, tmp_path / "out")
    flags = [f"--source={tree}", f"--output_dir={out}", "--num_shards=3"]
    (tree / "cat/new.JPEG").write_bytes(encoded(seed=5))
    code, text = command(*flags)
    assert code == 1 and "1 are new ('cat/new.JPEG')" in text
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train-00000-of-01024").write_bytes(b"not ours")
    code, text = command(f"--source={tree}", f"--output_dir={foreign}", "--num_shards=3")
    assert code == 1 and "train-00000-of-01024" in text and len(text.splitlines()) == 2
    assert (foreign / "train-00000-of-01024").read_bytes() == b"not ours"


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"flags": null}'])
def test_a_lost_or_damaged_plan_is_made_again_from_the_same_images(
    tree, tmp_path, build, command, content
):
    out = build(tree, tmp_path / "out")
    before = contents(out)
    (out / "train/manifest.json").unlink()
    (out / "train/plan.json").unlink()
    if content is not None:
        (out / "train/plan.json").write_bytes(content)
    code, text = command(f"--source={tree}", f"--output_dir={out}", "--num_shards=3")
    assert code == 0 and "3 of 3 shards are finished already" in text
    assert contents(out) == before


def test_an_unfinished_split_keeps_others_to_its_classes(tree, tmp_path, command):
    (tree / "cat/text.JPEG").write_bytes(b"text")
    flags = [f"--output_dir={tmp_path}/out", "--num_shards=1"]
    assert command(f"--source={tree}", *flags)[0] == 1  # too many rejected
    other = make_tree(tmp_path / "other", folders=("cat", "dog"))
    code, text = command(f"--source={other}", *flags, "--split=validation")
    assert code == 1 and "--classes=FILE" in text and len(text.splitlines()) == 2


def test_two_builds_of_one_split_do_not_run_at_once(tree, tmp_path, command):
    (tmp_path / "out/train").mkdir(parents=True)
    folder = os.open(tmp_path / "out/train", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    code, text = command(f"--source={tree}", f"--output_dir={tmp_path}/out", "--num_shards=3")
    os.close(folder)
    assert code == 1 and "another build of split 'train'" in text
