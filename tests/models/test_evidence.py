"""The table of models: it names what is read, no more and no less, and README shows it."""

from pathlib import Path

from tiny_models import VARIANTS

from forerun.models.evidence import EVIDENCE
from forerun.models.families import FAMILIES

README = Path(__file__).parents[2] / "README.md"


def test_it_names_what_families_read() -> None:
    types = [each.huggingface_type for each in EVIDENCE]
    assert sorted(types) == sorted(kind for family in FAMILIES for kind in family.huggingface_types)
    architectures = {each.gguf_architecture for each in EVIDENCE}
    assert architectures == {kind for family in FAMILIES for kind in family.gguf_architectures}


def test_every_kind_has_a_tiny_model_that_is_compared_with_transformers() -> None:
    tried = {changes.get("model_type", "llama") for changes in VARIANTS.values()}
    assert tried == {each.huggingface_type for each in EVIDENCE}


def test_the_readme_has_its_rows() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    for each in EVIDENCE:
        cells = (
            *(each.name, f"`{each.huggingface_type}`", f"`{each.gguf_architecture}`"),
            *(each.real_weights, each.real_shapes),
        )
        assert f"| {' | '.join(cells)} |" in lines
