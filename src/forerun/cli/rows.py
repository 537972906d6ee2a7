"""What is said of a target's bits."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forerun.runtime.onnx.rule import RowRule

ROWS_DEPEND = (
    "note: with this target the bits of a row may depend on the rows beside it, so a draft may have changed a token"
    " where two were nearly equally likely; forerun info says by how much"
)
TREES_DEPEND = (
    "note: with this target the bits of a row may differ in a tree, so a draft with branches may have changed a token"
    " where two were nearly equally likely; chains, which are what drafters make unless told otherwise, change none"
)


def describe_rule(rule: "RowRule", takes_trees: bool) -> str:
    """Whether drafts can change a token with an ONNX file, as far as a trial says."""
    if not rule.chains:
        return (
            "the bits of a row depend on the rows beside it here (logits differ by up to"
            f" {rule.difference:.2g}, they spread over {rule.spread:.2g}): a draft may change a token where two are"
            " nearly equally likely"
        )
    how = "a lone row runs beside one that is thrown away, and " if rule.least_rows > 1 else ""
    trees = "; in trees they may differ" if takes_trees and not rule.trees else ""
    return f"{how}rows had the same bits however many shared a call, as tried on this machine{trees}"
