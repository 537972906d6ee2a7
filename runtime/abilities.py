"""What not every session can do."""

from dataclasses import dataclass

from forerun.errors import OptionError


@dataclass(frozen=True)
class Abilities:
    """What a session can do besides running chains of rows through the whole model, and whether the bits of a row are
    those it would have alone: `bit_exact` in a chain, `exact_trees` in a tree as well.

    `limits` says what lacks the rest, for the messages that refuse it.
    """

    trees: bool = True
    layer_subsets: bool = True
    bit_exact: bool = True
    exact_trees: bool = True
    limits: str = ""

    def require_trees(self, what: str) -> None:
        """Raise `OptionError` unless `what`, a drafter for example, can have rows that branch."""
        if not self.trees:
            raise OptionError(
                f"{what} drafts trees, and {self.limits} takes chains alone; draft a chain, such as lookup:tokens=7"
            )

    def require_layer_subsets(self, what: str) -> None:
        """Raise `OptionError` unless `what` can run some of the layers alone."""
        if not self.layer_subsets:
            raise OptionError(
                f"{what} runs some of the model's layers, and {self.limits} runs as a whole; use the drafters lookup,"
                " auto or none and no exit policy, or export the model with forerun for a compiled target"
            )
