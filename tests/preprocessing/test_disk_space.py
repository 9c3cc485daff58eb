import shutil

import pytest

from common.errors import UserError
from preprocessing.build_dataset import BuildConfig, make_plan
from preprocessing.disk_space import bytes_needed, require_disk_space

from .conftest import make_tree


def test_the_room_that_is_asked_for_is_what_a_build_takes(tmp_path, build):
    photos = make_tree(tmp_path / "photos", per_folder=100)
    _, plan, _ = make_plan(BuildConfig(str(photos), str(tmp_path / "out"), num_shards=3))
    out = build(photos, tmp_path / "out")
    taken = sum(path.stat().st_size for path in out.glob("train-*"))
    taken += sum(path.stat().st_size for path in out.glob("train/r*/*.parquet"))
    taken += sum(path.stat().st_size for path in out.glob("train/*.parquet"))
    assert taken <= bytes_needed(plan, [0, 1, 2]) <= 1.6 * taken
    assert 0 < bytes_needed(plan, [1]) < bytes_needed(plan, [1, 2])


def test_too_little_room_is_one_line_before_any_shard_is_written(tmp_path, monkeypatch):
    photos = make_tree(tmp_path / "photos")
    config = BuildConfig(str(photos), str(tmp_path), num_shards=3)
    _, plan, _ = make_plan(config)
    need = bytes_needed(plan, [0, 1, 2])

    def with_room(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))

    with_room(need)
    require_disk_space(str(tmp_path), plan, [0, 1, 2])
    with_room(need - 1)
    with pytest.raises(UserError, match=r"free, but the shards need .* free some space"):
        require_disk_space(str(tmp_path), plan, [0, 1, 2])
    require_disk_space(str(tmp_path), plan, [0, 1])
