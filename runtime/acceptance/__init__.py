"""Acceptance rules: which drafted tokens are kept. To add one: one file, one word below."""

from forerun.registry import Registry
from forerun.runtime.acceptance.exact import Exact
from forerun.runtime.protocol import Acceptance

ACCEPTANCE: Registry[Acceptance] = Registry("acceptance rule", (Exact,))
