"""Drafters from the specs that users write."""

import inspect

from forerun.errors import OptionError
from forerun.runtime.drafters import DRAFTERS
from forerun.runtime.protocol import Drafter
from forerun.runtime.shapes import SHAPES


def make_drafter(drafter: str | Drafter, shape: str | None) -> Drafter:
    """Build a drafter from its spec, with the draft shape if one is given; raises `OptionError`."""
    if not isinstance(drafter, str):
        if shape is not None:
            raise OptionError("a shape is given for a drafter object; give it to the object instead")
        return drafter
    if shape is None:
        return DRAFTERS.create(drafter)
    if not drafts_in_shapes(drafter):
        name = drafter.partition(":")[0].strip()
        raise OptionError(f"drafter {name!r} drafts in no shape; leave the shape out")
    return DRAFTERS.create(drafter, shape=SHAPES.create(shape))


def drafts_in_shapes(drafter: str) -> bool:
    """Whether the drafter of a spec takes a shape; raises `OptionError` if there is none of its name."""
    name = drafter.partition(":")[0].strip()
    return "shape" in inspect.signature(DRAFTERS.find(name)).parameters
