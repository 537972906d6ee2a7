"""Drafters: whatever proposes tokens. To add one: one file, one word below."""

from forerun.registry import Registry
from forerun.runtime.drafters.auto import Auto
from forerun.runtime.drafters.exit import ExitDrafter
from forerun.runtime.drafters.feature import FeatureDrafter
from forerun.runtime.drafters.heads import HeadsDrafter
from forerun.runtime.drafters.lookup import Lookup
from forerun.runtime.drafters.none import NoDrafter
from forerun.runtime.drafters.self import SelfDrafter
from forerun.runtime.protocol import Drafter

DRAFTERS: Registry[Drafter] = Registry(
    "drafter", (Auto, NoDrafter, Lookup, SelfDrafter, FeatureDrafter, HeadsDrafter, ExitDrafter)
)
