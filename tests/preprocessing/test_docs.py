"""What docs/data_sets.md shows works as it stands there."""

import re

from preprocessing.build_dataset import BuildConfig

from .conftest import ROOT

PAGE = (ROOT / "docs" / "data_sets.md").read_text(encoding="utf-8")


def test_one_image_is_fetched_by_the_table_as_the_page_shows(tree, tmp_path, build, monkeypatch):
    build(tree, tmp_path / "data", split="train")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    key = "dog/dog_2.JPEG"
    code = code.replace("n01440764/n01440764_10026.JPEG", key).replace("01024", "00003")
    found = {}
    exec(code, found)
    assert found["jpeg"] == (tree / key).read_bytes()


def test_the_page_names_only_flags_that_there_are():
    flags = set(BuildConfig.__dataclass_fields__)
    shown = set(re.findall(r"`--([a-z_]+)", PAGE)) | set(re.findall(r"^ +--([a-z_]+)=", PAGE, re.M))
    # Of verify, gcloud, the benchmark, and Beam.
    elsewhere = {"deep", "full", "photos", "sdk_container_image"}
    assert shown - elsewhere <= flags, shown - elsewhere - flags
