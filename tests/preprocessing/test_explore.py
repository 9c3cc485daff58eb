"""The page about a data set: figures against counts of the folders, what it shows, its bounds."""

import base64
import collections
import hashlib
import html.parser
import io
import itertools
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from preprocessing.explore import ExploreConfig, explore

from .conftest import ROOT, encoded
from .explore_data import Picture, plain_pictures, write_many_rows, write_split

pytest_plugins = ["tests.storage_emulator"]

HOSTILE = "<img src=evil onerror=alert(1)>"


class Page(html.parser.HTMLParser):
    """What a browser sees: elements, pictures, and the cells of each table by its heading."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words = [], []
        self.tables = collections.defaultdict(list)
        self.figures = collections.defaultdict(list)
        self.levels = []
        self._section = self._heading = ""
        self._tags = []
        self.feed(source)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._tags.append(tag)
        if tag == "section":
            self._section, self._heading = attributes["id"], ""
        elif tag == "h3":
            self._heading = ""
        elif tag == "tr":
            self.tables[self._section, self._heading].append([])
        elif tag in ("td", "th"):
            self.tables[self._section, self._heading][-1].append("")
        elif tag == "img":
            self.figures[self._section, self._heading].append(attributes)
        elif tag == "div" and attributes.get("class", "").startswith("verdict "):
            self.levels.append(attributes["class"].split()[1])

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self._tags:
            return
        self.words.append(data)
        if "h3" in self._tags and "small" not in self._tags and "span" not in self._tags:
            self._heading += data
        if self._tags and {"td", "th"} & set(self._tags):
            row = self.tables[self._section, self._heading][-1]
            row[-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    def rows(self, section, heading=""):
        """The rows of a table below its head."""
        return self.tables[section, heading][1:]


def pixels(attributes):
    kind, content = attributes["src"].split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.fixture
def page_of(command, tmp_path):
    def call(data_dir, *flags):
        output = tmp_path / "pages" / "explore.html"
        words = [f"--data_dir={data_dir}", f"--output={output}", *flags]
        code, text = command(*words, main=explore, config=ExploreConfig)
        assert code == 0, text
        return Page(output.read_text(encoding="utf-8"))

    return call


@pytest.fixture
def refused(command, tmp_path):
    """The one line that the command gives up with."""

    def call(data_dir, *flags, code=1):
        words = [f"--data_dir={data_dir}", f"--output={tmp_path / 'no.html'}", *flags]
        found, text = command(*words, main=explore, config=ExploreConfig)
        assert found == code and len(text.strip().splitlines()) == 1
        assert not (tmp_path / "no.html").exists()
        return text

    return call


def make_folders(root: pathlib.Path):
    """Folders of two splits with good, broken, repairable and repeated files."""
    seeds = itertools.count()
    for split, numbers in (("train", {"cat": 9, "dog": 4, "fox": 6}), ("validation", {"cat": 3})):
        for name, number in numbers.items():
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                seed = next(seeds)
                content = encoded(size=(40 + 7 * seed, 300 - 11 * seed), seed=seed)
                (root / split / name / f"{index}.JPEG").write_bytes(content)
    train = root / "train"
    (train / "cat/png.JPEG").write_bytes(encoded("PNG", size=(90, 90), seed=50))
    (train / "dog/cmyk.JPEG").write_bytes(encoded(mode="CMYK", size=(91, 92), seed=51))
    (train / "fox/cut.JPEG").write_bytes(encoded(size=(400, 400), seed=52)[:300])
    (train / "fox/void.JPEG").write_bytes(b"")
    (train / "cat/void.JPEG").write_bytes(b"")
    shutil.copy(train / "cat/0.JPEG", train / "cat/again.JPEG")
    shutil.copy(train / "cat/0.JPEG", train / "cat/and again.JPEG")
    shutil.copy(train / "dog/1.JPEG", train / "fox/wrong.JPEG")
    shutil.copy(train / "fox/2.JPEG", root / "validation/cat/leak.JPEG")
    return root


def count(folder: pathlib.Path):
    """What plain Python makes of a folder: sizes and hashes of the usable files, their classes."""
    sizes, hashes, classes = {}, {}, collections.Counter()
    for path in sorted(folder.rglob("*.JPEG")):
        content = path.read_bytes()
        try:
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                sizes[path] = image.size
        except OSError:
            continue
        hashes[path] = hashlib.sha256(content).hexdigest()
        classes[path.parent.name] += 1
    return sizes, hashes, classes


def test_the_figures_are_those_of_the_folders(tmp_path, build, page_of):
    folders = make_folders(tmp_path / "photos")
    data_dir = tmp_path / "data"
    (tmp_path / "classes.txt").write_text("cat\ndog\nfox\n")
    for split in ("train", "validation"):
        flags = {"max_rejected_fraction": 0.5, "classes": tmp_path / "classes.txt"}
        build(folders / split, data_dir, split=split, **flags)
    page = page_of(data_dir)
    sizes, hashes, classes = count(folders / "train")
    their_sizes, their_hashes, their_classes = count(folders / "validation")
    listed = len(list((folders / "train").rglob("*.JPEG")))

    (train, validation) = page.rows("splits")
    assert train[:6] == ["train", str(listed), str(len(sizes)), "2", "0", str(listed - len(sizes))]
    shard_bytes = sum(path.stat().st_size for path in data_dir.glob("train-*"))
    assert train[6:] == ["3", f"{shard_bytes / 1000:.1f} kB"]
    assert validation[1:6] == ["4", "4", "0", "0", "0"]
    # The table of all classes comes last.
    assert page.rows("classes", "Least frequent")[-3:] == [
        [str(index), name, str(classes[name]), str(their_classes[name])]
        for index, name in enumerate(("cat", "dog", "fox"))
    ]
    assert page.rows("classes", "Most frequent")[0][1] == "cat"

    sides = [min(size) for size in sizes.values()]
    every = sides + [min(size) for size in their_sizes.values()]
    figures = {tuple(row[:2]): row[2:] for row in page.rows("sizes", "In figures")}
    assert figures["shorter side, pixels", "train"][0] == str(min(sides))
    assert float(figures["shorter side, pixels", "train"][2]) == pytest.approx(
        statistics.median(sides), abs=0.5
    )
    assert figures["width, pixels", "train"][5] == str(max(width for width, _ in sizes.values()))
    below = {int(row[0]): row[1] for row in page.rows("sizes", "Which resolution to train at")}
    for side, told in below.items():
        share = 100 * sum(value < side for value in every) / len(every)
        assert float(told.removesuffix(" %")) == pytest.approx(share, abs=0.5)
    kept = {int(row[0]): row[3] for row in page.rows("sizes", "Which resolution to train at")}
    area = [(w * h, min(1, 96 / min(w, h)) ** 2) for w, h in (sizes | their_sizes).values()]
    share = 100 * sum(a * f for a, f in area) / sum(a for a, _ in area)
    assert float(kept[96].removesuffix(" %")) == pytest.approx(share, abs=0.5)

    rejected = {row[1]: row for row in page.rows("files", "Rejected")}
    assert rejected["empty"][2] == "2" and rejected["truncated"][2] == "1"
    assert {"cat/void.JPEG", "fox/void.JPEG"} == set(re.findall(r"\w+/void.JPEG", page.text))
    assert rejected["truncated"][4] == "fox/cut.JPEG"
    assert sorted(row[4] for row in page.rows("files", "Repaired")) == [
        "cat/png.JPEG",
        "dog/cmyk.JPEG",
    ]

    groups = collections.defaultdict(list)
    for path, value in hashes.items():
        groups[value].append(path)
    repeated = [paths for paths in groups.values() if len(paths) > 1]
    mixed = [paths for paths in repeated if len({path.parent for path in paths}) > 1]
    spare = sum(len(paths) - 1 for paths in repeated)
    assert page.rows("duplicates", "Within a split") == [
        ["train", str(len(repeated)), str(spare), str(len(mixed))],
        ["validation", "0", "0", "0"],
    ]
    shared = set(hashes.values()) & set(their_hashes.values())
    assert len(shared) == 1
    assert page.rows("duplicates", "Between splits") == [["train, validation", "1", "1, 1", "1"]]
    assert page.levels == ["bad", "bad"]
    assert "1 picture filed under more than one class" in page.text
    assert "1 picture also in train" in page.text


def test_a_clean_split_is_called_good(tmp_path, page_of):
    write_split(tmp_path / "data", "train", list(plain_pictures(6, ("red",))))
    page = page_of(tmp_path / "data")
    assert page.levels == ["good"]
    assert "Every listed file is in the shards; no picture is stored twice" in page.text
    assert "None: no picture had to be encoded anew" in page.text
    assert "None: all pictures are of one size and shape" in page.text
    assert ("duplicates", "Between splits") not in page.tables


def test_thumbnails_are_the_pictures_of_their_class(tmp_path, page_of):
    pictures = list(plain_pictures(40))
    np.random.default_rng(0).shuffle(pictures)
    write_split(tmp_path / "data", "train", pictures, num_shards=3)
    page = page_of(tmp_path / "data")
    shown = page.figures["samples", ""]
    assert len(shown) == 16
    for attributes in shown:
        red, _, blue = np.asarray(pixels(attributes)).reshape(-1, 3).mean(axis=0)
        assert attributes["alt"] == ("red" if red > blue else "blue")
        assert attributes["title"].startswith(attributes["alt"])


def test_odd_pictures_are_found_and_shown_whole(tmp_path, page_of):
    def picture(name, size, mode="RGB", **changes):
        # Seeds that differ, or all would be one picture scaled.
        content = encoded(size=size, mode=mode, seed=len(name))
        return Picture(f"a/{name}", content, *size, **changes)

    usual = [picture(f"{'u' * (n + 9)}.JPEG", (60 + n, 50)) for n in range(40)]
    odd = [
        picture("large", (500, 400)),
        picture("small", (9, 8)),
        picture("wide", (400, 20)),
        picture("tall", (20, 300)),
        picture("grey", (61, 51), "L"),
        picture("mended", (62, 52), action="repaired", reason="PNG file"),
        picture("shrunk", (63, 53), action="resized"),
    ]
    write_split(tmp_path / "data", "train", usual + odd)
    page = page_of(tmp_path / "data")
    for heading, name in {
        "Largest": "large",
        "Smallest": "small",
        "Widest": "wide",
        "Tallest": "tall",
        "Grey": "grey",
        "Repaired": "mended",
        "Resized": "shrunk",
    }.items():
        assert page.figures["odd", heading][0]["title"] == f"a/{name}"
    assert pixels(page.figures["odd", "Widest"][0]).size == (128, 6)
    assert len(page.figures["odd", "Grey"]) == 1


def test_odd_names_are_text(tmp_path, page_of):
    name = f"{HOSTILE}&amp;$x$'\"\n"
    pictures = [
        Picture(f"{name}/{HOSTILE}.JPEG", picture.content) for picture in plain_pictures(4)
    ] + [Picture(f"{name}/bad{HOSTILE}", b"", 0, 0, "rejected", HOSTILE)]
    write_split(
        tmp_path / "data", "train", pictures, classes=[name, "猫"], texts=[name, f"猫 {HOSTILE}"]
    )
    page = page_of(tmp_path / "data", f"--title={HOSTILE}")
    assert page.text.count(HOSTILE) >= 10
    assert not [1 for tag, attributes in page.elements if "onerror" in attributes]
    assert all(tag != "script" for tag, _ in page.elements)


def test_the_page_asks_nothing_of_a_network(tmp_path, page_of):
    write_split(tmp_path / "data", "train", list(plain_pictures()))
    page = page_of(tmp_path / "data")
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                assert value.startswith(("#", "data:image/jpeg;base64,")), value
    source = (tmp_path / "pages/explore.html").read_text()
    assert not re.search(r"https?:|@import|url\((?!#)", source)
    used = set(re.findall(r"var\((--\w+)\)", source))
    assert used <= set(re.findall(r"(--\w+):", source))


def test_ids_of_charts_do_not_meet(tmp_path, page_of):
    for split in ("train", "validation"):
        write_split(tmp_path / "data", split, list(plain_pictures()))
    page = page_of(tmp_path / "data")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert ids and len(ids) == len(set(ids))


def test_the_same_data_give_the_same_bytes(tmp_path, page_of):
    write_split(tmp_path / "data", "train", list(plain_pictures(20)))
    page_of(tmp_path / "data")
    first = (tmp_path / "pages/explore.html").read_bytes()
    page_of(tmp_path / "data")
    assert (tmp_path / "pages/explore.html").read_bytes() == first


def test_splits_with_other_classes_share_one_list(tmp_path, page_of):
    write_split(tmp_path / "data", "train", list(plain_pictures(6)))
    write_split(tmp_path / "data", "test", list(plain_pictures(3, ("red",))))
    write_split(tmp_path / "data", "validation", list(plain_pictures(2, ("red",))))
    page = page_of(tmp_path / "data")
    assert [row[0] for row in page.rows("splits")] == ["train", "validation", "test"]
    rows = {tuple(row[1:]) for row in page.rows("classes", "Most frequent")}
    assert rows == {("red", "3", "2", "3")}
    page = page_of(tmp_path / "data", "--splits=test,validation")
    assert [row[0] for row in page.rows("splits")] == ["test", "validation"]
    assert len(page.rows("duplicates", "Between splits")) == 1


def test_a_thousand_classes_are_ranked_and_named(tmp_path, page_of):
    names = [f"n{index:08d}" for index in range(1000)]
    content = next(plain_pictures()).content
    pictures = [
        Picture(f"{name}/{number}", content)
        for index, name in enumerate(names)
        for number in range(0 if index == 17 else 9 if index == 500 else 2)
    ]
    texts = [f"thing {name}" for name in names]
    write_split(tmp_path / "data", "train", pictures, classes=names, texts=texts)
    page = page_of(tmp_path / "data")
    assert page.rows("classes", "Most frequent")[0] == ["500", "thing n00000500n00000500", "9"]
    assert page.rows("classes", "Least frequent")[0] == ["17", "thing n00000017n00000017", "0"]
    assert "1 of 1,000 classes have no picture" in page.text
    assert "has 4.5 times the pictures of the least frequent" in page.text
    assert len(page.rows("classes", "Least frequent")) > 1000  # all of them, folded


def test_what_is_missing_or_damaged_is_one_line(tmp_path, refused):
    assert "cannot be read" in refused(tmp_path / "nowhere")
    (tmp_path / "data").mkdir()
    assert "holds no finished split" in refused(tmp_path / "data")
    write_split(tmp_path / "data", "train", list(plain_pictures()))
    assert "no finished split 'test'" in refused(tmp_path / "data", "--splits=train,test")
    assert "is no split name" in refused(tmp_path / "data", "--splits=../x", code=2)
    shard = tmp_path / "data/train-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(b"\0" + whole[1:])
    text = refused(tmp_path / "data")
    assert f"{shard} is damaged at byte 0" in text and "preprocessing.verify" in text
    shard.unlink()
    assert str(shard) in refused(tmp_path / "data")
    shard.write_bytes(whole)
    table = tmp_path / "data/train/records.parquet"
    content = table.read_bytes()
    table.write_bytes(content[:-50])
    assert f"{table} cannot be read" in refused(tmp_path / "data")
    write_split(tmp_path / "other", "train", list(plain_pictures(8)))
    shutil.copy(tmp_path / "other/train/records.parquet", table)
    assert f"{table} is not the table of the manifest" in refused(tmp_path / "data")
    table.write_bytes(content)
    (tmp_path / "data/train/manifest.json").write_text("{}")
    assert "is damaged or was edited" in refused(tmp_path / "data")


def test_shards_of_another_size_and_strangers_are_told(tmp_path, page_of):
    write_split(tmp_path / "data", "train", list(plain_pictures()))
    (tmp_path / "data/train-00000-of-00002").open("ab").write(b"more")
    page = page_of(tmp_path / "data")
    assert page.levels == ["bad"] and "Shard train-00000-of-00002: of another size" in page.text
    assert "in the manifest" not in page.text
    write_split(tmp_path / "again", "train", list(plain_pictures()))
    (tmp_path / "again/train-00000-of-00009").write_bytes(b"")
    assert "train-00000-of-00009: not in the manifest" in page_of(tmp_path / "again").text


def test_a_picture_that_does_not_decode_leaves_a_blank(tmp_path, page_of):
    pictures = list(plain_pictures(3))
    pictures[1] = Picture("red/bad", b"\xff\xd8\xff but no picture")
    write_split(tmp_path / "data", "train", pictures)
    page = page_of(tmp_path / "data")
    assert "not drawn: too large, or damaged inside" in page.text


def test_a_data_set_in_a_bucket_gives_the_same_page(tmp_path, page_of, bucket, storage_proxy):
    pictures = list(plain_pictures(12))
    write_split(tmp_path / "data", "train", pictures)
    page_of(tmp_path / "data")
    local = (tmp_path / "pages/explore.html").read_bytes()
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            storage_proxy.put(f"data/{path.relative_to(tmp_path / 'data')}", path.read_bytes())
    page_of(f"{bucket}/data")
    assert (tmp_path / "pages/explore.html").read_bytes() == local


def test_many_rows_take_little_memory_and_make_no_larger_page(tmp_path):
    peaks, sizes = {}, {}
    for number in (2_000, 200_000):
        data_dir, output = tmp_path / str(number), tmp_path / f"{number}.html"
        write_many_rows(data_dir, number, [picture.content for picture in plain_pictures()])
        code = (
            "import re, sys;"
            "from preprocessing.explore import *;"
            "explore(ExploreConfig(data_dir=sys.argv[1], output=sys.argv[2]));"
            # Not ru_maxrss, which begins with that of the process which started this one.
            "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, data_dir, output],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[number] = int(done.stdout.split()[-1]) / 1024
        sizes[number] = output.stat().st_size
        assert f"{number:,} train" in output.read_text()
    # Kept as Python objects, the keys and hashes alone would be more.
    assert peaks[200_000] - peaks[2_000] < 120
    assert sizes[200_000] < 3_000_000
