"""The page on a data set: what it shows, in numbers, plots and pictures."""
