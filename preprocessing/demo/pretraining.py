"""The ten things that the demo's initial weights were trained on, none of them one of the demo's.

They are drawn as the demo's are, in the frame and by the rules of `preprocessing.demo.drawing`.
"""

from __future__ import annotations

import itertools

import numpy as np

from preprocessing.demo.drawing import Palette, Thing
from preprocessing.demo.sketch import Sketch, arc, box


def _umbrella(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    sketch.line(np.array([(0, -0.95), (0, 0.72)]), 0.07, 0.7 * colours.detail)
    sketch.line(arc(0.17, 0.72, 0.17, 0.2, start=0, stop=np.pi), 0.08, 0.7 * colours.detail)
    depth, panels = rng.uniform(0.75, 0.92), int(rng.integers(5, 8))
    edges = np.cos(np.linspace(np.pi, 0, panels + 1))  # panels at the sides are seen aslant
    for number, (left, right) in enumerate(itertools.pairwise(edges)):
        t = np.linspace(0, 1, 16)
        outer, inner = right * np.sin(t * np.pi / 2), left * np.sin(t * np.pi / 2)
        y = 0.05 - depth * np.cos(t * np.pi / 2)
        # Between two ribs the cloth sags upward.
        hem = np.c_[np.linspace(right, left, 9), 0.05 - 0.1 * np.sin(np.linspace(0, np.pi, 9))]
        colour = colours.pattern if number % 2 else colours.body
        sketch.polygon(np.r_[np.c_[outer, y], hem, np.c_[inner, y][::-1]], colour)


def _key(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    bow = rng.uniform(0.36, 0.44)
    middle = -0.95 + bow
    sketch.ellipse(0, middle, bow, bow, colours.body)
    sketch.ellipse(0, middle, 0.55 * bow, 0.55 * bow, None)
    sketch.polygon(box(-0.1, middle + 0.9 * bow, 0.1, 1.0), colours.body)
    sketch.polygon(box(-0.17, middle + bow, 0.17, middle + bow + 0.11), colours.pattern)
    for bottom in (0.96, 0.66, 0.4)[: rng.integers(2, 4)]:
        sketch.polygon(box(0.08, bottom - 0.17, rng.uniform(0.36, 0.52), bottom), colours.body)


def _bottle(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    half, neck, shoulder = rng.uniform(0.3, 0.4), rng.uniform(0.11, 0.15), rng.uniform(-0.35, -0.1)
    t = np.linspace(0, 1, 20)
    slope = np.c_[neck + (half - neck) * np.sin(t * np.pi / 2) ** 2, shoulder - 0.3 * (1 - t)]
    right = np.r_[[(neck, -0.85)], slope, [(half, 0.9), (half - 0.06, 0.98)]]
    sketch.polygon(np.r_[right, right[::-1] * (-1, 1)], colours.body)
    sketch.polygon(box(-neck - 0.04, -0.85, neck + 0.04, -0.74), 0.7 * colours.body)
    sketch.polygon(box(-neck + 0.02, -1.02, neck - 0.02, -0.85), 0.8 * colours.detail)
    top = shoulder + rng.uniform(0.15, 0.25)
    sketch.polygon(box(-half, top, half, top + 0.5), colours.pattern)
    for line in (0.15, 0.28):
        sketch.line(
            np.array([(-0.6 * half, top + line), (0.6 * half, top + line)]), 0.05, colours.detail
        )


def _arrow(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    half, head, reach = rng.uniform(0.13, 0.2), rng.uniform(0.45, 0.6), rng.uniform(-0.3, -0.1)
    sketch.polygon(box(-half, reach - 0.05, half, 0.98), colours.body)
    sketch.polygon(np.array([(0, -1.0), (head, reach), (-head, reach)]), colours.body)
    for y in (0.25, 0.5, 0.75):  # chevrons, which point the same way
        sketch.line(
            np.array([(-half + 0.03, y + 0.1), (0, y), (half - 0.03, y + 0.1)]),
            0.07,
            colours.pattern,
        )


def _crescent(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    sketch.ellipse(0, 0, 0.95, 0.95, colours.body)
    for angle in rng.uniform(0.65 * np.pi, 1.35 * np.pi, 6):
        size, distance = rng.uniform(0.04, 0.09), rng.uniform(0.6, 0.85)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        sketch.ellipse(x, y, size, size, 0.6 * colours.body)
    bite = rng.uniform(0.68, 0.8)
    sketch.ellipse(rng.uniform(0.4, 0.5), 0, bite, bite, None)


def _mushroom(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    stem, brim, height = rng.uniform(0.18, 0.27), rng.uniform(-0.05, 0.15), rng.uniform(0.75, 0.95)
    foot = arc(0, 0.85, 1.25 * stem, 0.13, start=0, stop=np.pi)
    sketch.polygon(np.r_[[(-stem, brim), (stem, brim)], foot], 0.5 + 0.5 * colours.detail)
    sketch.ellipse(0, brim, 0.9, 0.15, 0.55 * colours.body)
    sketch.polygon(arc(0, brim, 0.95, height, start=np.pi, stop=2 * np.pi), colours.body)
    for right, up in ((-0.55, 0.25), (-0.2, 0.62), (0.1, 0.25), (0.42, 0.55), (0.65, 0.2)):
        x, y = right + rng.uniform(-0.06, 0.06), brim - height * (up + rng.uniform(-0.05, 0.05))
        sketch.ellipse(x, y, 0.11, 0.09, colours.pattern)


def _hourglass(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    half, waist = rng.uniform(0.45, 0.55), rng.uniform(0.05, 0.08)
    glass = 0.55 + 0.45 * colours.body
    for x in (-half - 0.08, half + 0.08):
        sketch.line(np.array([(x, -0.85), (x, 0.85)]), 0.08, 0.8 * colours.body)
    y = np.linspace(-0.82, 0.82, 41)
    width = waist + (half - waist) * np.abs(y / 0.82) ** 1.3
    sketch.polygon(np.r_[np.c_[width, y], np.c_[-width, y][::-1]], glass)
    run = rng.uniform(0.3, 0.6)  # how much of the sand is still above
    for kept in ((y < -0.03) & (y > -0.75 * run), y > 0.8 - 0.7 * (1 - run)):
        edge = np.c_[width[kept] - 0.05, y[kept]]
        sketch.polygon(np.r_[edge, edge[::-1] * (-1, 1)], colours.pattern)
    sketch.line(np.array([(0, -0.05), (0, 0.75)]), 0.04, colours.pattern)
    for bottom in (-0.82, 0.98):
        sketch.polygon(box(-half - 0.17, bottom - 0.16, half + 0.17, bottom), colours.body)


def _hammer(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    half, low = rng.uniform(0.09, 0.13), rng.uniform(-0.5, -0.4)
    sketch.polygon(box(-half, -0.85, half, 1.0), colours.pattern)
    sketch.polygon(box(-half - 0.03, 0.45, half + 0.03, 1.0), 0.6 * colours.pattern)
    sketch.polygon(box(-0.3, -0.85, 0.45, low), colours.body)
    sketch.polygon(box(0.45, -0.92, 0.68, low + 0.07), 0.75 * colours.body)
    claw = rng.uniform(0.75, 0.9)
    claw_points = [(-0.3, -0.85), (-0.3, low), (-claw, low + 0.12), (-claw + 0.1, low - 0.12)]
    sketch.polygon(np.array(claw_points), 0.9 * colours.body)


def _flower(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    stem, leaf = 0.7 * colours.detail, rng.uniform(0.35, 0.55)
    bend = rng.uniform(-0.12, 0.12)
    t = np.linspace(0, 1, 16)
    sketch.line(np.c_[bend * np.sin(np.pi * t), -0.35 + 1.4 * t], 0.08, stem)
    for side in (-1, 1):
        tip = np.array([side * leaf, 0.5 - 0.25 * rng.random()])
        across = 0.13 * np.sin(np.pi * t)[:, None] * np.array([0.5 * side, 1.0])
        along = np.array([0.0, 0.8]) + t[:, None] * (tip - (0.0, 0.8))
        sketch.polygon(np.r_[along - across, (along + across)[::-1]], stem)
    petals, first = int(rng.integers(5, 9)), rng.uniform(0, np.pi)
    for number, angle in enumerate(first + np.arange(petals) * 2 * np.pi / petals):
        outline = arc(0.36, 0, 0.27, 0.95 / petals)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        shade = 1.0 if number % 2 else 0.85
        sketch.polygon(outline @ turn + (0, -0.37), shade * colours.body)
    sketch.ellipse(0, -0.37, 0.19, 0.19, colours.pattern)


def _boat(sketch: Sketch, colours: Palette, rng: np.random.Generator) -> None:
    deck, mast = rng.uniform(0.35, 0.5), rng.uniform(-0.1, 0.1)
    hull = [(-0.95, deck), (0.95, deck), (0.65, 0.9), (-0.7, 0.9)]
    sketch.polygon(np.array(hull), colours.body)
    sketch.polygon(
        np.array([(-0.95, deck), (0.95, deck), (0.87, deck + 0.13), (-0.87, deck + 0.13)]),
        0.65 * colours.body,
    )
    sketch.line(np.array([(mast, deck), (mast, -1.0)]), 0.06, 0.7 * colours.detail)
    foot, reach = deck - 0.1, rng.uniform(0.6, 0.75)
    sketch.polygon(
        np.array([(mast + 0.06, -0.9), (mast + 0.06, foot), (mast + reach, foot)]), colours.pattern
    )
    sketch.polygon(
        np.array([(mast - 0.06, -0.7), (mast - 0.06, foot), (mast - 0.8 * reach, foot)]),
        0.8 * colours.pattern,
    )
    for y in (-0.35, 0.05):  # seams
        x = mast + 0.06 + (reach - 0.06) * (y + 0.9) / (foot + 0.9)
        sketch.line(np.array([(mast + 0.06, y), (x, y)]), 0.03, 0.6 * colours.pattern)


PRETRAINING_THINGS = (
    Thing("n91000018", "umbrella", _umbrella, tilt=25, roundness=0.2),
    Thing("n91000124", "key", _key, tilt=180, roundness=0.06),
    Thing("n91000239", "bottle", _bottle, tilt=25, roundness=0.25),
    Thing("n91000347", "arrow", _arrow, tilt=180, roundness=0.05),
    Thing("n91000451", "crescent moon", _crescent, tilt=180, roundness=0.25),
    Thing("n91000563", "mushroom", _mushroom, tilt=20, roundness=0.2),
    Thing("n91000678", "hourglass", _hourglass, tilt=20, roundness=0.12),
    Thing("n91000786", "hammer", _hammer, tilt=180, roundness=0.08),
    Thing("n91000892", "flower", _flower, tilt=25, roundness=0.12),
    Thing("n91000975", "boat", _boat, tilt=15, roundness=0.08),
)
