"""Draft shapes: how drafts grow and branch. To add one: one file, one word below."""

from forerun.registry import Registry
from forerun.runtime.protocol import Shape
from forerun.runtime.shapes.chain import Chain
from forerun.runtime.shapes.fixed_tree import FixedTree

SHAPES: Registry[Shape] = Registry("shape", (Chain, FixedTree))
