"""The eager network against transformers, and against itself with a cache and with a tree."""

from pathlib import Path

import pytest
import torch
from tiny_models import VARIANTS, VOCABULARY_SIZE, write_folder
from transformers import AutoModelForCausalLM

from forerun.errors import UnsupportedModelError
from forerun.models import Checkpoint, Decoder, ModelConfig, chain_mask, load_model

TOLERANCE = 1e-4


def random_ids(rows: int, vocabulary: int = VOCABULARY_SIZE) -> torch.Tensor:
    return torch.randint(0, vocabulary, (rows,))


def transformers_logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids[None]).logits[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_equals_transformers(variant: str, tmp_path: Path) -> None:
    seed = int(torch.randint(0, 2**31, ()))
    write_folder(tmp_path, seed, **VARIANTS[variant])
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = random_ids(100)
    with torch.no_grad():
        found = load_model(tmp_path)(ids).logits
    expected = transformers_logits(reference, ids)
    assert (found - expected).abs().max() <= TOLERANCE, f"seed {seed}"
    assert expected.std() > 0.3, "logits this flat would agree whatever the network does"


@pytest.mark.real_model
def test_smollm2_equals_transformers(smollm2: Decoder, smollm2_checkpoint: Checkpoint) -> None:
    path = smollm2_checkpoint.source
    reference = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ids = random_ids(48, smollm2.config.vocabulary_size)
    with torch.no_grad():
        found = smollm2(ids).logits
    assert (found - transformers_logits(reference, ids)).abs().max() <= TOLERANCE


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return load_model(write_folder(tmp_path_factory.mktemp("tiny"), seed=7))


@torch.no_grad()
def test_a_prompt_in_pieces_gives_the_same_logits_and_cache(tiny: Decoder) -> None:
    ids = random_ids(20)
    whole = tiny(ids)
    past, logits = None, []
    for piece in ids.split([9, 1, 7, 3]):
        output = tiny(piece, past=past)
        past, logits = output.present, [*logits, output.logits]
    assert (torch.cat(logits) - whole.logits).abs().max() <= TOLERANCE
    for (key, value), (whole_key, whole_value) in zip(past, whole.present, strict=True):
        assert (key - whole_key).abs().max() <= TOLERANCE
        assert (value - whole_value).abs().max() <= TOLERANCE


@torch.no_grad()
def test_a_row_of_a_tree_sees_its_ancestors_only(tiny: Decoder) -> None:
    prompt, tokens = random_ids(6), random_ids(4)
    past = tiny(prompt).present
    # Rows 0 → 1 and 0 → 2 → 3.
    positions = torch.tensor([6, 7, 7, 8])
    sees = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
    mask = torch.cat([torch.ones(4, 6, dtype=torch.bool), sees], dim=1)
    tree = tiny(tokens, positions, mask, past).logits
    for path in ([0, 1], [0, 2, 3]):
        chain = tiny(tokens[path], past=past).logits
        assert (tree[path] - chain).abs().max() <= TOLERANCE
    assert (tree[3] - tiny(tokens[[0, 1, 3]], past=past).logits[2]).abs().max() > 10 * TOLERANCE


@torch.no_grad()
def test_taps_are_the_hidden_states_after_each_layer(tiny: Decoder) -> None:
    output = tiny(random_ids(5))
    assert len(output.taps) == tiny.config.layers
    assert torch.equal(tiny.head(output.taps[-1]), output.logits)
    assert not torch.equal(output.taps[0], output.taps[1])


def test_chain_mask_is_causal_over_the_past() -> None:
    assert chain_mask(2, 3).tolist() == [[True, True, True, True, False], [True] * 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "multiple"),
        ({"head_dim": 5}, "even"),
        ({"layers": 0}, "layers"),
        ({"norm_epsilon": -1.0}, "norm"),
        ({"unrotated_layers": (1,)}, r"layers \(1,\) do not rotate"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, float], message: str) -> None:
    values = {"layers": 1, "hidden_size": 8, "heads": 4, "kv_heads": 2, "head_dim": 2, "feed_forward_size": 8}
    constants = {"vocabulary_size": 8, "context_length": 8, "rope_theta": 1e4, "norm_epsilon": 1e-5}
    with pytest.raises(UnsupportedModelError, match=message):
        ModelConfig(**{**values, **constants, "tied_embeddings": True, **changes})
