import os
import random

import pytest

from preprocessing.gather_writer import GatherWriter


def write(path, groups):
    with open(path, "wb", buffering=0) as file:
        writer = GatherWriter(file)
        for parts in groups:
            writer.add(*parts)
        writer.flush()


@pytest.mark.parametrize(("num_groups", "largest"), [(0, 1), (1, 0), (5000, 9), (40, 300_000)])
def test_the_file_is_the_parts_one_after_the_other(tmp_path, num_groups, largest):
    rng = random.Random(0)
    groups = [[rng.randbytes(rng.randint(0, largest)) for _ in range(3)] for _ in range(num_groups)]
    write(tmp_path / "file", groups)
    assert (tmp_path / "file").read_bytes() == b"".join(part for group in groups for part in group)


def test_what_the_system_leaves_over_is_written_by_further_calls(tmp_path, monkeypatch):
    whole = os.writev
    parts = [bytes([number]) * 100 for number in range(9)]
    taken = []

    def short(file, buffers):
        taken.append(whole(file, [b"".join(buffers)[:250]]))
        return taken[-1]

    monkeypatch.setattr(os, "writev", short)
    write(tmp_path / "file", [parts])
    assert taken == [250]
    assert (tmp_path / "file").read_bytes() == b"".join(parts)
