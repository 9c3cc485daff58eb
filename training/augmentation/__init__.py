"""What happens to a photo between its crop and the model, in training.

`host.augment` is for one image in the input pipeline (randaugment, autoaugment), `device.prepare`
for a batch in the training step (flip, colour, mixing, erasing, scaling, targets).
"""

from training.augmentation.device import prepare
from training.augmentation.host import augment

__all__ = ["augment", "prepare"]
