"""Workers that were started with different flags or data find out before they train."""

import json
import os
import subprocess
import sys

import pytest

from tests.training.conftest import build, draw_photos
from tests.training.distribution import ROOT, words_of
from tests.training.runs import flags_of
from training.worker_process import free_ports


@pytest.mark.parametrize("other", ["flags", "data"])
def test_workers_that_differ_end_with_one_line_each(drawn_data, tmp_path, other):
    words = [words_of(flags_of(drawn_data, tmp_path / "run", data={"eval_split": ""}))] * 2
    if other == "flags":  # of the model, of which nothing else would tell
        words = [words[0], [w.replace("dropout_rate=0.1", "dropout_rate=0.5") for w in words[1]]]
        told = "the workers do not agree: start all of them with the same flags"
    else:
        copy = build(draw_photos(tmp_path / "photos"), tmp_path / "data", num_shards=2)
        words = [words[0], [w.replace(drawn_data, copy) for w in words[1]]]
        told = "the workers do not agree: their copies of split 'train' differ"
    assert words[0] != words[1]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "training.train", *words[index]],
            cwd=ROOT,
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                )
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 1 and told in output, output
    assert not (tmp_path / "run" / "history.json").exists()
