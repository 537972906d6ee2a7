"""Exit policies: which rows leave the layer stack early. To add one: one file, one word below."""

from forerun.registry import Registry
from forerun.runtime.exits.confidence import Confidence
from forerun.runtime.exits.never import Never
from forerun.runtime.protocol import ExitPolicy

EXITS: Registry[ExitPolicy] = Registry("exit policy", (Never, Confidence))
