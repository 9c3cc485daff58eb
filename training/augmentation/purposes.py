"""What random numbers are for: other purposes have other numbers, see `training.randomness`.

A number once given stays: changing one changes every run that is resumed. The crop takes an
example's key itself.
"""

FLIP = 2
COLOUR = 3
MIX = 4
ERASE = 5
ERASE_NOISE = 6
POLICY = 7
DROPOUT = 8
