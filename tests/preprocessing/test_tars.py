"""Tars in the official layouts and others, read in place."""

import gzip
import io
import pathlib
import subprocess
import tarfile

import pytest

from common.errors import UsageError, UserError
from preprocessing.class_list import imagenet_synsets
from preprocessing.sources import SourceReader, list_source, parallel

from .conftest import contents, encoded, make_tree

pytest_plugins = ["tests.storage_emulator"]

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_of(members: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def train_tar(tree: pathlib.Path, format: int = tarfile.GNU_FORMAT) -> bytes:
    """The layout of ILSVRC2012_img_train.tar, in no order."""
    classes = {
        f"{folder.name}.tar": tar_of({p.name: p.read_bytes() for p in folder.iterdir()}, format)
        for folder in sorted(tree.iterdir(), reverse=True)
    }
    return tar_of(classes, format)


def require_same(tar_source, tree: pathlib.Path, labels=None) -> None:
    """The same keys, classes and bytes as in class folders, each read from its place."""
    listing = list_source(str(tar_source), "train", labels and str(labels))
    folders = list_source(str(tree), "train")
    assert [image[:3] for image in listing.images] == [image[:3] for image in folders.images]
    assert listing.classes == folders.classes
    with SourceReader(listing.root) as reader:
        found = {image.key: content for image, content in reader.read_ahead(listing.images)}
    assert found == {image.key: (tree / image.path).read_bytes() for image in folders.images}
    for image in listing.images:
        path = pathlib.Path(listing.root, image.path) if image.path else pathlib.Path(listing.root)
        assert path.read_bytes()[image.offset :][: image.num_bytes] == found[image.key]


@pytest.fixture
def synsets(tmp_path):
    return make_tree(tmp_path / "synsets", imagenet_synsets()[5:400:100], per_folder=5)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_the_official_training_tar_is_as_its_images_in_folders(tmp_path, synsets, format):
    (synsets / "n09999999").mkdir()  # a class without images
    (min(synsets.iterdir()) / f"{'long name ' * 12}é 図.JPEG").write_bytes(encoded(seed=99))
    path = tmp_path / "ILSVRC2012_img_train.tar"
    if format == tarfile.USTAR_FORMAT:
        next(synsets.glob("*/long*")).unlink()  # it has no room for such names
    path.write_bytes(train_tar(synsets, format))
    before = contents(tmp_path)
    require_same(path, synsets)
    listing = list_source(str(path), "train")
    assert (listing.kind, listing.root) == ("tar of class tars", str(path))
    assert {image.path for image in listing.images} == {""}
    assert contents(tmp_path) == before
    with pytest.raises(UsageError, match=r"--labels=file .* tar of class tars"):
        list_source(str(path), "train", "file")


def test_real_photos_in_the_official_layout(tmp_path, reference_data):
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(train_tar(reference_data / "imagenet_sample"))
    listing = list_source(str(path), "train")
    assert len(listing.images) == len(listing.classes) == 500
    folders = list_source(str(reference_data / "imagenet_sample"), "train")
    with SourceReader(listing.root) as ours, SourceReader(folders.root) as theirs:
        for image, other in zip(listing.images, folders.images, strict=True):
            assert image[:3] == other[:3]
            assert ours.read(image.path, image.offset, image.num_bytes) == theirs.read(
                other.path, other.offset, other.num_bytes
            )


def test_processes_list_what_one_process_lists(tmp_path, monkeypatch):
    tree = make_tree(tmp_path / "photos", [f"class {number:02d}" for number in range(30)], 2)
    path = tmp_path / "train.tar"
    path.write_bytes(train_tar(tree))
    expected = list_source(str(path), "train")
    monkeypatch.setattr(parallel, "PROCESSES_FROM_BYTES", 0)
    assert list_source(str(path), "train") == expected
    # A class tar that is cut is named from another process too.
    damaged = bytearray(path.read_bytes())
    first = damaged.index(b"class 07_1.JPEG")
    damaged[first : first + 512] = b"x" * 512
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"train.tar: class 07.tar is damaged: at byte \d+ there"):
        list_source(str(path), "train")


@pytest.mark.parametrize("prefix", ["", "./", "train/"])
def test_a_folder_of_class_tars_and_tars_made_of_folders(tmp_path, synsets, prefix):
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for folder in synsets.iterdir():
        # As `tar cf n01.tar n01`, and as `cd n01; tar cf ../n01.tar .`, and without any folder.
        inside = {"": "", "./": "./", "train/": f"{folder.name}/"}[prefix]
        members = {f"{inside}{p.name}": p.read_bytes() for p in folder.iterdir()}
        (unpacked / f"{folder.name}.tar").write_bytes(tar_of(members))
    (unpacked / "ILSVRC2012_img_train.tar").write_bytes(b"that they were unpacked from")
    (unpacked / "README").write_text("no image")
    require_same(unpacked, synsets)
    listing = list_source(str(unpacked), "train")
    assert listing.kind == "folder of class tars"
    assert listing.ignored == ("ILSVRC2012_img_train.tar", "README")

    class_tars = {f"{prefix}{p.name}": p.read_bytes() for p in unpacked.glob("n*.tar")}
    (tmp_path / "train.tar").write_bytes(tar_of(class_tars))
    require_same(tmp_path / "train.tar", synsets)

    photos = {f"{prefix}{name}": content for name, content in contents(synsets).items()}
    (tmp_path / "plain.tar").write_bytes(tar_of(photos))
    require_same(tmp_path / "plain.tar", synsets)
    assert list_source(str(tmp_path / "plain.tar"), "train").kind == "tar of class folders"


def test_a_tar_by_the_system_s_own_tar_with_all_kinds_of_members(tmp_path, synsets):
    first, second, *_ = sorted(synsets.iterdir())
    (first / "hard.JPEG").hardlink_to(first / f"{first.name}_0.JPEG")
    (second / "soft.JPEG").symlink_to(f"../{first.name}/{first.name}_1.JPEG")
    (first / "twice.JPEG").symlink_to(f"../{second.name}/soft.JPEG")
    (synsets / "n09999999").mkdir()
    (second / f"{'long' * 40}.JPEG").write_bytes(b"long")
    command = ["tar", "-cf", str(tmp_path / "photos.tar"), "-C", str(synsets), "."]
    subprocess.run(command, check=True)
    require_same(tmp_path / "photos.tar", synsets)

    # What nothing can be taken from is told, and what is hidden is passed over.
    (second / "gone.JPEG").symlink_to("nowhere")
    (second / "round.JPEG").symlink_to("round.JPEG")
    (second / "sub").mkdir()
    (second / "sub/a.JPEG").write_bytes(b"1")
    (second / "._hidden.JPEG").write_bytes(b"1")
    (second / "a.JPEG").mkdir()
    subprocess.run(command, check=True)
    listing = list_source(str(tmp_path / "photos.tar"), "train")
    names = ("a.JPEG", "gone.JPEG", "round.JPEG", "sub")
    assert listing.ignored == tuple(f"{second.name}/{name}" for name in names)
    assert len(listing.images) == 4 * 5 + 4


def test_a_name_that_stands_twice_means_the_last_one(tmp_path):
    path = tmp_path / "photos.tar"
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/b.JPEG").symlink_to("a.JPEG")
    (tmp_path / "cat/c.JPEG").write_bytes(b"once a file")
    for content in (b"old", b"newer"):
        (tmp_path / "cat/a.JPEG").write_bytes(content)
        command = ["tar", "-rf", str(path), "-C", str(tmp_path), "cat"]
        subprocess.run(command, check=True)
        for name in ("b.JPEG", "c.JPEG"):
            (tmp_path / "cat" / name).unlink()
        (tmp_path / "cat/b.JPEG").write_bytes(b"a file by now")
        (tmp_path / "cat/c.JPEG").symlink_to("b.JPEG")
    path = path.rename(tmp_path.with_suffix(".tar"))
    require_same(path, tmp_path)


@pytest.mark.parametrize("prefix", ["", "val/"])
def test_the_official_validation_tar_is_as_its_images_in_folders(tmp_path, prefix):
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3, 4000, 50_000)]
    photos = {f"{prefix}{name}": encoded(seed=number) for number, name in enumerate(names)}
    path = tmp_path / "ILSVRC2012_img_val.tar"
    path.write_bytes(tar_of(dict(reversed(photos.items()))))
    listing = list_source(str(path), "validation")
    assert (listing.kind, len(listing.images)) == ("flat tar", 5)
    (tmp_path / "labels").write_text("dog\ncat\ndog\nfox\ncat\n")
    for number, name in enumerate(names):
        for root, label in (
            ("given", ["dog", "cat", "dog", "fox", "cat"][number]),
            ("official", {image.key.partition("/")[2]: image for image in listing.images}[name][1]),
        ):
            (tmp_path / root / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / root / label / name).write_bytes(photos[prefix + name])
    require_same(path, tmp_path / "given", tmp_path / "labels")
    require_same(path, tmp_path / "official")
    assert list_source(str(path), "validation").classes[0] == "n01751748"  # that of image 1 is


def test_a_flat_tar_of_other_names_needs_labels(tmp_path):
    path = tmp_path / "flat.tar"
    path.write_bytes(tar_of({"all/b.jpg": b"b", "all/a.jpg": b"aa"}))
    (tmp_path / "labels").write_text("a.jpg cat\nb.jpg dog\n")
    listing = list_source(str(path), "train", str(tmp_path / "labels"))
    assert [image.key for image in listing.images] == ["cat/a.jpg", "dog/b.jpg"]
    assert list_source(str(path), "train").classes == ("all",)  # one class, for all we know
    path.write_bytes(tar_of({"b.jpg": b"b"}))
    with pytest.raises(UserError, match=r"1 files but no class folders.*--labels=FILE"):
        list_source(str(path), "train")


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_tar_cut_anywhere_is_named_with_where_it_ends(tmp_path, synsets, format):
    whole = train_tar(synsets, format)
    path = tmp_path / "cut.tar"
    path.write_bytes(whole)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        end = members[-1].offset_data + members[-1].size
    ends = [*range(600, end, 997), *(m.offset for m in members[1:]), end]
    for length in ends:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as caught:
            list_source(str(path), "train")
        assert f"--source={path} is cut: it ends at byte {length}, " in str(caught.value)
    path.write_bytes(whole[: end + 512])  # one block of the mark will do
    require_same(path, synsets)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_flat_tar_cut_anywhere_in_its_long_names(tmp_path, format):
    whole = tar_of({f"cat/{'long' * 50}{number}.JPEG": b"1" for number in range(3)}, format)
    path = tmp_path / "cut.tar"
    for length in range(512, len(whole.rstrip(b"\0")), 256):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"cut.tar is cut: it ends at byte {length}, "):
            list_source(str(path), "train")


def test_a_class_tar_that_was_cut_before_it_was_packed_is_named(tmp_path):
    inner = tar_of({"a.JPEG": b"a" * 3000, "b.JPEG": b"b" * 3000})
    whole = {"cat.tar": tar_of({"c.JPEG": b"c"}), "dog.tar": inner[:7000]}
    (tmp_path / "train.tar").write_bytes(tar_of(whole))
    with pytest.raises(UserError, match=r"train.tar: dog.tar is cut: it ends at byte 7000, within"):
        list_source(str(tmp_path / "train.tar"), "train")
    (tmp_path / "tars").mkdir()
    for name, content in whole.items():
        (tmp_path / "tars" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"tars/dog.tar is cut: it ends at byte 7000, within"):
        list_source(str(tmp_path / "tars"), "train")


def test_what_cannot_be_read_in_place_is_refused_with_the_cure(tmp_path):
    plain = tar_of({"cat/a.JPEG": encoded()})
    tgz = gzip.compress(plain)
    sparse = tmp_path / "cat" / "a.JPEG"
    sparse.parent.mkdir()
    with open(sparse, "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    command = ["tar", "--sparse", "-cf", str(tmp_path / "sparse.tar"), "-C", str(tmp_path), "cat"]
    subprocess.run(command, check=True)
    damaged = bytearray(tar_of({"cat/a.JPEG": b"1", "cat/b.JPEG": b"2"}))
    damaged[1024 + 10] ^= 1
    for name, content, words in (
        ("photos.tgz", tgz, "compressed .gzip.*gunzip -c"),
        ("photos.tar", tgz, "compressed .gzip.*gunzip -c"),
        ("outer.tar", tar_of({"cat.tgz": tgz}), "compressed tars .'cat.tgz'.*unpack it"),
        ("inner.tar", tar_of({"cat.tar": tgz}), "inner.tar: cat.tar is compressed"),
        ("text.tar", b"no tar at all" * 100, "is not a tar"),
        ("short.tar", b"no tar", "is not a tar"),
        ("empty.tar", b"", "is empty, not a tar"),
        ("damaged.tar", bytes(damaged), "is damaged: at byte 1024 there is no header"),
        ("nothing.tar", tar_of({}), "there are no files in this tar"),
        ("hollow.tar", tar_of({"cat.tar": tar_of({})}), "no files in its 1 class tars"),
        ("deep.tar", tar_of({"a/b/c/d": b"1", "b/b/c/d": b"1"}), "no files in its 2 class folders"),
        ("sparse.tar", None, "'cat/a.JPEG' is stored as a sparse file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            list_source(str(tmp_path / name), "train")
        assert str(tmp_path / name) in str(caught.value)
    (tmp_path / "official").mkdir()
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / "official" / name).write_bytes(plain)
    with pytest.raises(
        UserError, match=r"name one, .*--source=.*/official/ILSVRC2012_img_train.tar"
    ):
        list_source(str(tmp_path / "official"), "train")


def test_tars_in_a_bucket_cost_few_requests(tmp_path, synsets, bucket, storage_proxy):
    official = train_tar(synsets)
    flat = {f"ILSVRC2012_val_{n:08d}.JPEG": encoded(seed=n) + bytes(40_000) for n in range(1, 200)}
    flat["ILSVRC2012_val_00000200.JPEG"] = bytes(9 << 20)  # its header's neighbours are far
    flat["ILSVRC2012_val_00000201.JPEG"] = b"the last"
    storage_proxy.put("train.tar", official)
    storage_proxy.put("val.tar", tar_of(flat))
    for name, whole in (("train.tar", official), ("val.tar", tar_of(flat))):
        (tmp_path / name).write_bytes(whole)
        local = list_source(str(tmp_path / name), "train")
        storage_proxy.requests.clear()
        remote = list_source(f"{bucket}/{name}", "train")
        assert len(storage_proxy.requests) < 40
        assert (remote.images, remote.classes, remote.kind) == (
            local.images,
            local.classes,
            local.kind,
        )
        some = remote.images[::7]
        with SourceReader(remote.root) as ours, SourceReader(local.root) as theirs:
            for image, content in ours.read_ahead(some):
                assert content == theirs.read(image.path, image.offset, image.num_bytes)
    storage_proxy.put("cut.tar", official[:9000])
    with pytest.raises(UserError, match=r"cut.tar is cut: it ends at byte 9000"):
        list_source(f"{bucket}/cut.tar", "train")


def test_the_headers_of_large_members_in_a_bucket_do_not_fetch_them(bucket, storage_proxy):
    sent = []
    members = {f"cat/{number}.JPEG": bytes(9 << 20) for number in range(4)}
    storage_proxy.put("large.tar", tar_of(members))
    send = storage_proxy.ask

    def ask(*args):
        answer = send(*args)
        sent.append(len(answer.body))
        return answer

    storage_proxy.ask = ask
    assert len(list_source(f"{bucket}/large.tar", "train").images) == 4
    assert sum(sent) < 1 << 20
