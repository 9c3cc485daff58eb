"""Backgrounds of the demo photos, and the noise and colours that they are made of.

A background is a float32 picture `[height, width, 3]` of values from 0 to 1.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image


def random_colour(
    rng: np.random.Generator,
    value: tuple[float, float] = (0.35, 1.0),
    saturation: tuple[float, float] = (0.1, 0.6),
) -> np.ndarray:
    """An RGB vector of any hue, with brightness and saturation from the given ranges."""
    hsv = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def noise(height: int, width: int, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise `[height, width]` about 0, most of it from -1 to 1, of rows x columns lumps."""
    lumps = rng.uniform(-1, 1, (max(2, rows), max(2, columns))).astype(np.float32)
    return np.asarray(Image.fromarray(lumps).resize((width, height), Image.Resampling.BICUBIC))


def blur(image: np.ndarray, radius: int) -> np.ndarray:
    """Blurs `[height, width]` by three box filters each way, which come close to a Gaussian.

    Pillow's filters round to 8 bits, which shows as steps where light is computed from slopes.
    """
    for _ in range(6):
        total = np.cumsum(np.pad(image, ((radius + 1, radius), (0, 0))), axis=0, dtype=np.float32)
        image = (total[2 * radius + 1 :] - total[: -2 * radius - 1]).T / (2 * radius + 1)
    return image


def _table(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A table before a wall, each with its own fall-off of light."""
    wall, table = random_colour(rng, saturation=(0.05, 0.6)), random_colour(rng)
    y, x = _grid(height, width)
    horizon = rng.uniform(0.35, 0.75) + rng.uniform(-0.05, 0.05) * (x - 0.5)
    edge = _step(y - horizon, rng.uniform(0.004, 0.03))
    spot = np.exp(-((x - rng.random()) ** 2 + (y - horizon) ** 2) * rng.uniform(0.5, 2))
    return _mix(wall, table, edge) * (0.6 + 0.5 * spot)[..., None]


def _sky(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Clouds on a gradient."""
    y, _ = _grid(height, width)
    colour = _mix(random_colour(rng, (0.4, 0.9)), random_colour(rng, (0.7, 1.0), (0.05, 0.4)), y)
    clouds = _octaves(height, width, rng.integers(2, 4), rng)
    cover = _step(clouds - rng.uniform(-0.2, 0.5), 0.25) * rng.uniform(0.4, 0.9)
    return colour + cover[..., None] * (random_colour(rng, (0.85, 1.0), (0, 0.1)) - colour)


def _ground(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Sand, grass or gravel: two colours in lumps of every size."""
    one = random_colour(rng, (0.3, 0.9))
    two = np.clip(one * rng.uniform(0.5, 0.85) + rng.uniform(-0.08, 0.08, 3), 0, 1)
    lumps = _octaves(height, width, rng.integers(3, 9), rng)
    grain = noise(height, width, height // 2, width // 2, rng) * rng.uniform(0.1, 0.6)
    return _mix(one, two.astype(np.float32), np.clip(0.5 + 0.6 * lumps + grain, 0, 1))


def _planks(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Boards with a grain along them, lying or standing."""
    if rng.random() < 0.5:
        return _planks_lying(width, height, rng).transpose(1, 0, 2)
    return _planks_lying(height, width, rng)


def _planks_lying(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    y, _ = _grid(height, width)
    boards = y * rng.integers(3, 7) + rng.random()
    tints = rng.uniform(0.8, 1.1, 9).astype(np.float32)[boards.astype(int)]
    joint = 1 - 0.5 * _step(np.abs(boards % 1 - 0.5) - 0.48, 0.005)
    grain = noise(height, width, height // 2, 4, rng) + noise(height, width, height // 6, 3, rng)
    surface = tints * joint * (1 + rng.uniform(0.03, 0.12) * grain)
    return random_colour(rng, (0.4, 0.9), (0.15, 0.6)) * surface[..., None].astype(np.float32)


def _lights(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Lamps far out of focus."""
    y, x = _grid(height, width)
    photo = _mix(random_colour(rng, (0.1, 0.4)), random_colour(rng, (0.2, 0.6)), y)
    unit = min(height, width)
    for _ in range(rng.integers(6, 16)):
        distance = np.hypot((y - rng.random()) * height, (x - rng.random()) * width) / unit
        disc = _step(rng.uniform(0.03, 0.12) - distance, 0.015) * rng.uniform(0.15, 0.6)
        photo = photo + disc[..., None] * (random_colour(rng, (0.7, 1.0)) - photo)
    return photo


def _tiles(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A tiled floor, turned by any angle."""
    y, x = _grid(height, width)
    angle, size = rng.uniform(0, np.pi), min(height, width) * rng.uniform(0.2, 0.45)
    along = (x * width * np.cos(angle) + y * height * np.sin(angle)) / size + 40
    across = (y * height * np.cos(angle) - x * width * np.sin(angle)) / size + 40
    tint = rng.uniform(0.85, 1.05, 997)[(along.astype(int) * 31 + across.astype(int) * 17) % 997]
    nearest = np.maximum(np.abs(along % 1 - 0.5), np.abs(across % 1 - 0.5))
    joint = _step(nearest - 0.475, 0.01)
    tile, mortar = random_colour(rng), random_colour(rng, (0.3, 0.9), (0, 0.2))
    return _mix(tile, 0.5 * tile + 0.5 * mortar, joint) * tint[..., None].astype(np.float32)


def _cloth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Cloth in soft folds."""
    y, x = _grid(height, width)
    angle = rng.uniform(0, np.pi)
    across = x * np.cos(angle) + y * np.sin(angle) + 0.12 * noise(height, width, 3, 3, rng)
    folds = np.sin(across * rng.uniform(8, 22)) * rng.uniform(0.05, 0.2)
    weave = 0.05 * noise(height, width, height // 2, width // 2, rng)
    return random_colour(rng) * (0.9 + folds + weave)[..., None].astype(np.float32)


BACKGROUNDS = (_table, _sky, _ground, _planks, _lights, _tiles, _cloth)


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y and x of every pixel, `[height, width]` each, from 0 to 1."""
    y = np.linspace(0, 1, height, dtype=np.float32)
    x = np.linspace(0, 1, width, dtype=np.float32)
    return np.broadcast_to(y[:, None], (height, width)), np.broadcast_to(x, (height, width))


def _octaves(height: int, width: int, lumps: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of four sizes, each half as large and half as strong as the one before."""
    rows, columns = lumps * height / min(height, width), lumps * width / min(height, width)
    return sum(
        noise(height, width, int(rows * 2**i), int(columns * 2**i), rng) / 2**i for i in range(4)
    )


def _mix(one: np.ndarray, two: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From colour `one` to colour `two` as `share` `[height, width]` goes from 0 to 1."""
    return one + share[..., None].astype(np.float32) * (two - one)


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below, 1 above zero, with a linear edge of `width`."""
    return np.clip(distance / width + 0.5, 0, 1).astype(np.float32)
