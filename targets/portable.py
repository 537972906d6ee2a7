"""The rules that every CPU can run, and lists that try others before them."""

from __future__ import annotations

PORTABLE_RULES = {
    "embed": ("embed_rows",),
    "norm": ("rms_norm",),
    "quantize": ("quantize_rows",),
    "matmul": ("matmul_grouped", "matmul_float"),
    "matmul_swiglu": ("matmul_grouped", "matmul_float"),
    "swiglu": ("swiglu",),
    "rope_store": ("rope_store",),
    "cached_attention": ("attention_blocked",),
}


def with_matmul(*rules: str) -> dict[str, tuple[str, ...]]:
    """Return the portable rules with rules for quantized matmuls before them."""
    tried = (*rules, *PORTABLE_RULES["matmul"])
    return {**PORTABLE_RULES, "matmul": tried, "matmul_swiglu": tried}
