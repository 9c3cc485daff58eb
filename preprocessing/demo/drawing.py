"""The ten things that the demo photos show, as line drawings in colours of the caller's choice.

A class is a shape and a pattern, never a colour: each function draws one thing about the origin in
a frame where it reaches roughly from -1 to 1 (x to the right, y down), with the colours it is given
and proportions of its own that vary from photo to photo.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from preprocessing.demo.sketch import Colour, Sketch, arc, box


@dataclasses.dataclass(frozen=True)
class Palette:
    """Colours of one object, each an RGB vector from 0 to 1: a body, its pattern, a detail."""

    body: Colour
    pattern: Colour
    detail: Colour


@dataclasses.dataclass(frozen=True)
class Thing:
    """One class of the demo data set.

    Attributes:
        synset: folder name, of ImageNet's form but none of ImageNet's.
        name: what a person calls it.
        draw: draws it on a sketch.
        tilt: degrees by which a photo may turn it, either way.
        roundness: how far from its edge it curves, as a part of its radius: 0 is a sheet.
    """

    synset: str
    name: str
    draw: Callable[[Sketch, Palette, np.random.Generator], None]
    tilt: float
    roundness: float


def _ball(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    lean = rng.uniform(0.2, 0.7)
    edges = np.linspace(-np.pi / 2, np.pi / 2, rng.integers(7, 10))
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        latitudes = np.linspace(low, high, 7)
        # A circle of latitude is seen up to the longitude at which it turns behind the ball.
        limbs = np.arccos(
            np.clip(-np.tan(np.clip(latitudes, -1.55, 1.55)) * np.tan(lean), -1.0, 1.0)
        )
        latitude = np.r_[np.full(40, low), latitudes, np.full(40, high), latitudes[::-1]]
        longitude = np.r_[
            np.linspace(-limbs[0], limbs[0], 40),
            limbs,
            np.linspace(limbs[-1], -limbs[-1], 40),
            -limbs[::-1],
        ]
        x = np.cos(latitude) * np.sin(longitude)
        y = np.sin(latitude) * np.cos(lean) - np.cos(latitude) * np.cos(longitude) * np.sin(lean)
        colour = colours.pattern if number % 2 else colours.body
        sketch.polygon(np.stack([x, -y], axis=1) * 0.95, colour)


def _ring(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    sketch.ellipse(0, 0, 0.95, 0.95, colours.body)
    hole = rng.uniform(0.42, 0.52)
    for angle in rng.uniform(0, 2 * np.pi, 26):
        distance, turn = rng.uniform(hole + 0.12, 0.83), rng.uniform(0, np.pi)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        dx, dy = 0.06 * np.cos(turn), 0.06 * np.sin(turn)
        colour = colours.pattern if rng.random() < 0.6 else colours.detail
        sketch.line(np.array([(x - dx, y - dy), (x + dx, y + dy)]), 0.055, colour)
    sketch.ellipse(0, 0, hole, hole, None)


def _star(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, rng.uniform(0.36, 0.46), 1.0)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    sketch.polygon(points, colours.body)
    for tip in range(0, 10, 2):  # facets: the half of each point that is turned from the light
        facet = np.array([(0.0, 0.0), points[tip], points[(tip + 1) % 10]])
        sketch.polygon(facet, 0.6 * colours.body)


def _leaf(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    width, bend = rng.uniform(0.4, 0.55), rng.uniform(-0.12, 0.12)
    t = np.linspace(0, 1, 40)
    spine = np.stack([bend * np.sin(np.pi * t), 0.7 - 1.65 * t], axis=1)
    half = width * np.sin(np.pi * t**0.8) ** 0.9
    right, left = spine + np.stack([half, 0 * t], 1), spine - np.stack([half, 0 * t], 1)
    sketch.polygon(np.r_[right, left[::-1]], colours.body)
    sketch.polygon(np.r_[right, spine[::-1]], 0.85 * colours.body)
    vein = colours.pattern
    for at in range(5, 32, 4):
        for side in (left, right):
            end = spine[at + 5] + 0.85 * (side[at + 5] - spine[at + 5])
            sketch.line(np.array([spine[at], end]), 0.035, vein)
    sketch.line(np.r_[[(-0.1 * np.sign(bend), 1.1)], spine[:-3]], 0.055, vein)


def _fish(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    height = rng.uniform(0.42, 0.55)
    fin = 0.75 * colours.pattern
    tail = np.array([(0.4, 0), (1.05, -0.5), (0.9, 0), (1.05, 0.5)])
    sketch.polygon(tail, fin)
    back = np.array([(-0.3, -0.8 * height), (0.15, -height - 0.32), (0.4, -0.4 * height)])
    sketch.polygon(back, fin)
    sketch.polygon(np.array([(-0.1, 0.9 * height), (0.2, height + 0.2), (0.3, 0.3)]), fin)
    t = np.linspace(-1, 1, 40)
    profile = height * np.sqrt(1 - t**2) * (1 - 0.22 * t)
    x = 0.75 * t - 0.2
    sketch.polygon(np.r_[np.c_[x, -profile], np.c_[x, profile][::-1]], colours.body)
    for scale in (-0.1, 0.12, 0.34):
        sketch.line(
            arc(scale - 0.25, 0, 0.2, 0.7 * height, start=-1.1, stop=1.1),
            0.035,
            0.7 * colours.pattern,
        )
    sketch.ellipse(-0.62, -0.12, 0.11, 0.11, np.ones(3))
    sketch.ellipse(-0.64, -0.12, 0.055, 0.055, np.zeros(3))
    sketch.line(arc(-0.9, 0.06, 0.16, 0.12, start=0.3, stop=1.5), 0.03, 0.35 * colours.body)


def _house(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    eaves, half = rng.uniform(-0.25, -0.05), rng.uniform(0.62, 0.75)
    sketch.polygon(box(0.3, -0.85, 0.48, -0.2), 0.7 * colours.body)
    sketch.polygon(box(-half, eaves, half, 0.85), colours.body)
    sketch.polygon(
        np.array([(-half - 0.2, eaves), (0, -0.98), (half + 0.2, eaves)]), colours.pattern
    )
    door = rng.choice([-0.16, 0.16]) * 1.0
    sketch.polygon(box(door - 0.14, 0.3, door + 0.14, 0.85), colours.detail)
    for x in (-0.42, 0.42):
        low = eaves + 0.18
        sketch.polygon(box(x - 0.17, low, x + 0.17, low + 0.32), 0.25 * colours.body)
        sketch.polygon(box(x - 0.14, low + 0.03, x + 0.14, low + 0.29), np.array([0.9, 0.93, 0.85]))
        sketch.line(np.array([(x, low), (x, low + 0.32)]), 0.03, 0.25 * colours.body)
        sketch.line(
            np.array([(x - 0.17, low + 0.16), (x + 0.17, low + 0.16)]), 0.03, 0.25 * colours.body
        )


def _mug(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    half, taper = rng.uniform(0.5, 0.6), rng.uniform(0.0, 0.1)
    rim = rng.uniform(0.12, 0.2)
    handle = arc(half - 0.02, 0.1, rng.uniform(0.36, 0.44), 0.4, start=-np.pi / 2, stop=np.pi / 2)
    sketch.line(handle, 0.15, 0.85 * colours.body)
    base = half - taper
    bottom = arc(0, 0.75, base, 0.8 * rim, start=0, stop=np.pi)
    sketch.polygon(np.r_[[(-half, -0.65), (half, -0.65)], bottom], colours.body)
    sketch.ellipse(0, 0.12, 0.24, 0.24, colours.pattern)
    sketch.ellipse(0, 0.12, 0.12, 0.12, colours.body)
    sketch.ellipse(0, -0.65, half, rim, 0.5 + 0.5 * colours.body)
    sketch.ellipse(0, -0.64, half - 0.06, rim - 0.04, 0.3 * colours.detail)


def _tree(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    sketch.polygon(box(-0.11, 0.4, 0.11, 1.0), 0.6 * colours.detail)
    tiers = rng.integers(3, 5)
    tops = np.linspace(-1.0, 0.05, tiers)
    widths = np.linspace(0.38, rng.uniform(0.65, 0.78), tiers)
    for number in reversed(range(tiers)):
        bottom = tops[number] + 1.5 / tiers
        x = np.linspace(-widths[number], widths[number], 13)
        fringe = np.c_[x, bottom + np.where(np.arange(13) % 2, 0.09, 0.0)]
        shade = 0.75 + 0.25 * number / (tiers - 1)
        sketch.polygon(np.r_[[(0, tops[number])], fringe[::-1]], shade * colours.body)
    for _ in range(7):
        y = rng.uniform(-0.55, 0.5)
        sketch.ellipse(rng.uniform(-0.3, 0.3) * (y + 1), y, 0.055, 0.055, colours.pattern)


def _cube(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    turn, squares = rng.uniform(0.35, 0.65), 3
    right = np.array([0.85 * np.cos(turn), 0.85 * np.sin(turn) * 0.55])
    left = np.array([-0.85 * np.sin(turn + 0.35), 0.85 * np.cos(turn + 0.35) * 0.55])
    up = np.array([0.0, -rng.uniform(0.85, 1.0)])
    corner = -(right + left + up) / 2
    faces = ((corner + right + left, -left, up, 0.62), (corner + right + left, -right, up, 0.82))
    faces = (*faces, (corner + up, right, left, 1.0))
    for origin, across, along, shade in faces:
        for i in range(squares):
            for j in range(squares):
                start = origin + (i * across + j * along) / squares
                step, rise = across / squares, along / squares
                colour = colours.pattern if (i + j) % 2 else colours.body
                tile = np.array([start, start + step, start + step + rise, start + rise])
                sketch.polygon(tile, shade * colour)


def _wheel(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    sketch.ellipse(0, 0, 0.98, 0.98, 0.5 * colours.body)
    sketch.ellipse(0, 0, 0.9, 0.9, colours.body)
    rim = rng.uniform(0.68, 0.74)
    sketch.ellipse(0, 0, rim, rim, None)
    spokes = int(rng.integers(6, 11))
    for angle in np.arange(spokes) * 2 * np.pi / spokes:
        end = 0.8 * np.array([np.cos(angle), np.sin(angle)])
        sketch.line(np.array([(0, 0), end]), 0.085, colours.pattern)
    sketch.ellipse(0, 0, 0.23, 0.23, colours.body)
    sketch.ellipse(0, 0, 0.1, 0.1, colours.detail)


THINGS = (
    Thing("n90000013", "striped ball", _ball, tilt=180, roundness=0.6),
    Thing("n90000107", "doughnut", _ring, tilt=180, roundness=0.22),
    Thing("n90000256", "star", _star, tilt=180, roundness=0.08),
    Thing("n90000391", "leaf", _leaf, tilt=40, roundness=0.12),
    Thing("n90000428", "fish", _fish, tilt=35, roundness=0.22),
    Thing("n90000574", "house", _house, tilt=15, roundness=0.04),
    Thing("n90000609", "mug", _mug, tilt=15, roundness=0.3),
    Thing("n90000735", "fir tree", _tree, tilt=20, roundness=0.1),
    Thing("n90000882", "chequered box", _cube, tilt=15, roundness=0.04),
    Thing("n90000940", "wheel", _wheel, tilt=180, roundness=0.1),
)
