"""Which transforms AutoAugment and RandAugment choose from, and how strong.

Magnitudes go from 0 to 10. They mean what they mean in the code that was published with the papers,
where posterize and solarize get weaker with a higher one. Shifts are parts of the side instead of
pixels, so that they suit every resolution; 0.45 is the papers' 150 pixels of 331 and 100 of 224.
"""

from __future__ import annotations

from training.augmentation.transforms import TRANSFORMS

NAMES = tuple(TRANSFORMS)
RANDAUGMENT_NAMES = tuple(name for name in NAMES if name != "Identity")

# Their argument is as often negative.
SIGNED_NAMES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")

# AutoAugment (arXiv:1805.09501), the ImageNet policy that was published as v0. One row is one
# sub-policy: two transforms in turn, each with its probability and magnitude.
AUTOAUGMENT = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)


def argument(name: str, magnitude: float) -> float:
    """A transform's argument at a magnitude of 0 to 10; 0 for those that take none."""
    part = magnitude / 10.0
    match name:
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return 0.1 + 1.8 * part
        case "Rotate":
            return 30.0 * part  # degrees
        case "ShearX" | "ShearY":
            return 0.3 * part
        case "TranslateX" | "TranslateY":
            return 0.45 * part
        case "Posterize":
            # With no bit at all an image would be black. The published code keeps one, too: it
            # cannot shift a byte by eight.
            return max(1.0, float(int(4 * part)))
        case "Solarize":
            return float(int(256 * part))
        case "SolarizeAdd":
            return float(int(110 * part))
    return 0.0
