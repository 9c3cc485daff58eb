"""A sheet to draw the objects of the demo photos on, in an object's own frame of coordinates."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 3
REACH = 1.3

Colour = np.ndarray


class Sketch:
    """A transparent picture that is drawn on in an object's own frame.

    Args:
        radius: pixels that one unit of the object's frame is long.
        frame: 2x2 matrix from the object's frame to the picture's: rotation, mirror, squeeze.
    """

    def __init__(self, radius: float, frame: np.ndarray):
        self._side = int(np.ceil(2 * REACH * radius)) + 2
        self._image = Image.new("RGBA", (self._side * SUPERSAMPLING,) * 2)
        self._draw = ImageDraw.Draw(self._image)
        self._matrix = frame * radius * SUPERSAMPLING
        self._scale = radius * SUPERSAMPLING

    def polygon(self, points: np.ndarray, colour: Colour | None) -> None:
        """Fills a polygon of `[n, 2]` points; `colour` None cuts a hole."""
        self._draw.polygon(self._to_pixels(points), fill=_fill(colour))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour | None) -> None:
        self.polygon(arc(x, y, rx, ry), colour)

    def line(self, points: np.ndarray, width: float, colour: Colour) -> None:
        pixels = max(1, round(width * self._scale))
        self._draw.line(self._to_pixels(points), fill=_fill(colour), width=pixels, joint="curve")

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Colours `[side, side, 3]` and coverage `[side, side]`, float32 from 0 to 1."""
        pixels = np.asarray(self._image.reduce(SUPERSAMPLING), np.float32) / 255
        return pixels[..., :3], pixels[..., 3]

    def _to_pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        centre = self._side * SUPERSAMPLING / 2
        return [tuple(point) for point in (np.asarray(points) @ self._matrix.T + centre).tolist()]


def arc(
    x: float, y: float, rx: float, ry: float, *, start: float = 0.0, stop: float = 2 * np.pi
) -> np.ndarray:
    """Points on an ellipse about (x, y), from angle `start` to `stop` in radians."""
    angles = np.linspace(start, stop, 48)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _fill(colour: Colour | None) -> tuple[int, ...]:
    if colour is None:
        return (0, 0, 0, 0)
    return (*(np.clip(colour, 0, 1) * 255).astype(int).tolist(), 255)
