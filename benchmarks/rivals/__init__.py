"""Ways to feed a training, each in a process of its own, ours and those it is compared with."""
