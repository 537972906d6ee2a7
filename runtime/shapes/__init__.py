"""Draft shapes: how drafts grow and branch. To add one: one file, one word below."""

from forerun.registry import Registry
from forerun.runtime.protocol import Shape
from forerun.runtime.shapes.cape import Cape
from forerun.runtime.shapes.chain import Chain
from forerun.runtime.shapes.fixed_tree import FixedTree
from forerun.runtime.shapes.grown import Grown

SHAPES: Registry[Shape] = Registry("shape", (Chain, FixedTree, Grown, Cape))
