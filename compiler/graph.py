"""The compiler's view of one function: a list of nodes in order, values between them.

It is read off Relax and stays flat: a function has some thirty nodes, and a pass that finds and replaces a few
of them is easiest to follow on a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Dimension = int | str


@dataclass(eq=False)
class Value:
    """A tensor. Dimensions are numbers or the names of symbolic sizes; `constant` holds data baked in."""

    name: str
    shape: tuple[Dimension, ...]
    dtype: str
    constant: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(eq=False)
class Node:
    """One operation. `op` is Relax's name (`relax.matmul`) or one of ours (`linear`); `detail` is what is not
    a tensor: a Relax call's attributes and shapes, or the dataclass of a fused operation."""

    op: str
    inputs: list[Value]
    outputs: list[Value]
    detail: Any = None
    call: Any = field(default=None, repr=False)

    @property
    def output(self) -> Value:
        """The only output."""
        assert len(self.outputs) == 1, f"{self.op} has {len(self.outputs)} outputs"
        return self.outputs[0]


@dataclass
class Graph:
    """A function: inputs include its weights.

    `elements` gives the ONNX element type of each input, e.g. `int4`, which Relax holds in whole bytes. `window` is
    how many positions `window_mask`, where the function has that input, lets a row see.
    """

    name: str
    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    elements: dict[str, str] = field(default_factory=dict)
    window: int = 0

    def producer(self, value: Value) -> Node | None:
        """Return the node that makes a value; None for inputs and constants."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: Value) -> list[Node]:
        """Return the nodes that read a value."""
        return [node for node in self.nodes if value in node.inputs]

    def input(self, name: str) -> Value | None:
        """Return the input of that name, if there is one."""
        return next((value for value in self.inputs if value.name == name), None)

    def replace(self, old: Sequence[Node], new: Sequence[Node]) -> None:
        """Put `new` where the last of `old` stands and remove `old`."""
        at = max(self.nodes.index(node) for node in old)
        head = [node for node in self.nodes[: at + 1] if node not in old]
        self.nodes = [*head, *new, *self.nodes[at + 1 :]]

    def remove_unused(self, keep: Iterable[Value] = ()) -> None:
        """Drop nodes whose results nobody reads."""
        needed = [*self.outputs, *keep]
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(value in needed for value in node.outputs):
                kept.append(node)
                needed.extend(node.inputs)
        self.nodes = kept[::-1]
