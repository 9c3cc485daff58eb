import importlib.util
import pathlib

import pytest

from common.errors import UserError
from common.files import sha256_of_bytes
from preprocessing.class_list import choose_class_list, imagenet_synsets, imagenet_texts


def test_the_table_has_the_synsets_and_the_order_that_tfds_has():
    package = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    expected = (package / "datasets/imagenet2012/labels.txt").read_text().split()
    assert list(imagenet_synsets()) == expected == sorted(expected)
    assert len(expected) == 1000


def test_the_words_are_those_of_the_classes():
    texts = imagenet_texts()
    assert texts["n01440764"] == "tench, Tinca tinca"
    assert texts["n02012849"] == texts["n03126707"] == "crane"  # the bird and the machine
    assert len(set(texts.values())) == 999
    assert all(text == text.strip() and text.isprintable() for text in texts.values())


def test_synsets_get_imagenets_order_and_words():
    classes = choose_class_list(["n01443537", "n02123045"], None)
    assert (classes.source, classes.names) == ("imagenet", imagenet_synsets())
    assert classes.texts == tuple(imagenet_texts().values())
    assert classes.texts[281] == "tabby, tabby cat"
    other = choose_class_list(["n01443537", "n99999999"], None)
    assert (other.source, other.names) == ("folders", ("n01443537", "n99999999"))
    assert other.texts == ("goldfish, Carassius auratus", "n99999999")


def test_names_stay_in_the_order_of_the_source_and_are_their_own_words():
    classes = choose_class_list(["zebra", "ant"], None)
    assert classes.names == classes.texts == ("zebra", "ant")
    assert (classes.source, classes.file_sha256) == ("folders", None)


def test_a_class_file_gives_the_order_and_a_text_file_the_words(tmp_path):
    path, words = tmp_path / "classes", tmp_path / "words"
    path.write_text("dog\nn01443537\nn01440764\ncat\nunicorn\n\n")
    words.write_text(
        "n01443537\tgold fish\n\ncat\tHaus-Katze, Mieze\ncow\tMuh\ncat\tHaus-Katze, Mieze\n"
    )
    folders = ["cat", "n01440764", "n01443537"]
    classes = choose_class_list(folders, str(path), str(words))
    assert classes.names == ("dog", "n01443537", "n01440764", "cat", "unicorn")
    assert classes.texts == (
        "dog",
        "gold fish",
        "tench, Tinca tinca",
        "Haus-Katze, Mieze",
        "unicorn",
    )
    assert (classes.source, classes.file_sha256) == ("file", sha256_of_bytes(path.read_bytes()))
    with pytest.raises(UserError, match=f"--classes={path} lacks cow, fox"):
        choose_class_list(["fox", "cat", "cow"], str(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names none of the classes cat, dog"),
        (b"fox\tthe fox\n", "names none of the classes cat, dog"),
        (b"cat\ta cat\ndog a dog\n", "line 2 is 'dog a dog'"),
        (b"\ta cat\n", "line 1 is 'a cat'"),
        (b"cat\ta cat\ncat\tthe cat\n", "'cat' has two texts, line 2 the second"),
        (b"cat\t\xff\n", "not a text file in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_bad_text_file_is_refused(tmp_path, content, words):
    path = tmp_path / "words"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        choose_class_list(["cat", "dog"], None, str(path))
    assert f"--class_text={path}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"a\nb\na\n", "'a' is on lines 1 and 3"),
        (b"\xff\xfe", "not a text file in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_bad_class_file_is_refused(tmp_path, content, words):
    path = tmp_path / "classes"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        choose_class_list(["cat"], str(path))
    assert f"--classes={path}" in str(caught.value)
