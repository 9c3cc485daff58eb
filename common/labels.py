"""Label numbering: how many classes there are, and which output index the first of them has."""

from __future__ import annotations

import dataclasses

from common.errors import UsageError, UserError


@dataclasses.dataclass(frozen=True)
class LabelNumbering:
    """Ties class indices (0-based positions in a class list) to labels.

    Attributes:
        num_classes: classes in the class list, a background class not among them.
        offset: label of the first class: 0, or 1 where label 0 means 'background', as in the
            TF1 models of 1001 outputs and the classic ImageNet records.
    """

    num_classes: int
    offset: int = 0

    def __post_init__(self):
        if self.num_classes < 1:
            raise UsageError(f"a data set needs at least 1 class, not {self.num_classes}")
        if self.offset not in (0, 1):
            raise UsageError(f"label offset must be 0 or 1, not {self.offset}")

    @property
    def num_outputs(self) -> int:
        """Logits that a model with this numbering has."""
        return self.num_classes + self.offset

    @classmethod
    def of_outputs(cls, num_outputs: int, num_classes: int, what: str) -> LabelNumbering:
        """The numbering under which a model of `num_outputs` logits serves `num_classes` classes.

        Raises:
            UserError: no numbering fits; `what` says whose classes they are.
        """
        offset = num_outputs - num_classes
        if offset not in (0, 1):
            raise UserError(
                f"{what} has {num_classes} classes, but the model has {num_outputs} outputs: it"
                f" needs {num_classes}, or {num_classes + 1} with a background class; use a model"
                f" with --num_classes={num_classes}, or data of {num_outputs} or"
                f" {num_outputs - 1} classes"
            )
        return cls(num_classes, offset)
