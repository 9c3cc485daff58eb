"""Looks at one image's bytes, and decides what is stored of it."""

from preprocessing.images.inspection import (
    DECODE,
    HEADER,
    MAX_PIXELS,
    REJECTED,
    REJECTION_REASONS,
    REPAIRED,
    RESIZED,
    UNREADABLE,
    VERBATIM,
    ImagePolicy,
    Inspection,
    decode_error,
    encoder_versions,
    inspect,
    reject,
)

__all__ = [
    "DECODE",
    "HEADER",
    "MAX_PIXELS",
    "REJECTED",
    "REJECTION_REASONS",
    "REPAIRED",
    "RESIZED",
    "UNREADABLE",
    "VERBATIM",
    "ImagePolicy",
    "Inspection",
    "decode_error",
    "encoder_versions",
    "inspect",
    "reject",
]
