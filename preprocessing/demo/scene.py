"""One photo of a thing: a background, clutter, light and shadow, and a camera's flaws.

Everything that is not the thing itself varies at random and alike for all classes, so that nothing
but shape and pattern tells them apart.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from preprocessing.demo.backgrounds import BACKGROUNDS, blur, noise, random_colour
from preprocessing.demo.drawing import Palette, Thing
from preprocessing.demo.sketch import Sketch, arc, box

SMALLEST_SIDE, LARGEST_SIDE = 90, 320
# Part of the things that are brighter than what is behind them, the rest being darker: if all were
# brighter, their outlines could be told from sums of pixels.
BRIGHT_THINGS = 0.6
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def draw_scene(thing: Thing, rng: np.random.Generator) -> Image.Image:
    """A photo of `thing` before compression: RGB, sides from 90 to 320 pixels."""
    width, height = _size(rng)
    photo = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](height, width, rng)
    # A thing stands out by its brightness, whatever its colour, as a photographer would have it.
    bright = rng.random() < BRIGHT_THINGS
    level = rng.uniform(0.18, 0.42) if bright else rng.uniform(0.55, 0.8)
    photo *= np.float32(level / (photo.mean(axis=(0, 1)) @ LUMA))
    behind = photo.mean(axis=(0, 1))
    photo += np.float32(0.4) * (behind - photo)  # backgrounds are never as contrasty as things
    light = _light(rng)
    short = min(width, height)
    for _ in range(rng.integers(0, 5)):
        clutter = _clutter(short * rng.uniform(0.04, 0.09), behind, rng)
        anywhere = rng.uniform(0, 1, 2)
        _place(photo, clutter, anywhere, roundness=1.0, light=light, rng=rng)
    radius = short * rng.uniform(0.38, 0.47)
    sketch = Sketch(radius, _frame(thing.tilt, rng))
    thing.draw(sketch, _palette(behind, bright, rng), rng)
    # Within the middle square, as evaluation crops to it.
    play = max(0.0, 0.5 * short - radius)
    position = 0.5 + rng.uniform(-play, play, 2) / (height, width)
    roundness = max(1.0, radius * thing.roundness)
    _place(photo, sketch.render(), position, roundness=roundness, light=light, rng=rng)
    return _expose(photo, rng)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    longer, ratio = rng.uniform(130, LARGEST_SIDE), np.exp(-abs(rng.normal(0, 0.3)))
    sides = round(longer), round(max(longer * ratio, SMALLEST_SIDE))
    return sides if rng.random() < 0.6 else sides[::-1]


def _light(rng: np.random.Generator) -> np.ndarray:
    """Unit vector towards the light: x right, y down, z to the camera; it comes from above."""
    vector = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.2), rng.uniform(0.7, 1.2)])
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _frame(tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Rotation by up to `tilt` degrees, a mirror, and the squeeze of an oblique view."""
    angle, view = np.radians(rng.uniform(-tilt, tilt)), rng.uniform(0, np.pi)
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    squeeze = np.diag([1.0, rng.uniform(0.75, 1.0)])
    return _rotation(view) @ squeeze @ _rotation(-view) @ _rotation(angle) @ mirror


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _distant_colour(
    others: list[np.ndarray], value: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Of six random colours the one farthest from all `others`, in brightness above all."""
    candidates = [random_colour(rng, value, (0.3, 0.9)) for _ in range(6)]

    def distance(colour: np.ndarray) -> float:
        return min(
            np.linalg.norm(colour - other) + 1.5 * abs((colour - other) @ LUMA) for other in others
        )

    return max(candidates, key=distance)


def _palette(behind: np.ndarray, bright: bool, rng: np.random.Generator) -> Palette:
    strong, weak = (0.75, 1.0), (0.2, 0.55)
    body = _distant_colour([behind], strong if bright else weak, rng)
    pattern = _distant_colour([body], weak if bright else strong, rng)
    return Palette(body, pattern, _distant_colour([body, pattern], (0.3, 1.0), rng))


def _clutter(
    radius: float, behind: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A pebble, coin, stick, tile or splinter, as colours and coverage."""
    sketch = Sketch(radius, _frame(180, rng))
    colour = 0.4 * behind + 0.6 * random_colour(rng, (0.2, 0.7))
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    pebble = np.c_[np.cos(angles), np.sin(angles)] * rng.uniform(0.7, 1, (9, 1))
    triangle = np.array([(-0.9, 0.6), (0.9, 0.7), (rng.uniform(-0.5, 0.5), -0.8)])
    outlines = (pebble, arc(0, 0, 1, 0.8), box(-1.2, -0.15, 1.2, 0.15), box(-0.7, -0.7, 0.7, 0.7))
    outlines = (*outlines, triangle)
    sketch.polygon(outlines[rng.integers(len(outlines))], colour)
    return sketch.render()


def _place(
    photo: np.ndarray,
    drawing: tuple[np.ndarray, np.ndarray],
    position: np.ndarray,
    *,
    roundness: float,
    light: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Lights an object, lays its shadow on `photo` and the object over it, in place.

    Args:
        photo: `[height, width, 3]`, 0 to 1.
        drawing: the object's own colours `[side, side, 3]` and coverage `[side, side]`.
        position: where its middle goes, (y, x) as parts of the photo's height and width.
        roundness: pixels over which its surface curves towards the edge.
        light: unit vector towards the light.
        rng: what varies: gloss, ambient light, shadow.
    """
    colours, alpha = drawing
    side = len(alpha)
    top, left = (position * photo.shape[:2] - side / 2).astype(int)
    reach = rng.uniform(0.04, 0.12) * side
    depth = np.float32(rng.uniform(0.25, 0.6))
    lit = _lit(colours, alpha, roundness, light, rng)
    soft = int(max(1, side * rng.uniform(0.01, 0.04)))
    drop = (np.array([-light[1], -light[0]]) * reach).astype(int)
    black = np.zeros_like(colours)
    _blend(photo, black, depth * blur(alpha, soft), top + drop[0], left + drop[1])
    _blend(photo, lit, alpha, top, left)


def _lit(
    colours: np.ndarray,
    alpha: np.ndarray,
    roundness: float,
    light: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Shades a flat drawing as if it were swollen: its height rises from its edge inwards."""
    height = np.float32(2.2 * roundness) * blur(alpha, int(np.ceil(roundness / 2))) ** 2
    slope_y, slope_x = np.gradient(height)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = (light[2] - slope_x * light[0] - slope_y * light[1]) / length
    half = (light + np.array([0, 0, 1], np.float32)) / np.linalg.norm(light + np.array([0, 0, 1]))
    glint = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) / length, 0, 1)
    ambient = rng.uniform(0.25, 0.5)
    grain = 1 + np.float32(rng.uniform(0, 0.12)) * noise(*alpha.shape, 24, 24, rng)
    shade = (ambient + (1 - ambient) * np.clip(facing, 0, 1) / light[2]) * grain
    gloss = np.float32(rng.uniform(0, 0.45)) * glint ** np.float32(rng.uniform(20, 60))
    return (colours * shade[..., None] + gloss[..., None]).astype(np.float32)


def _blend(photo: np.ndarray, colours: np.ndarray, alpha: np.ndarray, top: int, left: int) -> None:
    """Lays `colours` over the part of `photo` that they reach, in place."""
    height, width = photo.shape[:2]
    rows = slice(max(0, -top), min(len(alpha), height - top))
    columns = slice(max(0, -left), min(len(alpha), width - left))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    target = photo[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left]
    cover = alpha[rows, columns, None]
    target += cover * (colours[rows, columns] - target)


def _expose(photo: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """What a camera adds: vignette, exposure, white balance, lack of focus, sensor noise."""
    height, width = photo.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    photo = photo * (1 - np.float32(rng.uniform(0, 0.2)) * (x**2 + y**2))[..., None]
    gain = rng.uniform(0.8, 1.15) * rng.uniform(0.93, 1.07, 3)
    photo = _through_lens(photo * gain.astype(np.float32), max(0.0, rng.uniform(-0.6, 0.8)))
    # Shot noise: bright pixels vary more; a part of it is the same in all three channels.
    level = np.float32(rng.uniform(0.003, 0.03)) * np.sqrt(photo + 0.1)
    grey = rng.standard_normal((height, width, 1), np.float32)
    colour = rng.standard_normal((height, width, 3), np.float32)
    return _to_image(photo + level * (0.8 * grey + 0.4 * colour))


def _through_lens(photo: np.ndarray, radius: float) -> np.ndarray:
    if not radius:
        return np.clip(photo, 0, 1)
    image = _to_image(photo).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255


def _to_image(photo: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8))
