"""Class folders, flat folders with labels, and the reader of their images."""

import importlib.util
import os
import pathlib
import random
import subprocess
import sys
import threading

import pytest

from common.errors import UsageError, UserError
from preprocessing.class_list import imagenet_synsets
from preprocessing.sources import SourceImage, SourceReader, list_source

from .conftest import ROOT, contents, encoded

pytest_plugins = ["tests.storage_emulator"]

OFFICIAL = "ILSVRC2012_val_{:08d}.JPEG"


def read_all(listing) -> dict[str, bytes]:
    with SourceReader(listing.root) as reader:
        return {image.key: content for image, content in reader.read_ahead(listing.images)}


def flat(root: pathlib.Path, names) -> pathlib.Path:
    root.mkdir()
    for number, name in enumerate(names):
        (root / name).write_bytes(encoded(seed=number))
    return root


def keys(source, labels=None) -> list[str]:
    return [image.key for image in list_source(str(source), "train", labels and str(labels)).images]


def test_class_folders_are_listed_by_key_with_whatever_lies_in_them(tree):
    (tree / "empty").mkdir()
    (tree / ".git").mkdir()
    (tree / "stray.txt").write_text("no image")
    (tree / "cat/.DS_Store").write_text("no image")
    (tree / "cat/a.JPEG").mkdir()
    (tree / "cat/notes").write_text("abc")
    (tree / "cat/gone.JPEG").symlink_to("nowhere")
    (tree / "cat/linked.JPEG").symlink_to(tree / "dog/dog_0.JPEG")
    (tree / os.fsdecode(b"cat/\xff\n.JPEG")).write_bytes(b"12")
    os.mkfifo(tree / "cat/pipe")
    (tree / "wolf").symlink_to(tree / "dog")
    listing = list_source(str(tree), "any")
    assert listing.classes == ("cat", "dog", "empty", "fox", "wolf")
    assert listing.ignored == ("cat/a.JPEG", "stray.txt")
    assert (listing.kind, listing.root) == ("class folders", str(tree))
    found = {image.key: image for image in listing.images}
    assert list(found) == sorted(found)
    assert len(found) == 3 * 4 + 4 + 5  # a pipe is found to be no file when it is read
    for key, image in found.items():
        size = os.path.getsize(tree / key) if os.path.exists(tree / key) else 0
        assert image == SourceImage(key, key.partition("/")[0], size, key, -1)
    assert {key for key in found if not found[key].num_bytes} == {"cat/gone.JPEG", "cat/pipe"}


def test_mistakes_with_folders_are_named(tmp_path, tree):
    for name in ("empty", "bare/cat", "nested/train/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "nested/train/cat/a.JPEG").write_bytes(b"1")
    flat(tmp_path / "flat", ["a.JPEG", "b.JPEG"])
    os.makedirs(os.fsencode(tmp_path / "odd") + b"/\xff")
    for source, words in (
        ("missing", "cannot be listed: No such file"),
        ("empty", "holds no class folders"),
        ("bare", "there are no files in its 1 class folders"),
        ("nested", f"is it --source={tmp_path}/nested/train?"),
        ("flat", "holds 2 files but no class folders.*--labels=FILE"),
        ("odd", "is not UTF-8"),
        ("flat/a.JPEG", "is not a tar"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            list_source(str(tmp_path / source), "train")
        assert f"--source={tmp_path}/{source}" in str(caught.value)
    for source, kind in ((str(tree), "class folders"), ("tfds:mnist", "TFDS data set")):
        with pytest.raises(UsageError, match=f"--labels=file .* is a .*{kind}"):
            list_source(source, "train", labels="file")


@pytest.mark.parametrize(
    "text",
    [
        "cat\nwild dog\ncat\n\n",  # in the order of the sorted names
        "c.jpg cat\na.jpg\tcat\nb.png,wild dog\n",
        "file_name,class\nb.png,wild dog\na.jpg,cat\nc.jpg, cat\nother.jpg,cow\n",
        "\ufeffa cat\r\nb wild dog\r\nc cat\r\n",  # names without their endings
    ],
)
def test_a_flat_folder_has_the_keys_of_class_folders(tmp_path, text):
    source = flat(tmp_path / "flat", ["c.jpg", "a.jpg", "b.png"])
    (source / "labels.txt").write_text(text)
    (source / "images.tar").write_bytes(b"the same once more")
    listing = list_source(str(source), "train", str(source / "labels.txt"))
    assert (listing.kind, listing.classes) == ("flat folder", ("cat", "wild dog"))
    assert listing.ignored == ("images.tar", "labels.txt")
    for image in listing.images:
        place = tmp_path / "folders" / image.key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((source / image.path).read_bytes())
    assert [image.key for image in listing.images] == ["cat/a.jpg", "cat/c.jpg", "wild dog/b.png"]
    folders = list_source(str(tmp_path / "folders"), "train")
    assert keys(source, source / "labels.txt") == [image.key for image in folders.images]
    assert read_all(listing) == read_all(folders) == contents(tmp_path / "folders")


def test_names_of_labelled_images_may_have_blanks(tmp_path):
    names = ["IMG 1.jpg", "IMG 1 2.jpg", "c.jpg"]
    source = flat(tmp_path / "flat", names)
    labels = tmp_path / "labels"
    labels.write_text("IMG 1.jpg red cat\nIMG 1 2.jpg dog\nc dog\n")
    assert keys(source, labels) == ["dog/IMG 1 2.jpg", "dog/c.jpg", "red cat/IMG 1.jpg"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ndog\n", "has 2 lines, but there are 3 images"),
        ("1\n2\n3\n", "numbers only.*development kit"),
        ("a.jpg cat\nb.jpg dog\n", "no line for c.jpg"),
        ("a.jpg cat\nb.jpg dog\nc.jpg cat\na.jpg dog\n", "line 4 says 'dog' of 'a.jpg'"),
        ("cat\n\ncat\ndog\n", "line 2 is empty"),
        ("A.JPG cat\nB.JPG dog\nC.JPG cat\n", "names images, .* but none of those .* 'a.jpg'"),
        ("", "is empty"),
        ("a/b\ncat\ncat\n", "'a/b' cannot be a class"),
        ("n01440764\nn01443537\nn99999999\n", "n99999999 are not among ImageNet's"),
        ("\udcff\n", "not a text file in UTF-8"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, text, words):
    source = flat(tmp_path / "flat", ["a.jpg", "b.jpg", "c.jpg"])
    labels = tmp_path / "labels"
    labels.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=words) as caught:
        keys(source, labels)
    assert f"--labels={labels}" in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        keys(source, tmp_path / "none")


def test_the_official_validation_images_have_the_labels_that_tfds_brings(tmp_path):
    source = tmp_path / "val"
    source.mkdir()
    for number in range(1, 50_001):
        (source / OFFICIAL.format(number)).touch()
    listing = list_source(str(source), "validation")
    package = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    expected = (package / "datasets/imagenet2012/validation_labels.txt").read_text().split()
    assert len(listing.images) == 50_000 and listing.classes == imagenet_synsets()
    found = {image.path: image.class_name for image in listing.images}
    assert [found[OFFICIAL.format(number)] for number in range(1, 50_001)] == expected
    assert expected[:3] == ["n01751748", "n09193705", "n02105855"]
    # Some of them keep their labels, since these belong to the numbers.
    few = flat(tmp_path / "few", [OFFICIAL.format(number) for number in (3, 50_000)])
    assert keys(few) == sorted(f"{expected[n - 1]}/{OFFICIAL.format(n)}" for n in (3, 50_000))
    # A file of labels goes before, also one with boxes as in Kaggle's list; numbers do not.
    (tmp_path / "labels").write_text(
        "ImageId,PredictionString\n"
        f"{OFFICIAL.format(3)[:-5]},n01440764 1 2 3 4 n01440764 5 6 7 8 \n"
        f"{OFFICIAL.format(50_000)[:-5]},n01443537 85 1 499 272 \n"
    )
    assert keys(few, tmp_path / "labels") == [
        f"n01440764/{OFFICIAL.format(3)}",
        f"n01443537/{OFFICIAL.format(50_000)}",
    ]
    (tmp_path / "labels").write_text(f"{OFFICIAL.format(3)} 65\n{OFFICIAL.format(50_000)} 970\n")
    with pytest.raises(UserError, match="more than one numbering"):
        keys(few, tmp_path / "labels")


def test_a_reader_gives_exact_bytes_or_a_reason(tmp_path):
    content = random.Random(0).randbytes(3_000_000)
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    images = [
        SourceImage("", "", 7, "whole", -1),  # it has grown since it was listed
        SourceImage("", "", 0, "empty", -1),
        SourceImage("", "", 1000, "whole", 2_500_000),
        SourceImage("", "", 0, "whole", 10),
        *(
            SourceImage("", "", 0, name, -1)
            for name in ("folder", "gone", "round", "endless", "pipe", "whole/file", "x" * 300)
        ),
        SourceImage("", "", 1000, "whole", 2_999_500),
        SourceImage("", "", 1000, "gone", 0),
        SourceImage("", "", 1000, "folder", 0),
    ]
    for num_threads in (0, 3):
        with SourceReader(str(tmp_path), num_threads) as reader:
            results = list(reader.read_ahead(images))
        assert [image for image, _ in results] == images
        assert [found for _, found in results[:4]] == [
            content,
            b"",
            content[2_500_000:][:1000],
            b"",
        ]
        assert [found.reason.partition(str(tmp_path))[0] for _, found in results[4:]] == [
            "Is a directory",
            "No such file or directory",
            "Too many levels of symbolic links",
            "Not a regular file",
            "Not a regular file",
            "Not a directory",
            "File name too long",
            "",  # the file ends before
            "No such file or directory",
            "Is a directory",
        ]
        assert results[11][1].reason == f"{tmp_path}/whole ends before byte 3000500"


def test_what_is_no_fault_of_one_image_stops_the_reading(tmp_path):
    words = "gone is gone, or not there for this worker"
    with SourceReader(str(tmp_path / "gone")) as reader, pytest.raises(UserError, match=words):
        list(reader.read_ahead([SourceImage("", "", 1, "a", -1)]))
    # Too many open files: a process of its own has few to spare.
    (tmp_path / "a").write_bytes(b"1")
    code = (
        "import os, resource, sys\n"
        "from preprocessing.sources import SourceImage, SourceReader\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "try:\n"
        "    while True:\n"
        "        os.dup(0)\n"
        "except OSError:\n"
        "    pass\n"
        "try:\n"
        "    print(list(SourceReader(sys.argv[1]).read_ahead([SourceImage('', '', 1, 'a', -1)])))\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "Too many open files\n"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_reader_keeps_few_files_open_and_no_threads(tmp_path):
    images = []
    for number in range(200):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 100)
        images += [SourceImage("", "", 60, f"{number}", 40)] * 2
    random.Random(0).shuffle(images)
    before = open_files(), set(threading.enumerate())
    for num_threads in (0, 4):
        reader = SourceReader(str(tmp_path), num_threads)
        for image, content in reader.read_ahead(images):
            assert content == bytes([int(image.path)]) * 60
            assert open_files() <= before[0] + 64 + num_threads
        assert open_files() > before[0]
        for number, _ in enumerate(reader.read_ahead(images)):
            if number == 5:
                break
        reader.close()
        assert (open_files(), set(threading.enumerate())) == before


def test_reading_ahead_stays_a_few_images_ahead(tree):
    listing = list_source(str(tree), "train")
    asked = []

    def images():
        for image in listing.images:
            asked.append(image)
            yield image

    with SourceReader(str(tree), num_threads=2) as reader:
        for number, (image, content) in enumerate(reader.read_ahead(images())):
            assert content == (tree / image.path).read_bytes()
            assert len(asked) <= number + 5


def upload(root: pathlib.Path, proxy) -> None:
    for name, content in contents(root).items():
        proxy.put(name, content)


def test_class_folders_in_a_bucket_are_as_those_on_disk(tree, bucket, storage_proxy):
    (tree / "cat/sub").mkdir()
    (tree / "cat/sub/a.JPEG").write_bytes(b"1")
    (tree / "cat/.hidden").write_bytes(b"1")
    (tree / "stray").write_bytes(b"1")
    upload(tree, storage_proxy)
    storage_proxy.page = 3
    local, remote = list_source(str(tree), "train"), list_source(bucket, "train")
    assert (remote.images, remote.classes) == (local.images, local.classes)
    assert (
        (remote.ignored, remote.root) == (local.ignored, bucket) == (("cat/sub", "stray"), bucket)
    )
    assert read_all(remote) == read_all(local)
    image = local.images[0]._replace(path="cat/none")
    with SourceReader(bucket) as reader:
        assert [content.reason for _, content in reader.read_ahead([image])] == [
            "No such file or directory"
        ]
    for name in ("none", "dog"):
        with pytest.raises(UserError, match=f"--source={bucket}/{name} "):
            list_source(f"{bucket}/{name}", "train")


def test_a_flat_folder_in_a_bucket_with_labels_there(tmp_path, bucket, storage_proxy):
    source = flat(tmp_path / "flat", ["b.jpg", "a.jpg"])
    (source / "labels").write_text("cat\ndog\n")
    upload(source, storage_proxy)
    listing = list_source(bucket, "train", f"{bucket}/labels")
    assert [image.key for image in listing.images] == ["cat/a.jpg", "dog/b.jpg"]
    assert read_all(listing) == {
        "cat/a.jpg": (source / "a.jpg").read_bytes(),
        "dog/b.jpg": (source / "b.jpg").read_bytes(),
    }


def test_a_bucket_that_cannot_be_reached_is_no_bad_image(tree, bucket, storage_proxy, monkeypatch):
    upload(tree, storage_proxy)
    listing = list_source(bucket, "train")
    storage_proxy.fail(503, every=3)
    assert read_all(listing) == contents(tree)
    assert storage_proxy.num_faults
    monkeypatch.setenv("MOBILENET_BUCKET_RETRY_SECONDS", "1")
    storage_proxy.fail(503)
    with SourceReader(bucket) as reader, pytest.raises(UserError, match="cannot be reached"):
        list(reader.read_ahead(listing.images))
