import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from training.config import AugmentationFlags, DataFlags
from training.preview import GAP, NUM_CROPS, NUM_PHOTOS, PreviewFlags, contact_sheet, preview


def test_a_sheet_has_every_image_in_its_place():
    images = np.zeros((2, 3, 10, 12, 3), np.uint8)
    images[1, 2] = (200, 10, 30)
    sheet = np.asarray(contact_sheet(images, ["one", "two"]))
    found = np.argwhere(np.all(sheet == (200, 10, 30), axis=-1))
    assert len(found) == 10 * 12
    assert np.all(sheet[GAP : GAP + 10, GAP : GAP + 12] == 0)


def test_a_preview_shows_photos_and_differing_crops(drawn_data, tmp_path):
    output, size = tmp_path / "preview.png", 32
    preview(PreviewFlags(str(output), resolution=size), DataFlags(drawn_data), AugmentationFlags())
    sheet = np.asarray(Image.open(output).convert("RGB")).astype(int)
    assert sheet.shape[0] > NUM_PHOTOS * size and sheet.shape[1] > (1 + NUM_CROPS) * size
    first_row = sheet[GAP : GAP + size]
    tiles = [
        first_row[:, left : left + size]
        for left in (GAP, *(3 * GAP + column * (size + GAP) for column in range(1, 1 + NUM_CROPS)))
    ]
    for number, tile in enumerate(tiles):
        assert tile[..., 2].mean() > tile[..., 0].mean() + 50  # the first class is blue
        for other in tiles[:number]:
            assert np.abs(tile - other).mean() > 2


def test_too_few_examples_are_refused(drawn_data, tmp_path):
    data = DataFlags(drawn_data, train_split="train[:5]")
    with pytest.raises(UserError, match="has 5 examples"):
        preview(PreviewFlags(str(tmp_path / "x.png")), data, AugmentationFlags())
