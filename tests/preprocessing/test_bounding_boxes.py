import csv

import pytest

from common.errors import UserError
from preprocessing.bounding_boxes import read_bounding_boxes

LINES = """\
n00007846_64193.JPEG,0.0060,0.2620,0.7545,0.9940
n02123045_1.JPEG,0.0000,0.0000,1.0000,1.0000
n00007846_64193.JPEG,0.5,0.5,0.5,0.75
"a, b".JPEG,1e-1,.2,0.3,0.4
"""


def test_boxes_are_gathered_by_file_in_the_order_of_the_lines(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(LINES)
    boxes = read_bounding_boxes(str(path))
    assert boxes == {
        "n00007846_64193.JPEG": [(0.006, 0.262, 0.7545, 0.994), (0.5, 0.5, 0.5, 0.75)],
        "n02123045_1.JPEG": [(0.0, 0.0, 1.0, 1.0)],
        '"a, b".JPEG': [(0.1, 0.2, 0.3, 0.4)],
    }
    path.write_text("file,xmin,ymin,xmax,ymax\r\n" + LINES.replace("\n", "\r\n") + "\r\n")
    assert read_bounding_boxes(str(path)) == boxes


def test_a_large_file_reads_as_the_csv_module_reads_it(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "".join(
            f"n{i % 97:08d}_{i % 31}.JPEG,{i / 5000:.4f},0.{i % 5},{i / 5000 + 0.2:.4f},0.9\n"
            for i in range(4000)
        )
    )
    expected: dict[str, list] = {}
    with open(path, newline="") as file:
        for name, *values in csv.reader(file):
            expected.setdefault(name, []).append(tuple(map(float, values)))
    assert read_bounding_boxes(str(path)) == expected


def test_what_rounding_explains_is_cut(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("a.JPEG,-0.0005,0,1.0009,1\n")
    assert read_bounding_boxes(str(path)) == {"a.JPEG": [(0.0, 0.0, 1.0, 1.0)]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.JPEG,12,30,240,199", "not within 0 to 1"),
        ("a.JPEG,-0.002,0,1,1", "not within 0 to 1"),
        ("a.JPEG,nan,0,1,1", "not within 0 to 1"),
        ("a.JPEG,0.5,0,0.4,1", "ends before it begins"),
        ("a.JPEG,0,0.5,1,0.4", "ends before it begins"),
        ("a.JPEG,0,0,1", "four numbers"),
        ("a.JPEG,0,0,1,x", "four numbers"),
        ("a.JPEG", "four numbers"),
        ("file,xmin,ymin,xmax,ymax", "four numbers"),  # a heading in the middle
        (",0,0,1,1", "names no file"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, words):
    path = tmp_path / "boxes.csv"
    path.write_text(f"b.JPEG,0,0,1,1\n\n{line}\nc.JPEG,0,0,1,1\n")
    with pytest.raises(UserError, match=words) as caught:
        read_bounding_boxes(str(path))
    assert str(caught.value).startswith(f"--bounding_boxes={path}: line 3: ")


def test_a_file_that_cannot_be_read_or_holds_none_is_refused(tmp_path):
    path = tmp_path / "boxes.csv"
    for content, words in (
        (None, "No such file"),
        (b"", "holds no boxes"),
        (b"file,xmin,ymin,xmax,ymax\n", "holds no boxes"),
        (b"\xff\xfe\n", "UTF-8"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_bounding_boxes(str(path))
