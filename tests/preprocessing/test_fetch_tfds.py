import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from preprocessing.fetch_tfds import FetchConfig, fetch

from .conftest import contents, encoded

LABELS = ("n01440764", "n02102040")
PHOTOS = {
    split: [(encoded(seed=seed), LABELS[seed % 2]) for seed in seeds]
    for split, seeds in (("train", range(7)), ("validation", range(50, 53)))
}


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """A data set of few photos, made by TFDS itself."""

    VERSION = tfds.core.Version("1.2.3")
    fails: Exception | None = None

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=LABELS),
                }
            )
        )

    def _split_generators(self, dl_manager):
        if self.fails:
            raise self.fails
        return {split: self._generate_examples(split) for split in PHOTOS}

    def _generate_examples(self, split):
        for number, (photo, label) in enumerate(PHOTOS[split]):
            yield number, {"image": io.BytesIO(photo), "label": label}


class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """A data set without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()})
        )

    def _split_generators(self, dl_manager):
        return {"train": iter(())}

    def _generate_examples(self):
        return iter(())


@pytest.fixture
def call(command, tmp_path, monkeypatch):
    monkeypatch.setattr(TinyPhotos, "fails", None)

    def run(name="tiny_photos"):
        flags = [f"--name={name}", f"--output_dir={tmp_path}/out", f"--tfds_dir={tmp_path}/tfds"]
        return command(*flags, main=fetch, config=FetchConfig)

    return run


def test_splits_become_class_folders_with_the_bytes_verbatim(call, tmp_path, build):
    code, text = call()
    assert code == 0, text
    for split, photos in PHOTOS.items():
        for label in LABELS:
            found = [path.read_bytes() for path in (tmp_path / "out" / split / label).iterdir()]
            assert sorted(found) == sorted(photo for photo, name in photos if name == label)
    marker = json.loads((tmp_path / "out/fetched.json").read_text())
    assert marker == {
        "name": "tiny_photos",
        "version": "1.2.3",
        "splits": {"train": 7, "validation": 3},
    }
    path = next((tmp_path / "out/train").rglob("*.JPEG"))
    assert np.asarray(Image.open(path)).shape == (32, 48, 3)
    build(tmp_path / "out/train", tmp_path / "shards")


def test_a_finished_fetch_is_not_done_again_and_an_unfinished_one_is(call, tmp_path):
    assert call()[0] == 0
    before = contents(tmp_path / "out")
    photo = next((tmp_path / "out/train").rglob("*.JPEG"))
    changed = photo.stat().st_mtime_ns
    code, text = call()
    assert code == 0 and "nothing to do" in text
    assert photo.stat().st_mtime_ns == changed
    photo.unlink()
    (tmp_path / "out/fetched.json").unlink()
    assert call()[0] == 0
    assert contents(tmp_path / "out") == before
    code, text = call("imagenette/320px-v2")
    assert code == 1 and "holds 'tiny_photos'" in text


def test_failures_are_one_clear_line(call, tmp_path, monkeypatch):
    monkeypatch.setattr(TinyPhotos, "fails", ConnectionError("Name or service not known"))
    code, text = call()
    assert code == 1 and "Name or service not known; check the network" in text.splitlines()[-1]
    assert "Traceback" not in text and not (tmp_path / "out/fetched.json").exists()
    for name, words in (
        ("no_such_photos", "no such data set"),
        ("tiny_texts", "not a data set for image classification"),
    ):
        code, text = call(name)
        assert code == 1 and words in text.splitlines()[-1] and "Traceback" not in text, text
