import shutil
import subprocess

import pytest

from .conftest import MODULE, ROOT, encoded, make_tree


def mistakes(tmp_path):
    tree = f"--source={make_tree(tmp_path / 'photos')}"
    for name in ("empty", "no_files/cat", "files", "nested/train/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "files/photo.JPEG").write_bytes(encoded())
    (tmp_path / "classes").write_text("cat\ndog\n")
    (tmp_path / "rubbish/cat").mkdir(parents=True)
    (tmp_path / "rubbish/cat/a.JPEG").write_bytes(b"rubbish")
    return [
        ([f"--source={tmp_path}/missing"], 1, "cannot be listed"),
        ([f"--source={tmp_path}/files/photo.JPEG"], 1, "is not a tar"),
        ([f"--source={tmp_path}/empty"], 1, f"--source={tmp_path}/empty"),
        ([f"--source={tmp_path}/files"], 1, "--labels"),
        ([tree, f"--labels={tmp_path}/classes"], 2, "--labels"),
        ([tree, f"--bounding_boxes={tmp_path}/classes"], 1, "--bounding_boxes"),
        ([tree, f"--class_text={tmp_path}/none"], 1, "--class_text"),
        ([tree, f"--output_dir={tmp_path}/photos/out"], 2, "among the photos"),
        ([tree, f"--output_dir={tmp_path}", "--split=photos"], 2, "among the photos"),
        ([tree, "--jpeg_quality=101"], 2, "--jpeg_quality=101"),
        ([tree, "--shorter_side=-1"], 2, "--shorter_side=-1"),
        ([tree, "--validate=closely"], 2, "validate"),
        ([tree, "--runner=SparkRunner"], 2, "runner"),
        ([f"--source={tmp_path}/no_files"], 1, "there are no files in its 1 class folders"),
        ([f"--source={tmp_path}/nested"], 1, f"is it --source={tmp_path}/nested/train?"),
        ([f"--source={tmp_path}/rubbish", "--num_shards=1"], 1, "all 1 images were rejected"),
        ([tree, f"--classes={tmp_path}/classes"], 1, "lacks fox"),
        ([tree, f"--classes={tmp_path}/none"], 1, "cannot be read"),
        ([tree, "--output_dir=/proc/nowhere"], 1, "--output_dir=/proc/nowhere"),
        ([tree, "--num_shards=13"], 2, "12 at most"),
        ([tree, "--num_shards=0"], 2, "--num_shards=0"),
        ([tree, "--num_workers=0"], 2, "--num_workers=0"),
        ([tree, "--num_workers=two"], 2, "num_workers"),
        ([tree, "--split=a/b"], 2, "--split='a/b'"),
        ([tree, "--max_rejected_fraction=5"], 2, "--max_rejected_fraction=5.0"),
        ([tree, "--holdout_fraction=1"], 2, "--holdout_fraction=1.0"),
        ([tree, "--holdout_fraction=0.1", "--split=test"], 2, "--split=test"),
        ([tree, "--holdout_fraction=1e-9", "--split=validation"], 1, "leaves no image"),
        (["--source="], 1, "--source"),
    ]


def test_every_mistake_is_one_clear_line(tmp_path, command):
    for flags, expected, words in mistakes(tmp_path):
        code, text = command(f"--output_dir={tmp_path / 'out'}", *flags)
        last = text.splitlines()[-1]
        assert code == expected and words in last, (flags, code, text)
        assert "Traceback" not in text
        assert not (tmp_path / "out/train/manifest.json").exists()


def test_the_command_itself_ends_with_one_line_and_a_code(tmp_path):
    done = subprocess.run(
        [*MODULE, f"--source={tmp_path}/missing", f"--output_dir={tmp_path}/out"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("python -m preprocessing.build_dataset: error: --source=")


def test_a_full_disk_is_one_line_and_leaves_no_half_shard(tmp_path, command, monkeypatch):
    photos = make_tree(tmp_path / "photos", per_folder=20)
    for path in photos.glob("*/*"):
        path.write_bytes(path.read_bytes() + b"\0" * 50_000)
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        code, text = command(f"--source={photos}", f"--output_dir={out}", "--num_shards=6")
        assert code == 1 and "free, but the shards need" in text, text
        # There was room when the build began, and somebody else took it.
        room = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: room)
            code, text = command(f"--source={photos}", f"--output_dir={out}", "--num_shards=6")
        assert code == 1 and "the disk is full while writing" in text, text
        assert len(text.splitlines()) == 3 and "Traceback" not in text
        names = [path.name for path in out.rglob("*") if path.is_file()]
        assert not [name for name in names if name.startswith(".tmp-")]
        assert "train-00000-of-00006" in names and "manifest.json" not in names
        subprocess.run(["mount", "-o", "remount,size=20m", str(out)], check=True)
        code, text = command(f"--source={photos}", f"--output_dir={out}", "--num_shards=6")
        assert code == 0 and "of 6 shards are finished already" in text
    finally:
        subprocess.run(["umount", str(out)], check=True)
