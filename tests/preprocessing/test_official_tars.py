"""The official tars give the same shards as the same images in class folders."""

import io
import pathlib
import tarfile

import pytest

from preprocessing.class_list import imagenet_synsets
from preprocessing.records import load_records

from ..conftest import REFERENCE_DATA
from .conftest import encoded

NUM_IMAGES = 2000


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def photos_of(root: pathlib.Path) -> dict[str, bytes]:
    """A few thousand images of 40 synsets: real ones where they are at hand, drawn ones besides."""
    real = root / "imagenet_sample"
    photos = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(real.glob("*/*"))}
    synsets = imagenet_synsets()[::25]
    for number in range(NUM_IMAGES):
        synset = synsets[number % len(synsets)]
        photos[f"{synset}/{synset}_{number}.JPEG"] = encoded(seed=number, size=(40, 30))
    return photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos as class folders, and in the two official layouts."""
    root = tmp_path_factory.mktemp("official")
    content = photos_of(REFERENCE_DATA)
    for key, photo in content.items():
        path = root / "folders" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    by_class: dict[str, dict[str, bytes]] = {}
    for key, photo in content.items():
        by_class.setdefault(key.split("/")[0], {})[key.split("/")[1]] = photo
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for synset in sorted(by_class, reverse=True):  # no order is promised
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as inner:
                for name, photo in by_class[synset].items():
                    add(inner, name, photo)
            add(outer, f"{synset}.tar", out.getvalue())
    return root


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_training_tar_gives_the_same_shards_as_folders(photos, tmp_path, build, num_workers):
    folders = build(photos / "folders", tmp_path / "folders", num_shards=8)
    tars = build(
        photos / "ILSVRC2012_img_train.tar",
        tmp_path / "tars",
        num_shards=8,
        num_workers=num_workers,
    )
    names = [f"train-{index:05d}-of-00008" for index in range(8)]
    for name in names:
        assert (folders / name).read_bytes() == (tars / name).read_bytes()
    both = [load_records(str(out), "train") for out in (folders, tars)]
    for column in ("key", "sha256", "offset", "jpeg_offset", "label"):
        assert list(both[0][column]) == list(both[1][column])
    # A row says where in the tar its image lies.
    tar = (photos / "ILSVRC2012_img_train.tar").read_bytes()
    assert set(both[1]["source"]) == {"ILSVRC2012_img_train.tar"}
    for row in range(0, len(both[1]["key"]), 97):
        start, size = both[1]["source_offset"][row], both[1]["jpeg_length"][row]
        image = (photos / "folders" / both[1]["key"][row]).read_bytes()
        assert tar[start : start + size] == image
    assert not list(tmp_path.rglob("*.JPEG")), "nothing is unpacked"


def test_the_validation_tar_and_flat_folder_give_the_same_shards_as_folders(
    photos, tmp_path, build
):
    paths = sorted((photos / "folders").glob("*/*"))
    flat, folders = tmp_path / "val", tmp_path / "folders"
    flat.mkdir()
    labels = []
    for number, path in enumerate(paths, 1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        labels.append(path.parent.name)
        (flat / name).hardlink_to(path)
        (folders / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folders / path.parent.name / name).hardlink_to(path)
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for path in sorted(flat.iterdir(), reverse=True):
            tar.add(path, path.name)
    (tmp_path / "labels").write_text("".join(f"{label}\n" for label in labels))
    flags = {"split": "validation", "num_shards": 4}
    expected = build(folders, tmp_path / "a", **flags)
    flags["labels"] = tmp_path / "labels"
    for number, source in enumerate((flat, tmp_path / "ILSVRC2012_img_val.tar")):
        out = build(source, tmp_path / f"b{number}", **flags)
        for index in range(4):
            name = f"validation-{index:05d}-of-00004"
            assert (out / name).read_bytes() == (expected / name).read_bytes()
