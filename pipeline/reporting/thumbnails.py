"""Small square pictures that stand inside the page."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageOps

PIXELS = 96


def thumbnail(jpeg: bytes) -> str | None:
    """The centre of a photo as a data URI of a JPEG; None if Pillow cannot decode it."""
    try:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        image = ImageOps.fit(image, (PIXELS, PIXELS))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
