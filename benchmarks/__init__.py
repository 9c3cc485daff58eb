"""Comparisons with other software: both sides in one run, in turns."""
