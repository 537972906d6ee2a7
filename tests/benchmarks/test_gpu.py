"""The benchmark of devices: what it compares with, on a tiny shape and the processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.gpu import Measured, others_ms
from benchmarks.onnx_decoder import Decoder, onnxruntime_ms, write_decoder
from benchmarks.random_models import Shape

TINY = Shape("tiny", 2, 64, 4, 2, 96, 320, True)
CPU = "CPUExecutionProvider"


@pytest.mark.parametrize("shape", (TINY, replace(TINY, tied=False, model_type="mistral", head_dim=32)))
def test_the_onnx_decoder_is_the_shape_it_is_named_after(
    shape: Shape, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Steps after a prompt have the logits that transformers gives for the whole text with the same weights."""
    config = AutoConfig.for_model(**shape.config())
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, float(weight.ndim == 1), weight.shape[-1] ** -0.5)
        assert not name.endswith("bias")
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def weights(name: str, size: tuple[int, ...]) -> np.ndarray:
        assert tensors[name].shape == size
        return tensors[name]

    text = rng.integers(0, shape.vocabulary_size, 30).tolist()
    decoder = Decoder(write_decoder(shape, tmp_path, len(text), weights), CPU)
    decoder.run(text[:24])
    found = [*decoder.logits()]
    for token in text[24:]:
        decoder.run([token])
        found += [*decoder.logits()]
    with torch.inference_mode():
        expected = model(torch.tensor([text])).logits[0].numpy()
    assert np.abs(found - expected).max() < 0.02 * expected.std()


def test_onnxruntime_is_timed_where_it_has_the_provider() -> None:
    assert onnxruntime_ms(TINY, 2, 8, CPU) > 0
    assert onnxruntime_ms(TINY, 2, 8, "NoSuchExecutionProvider") == 0
    assert onnxruntime_ms(replace(TINY, model_type="qwen3"), 2, 8, CPU) == 0


def test_the_table_holds_others_that_were_measured(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> float:
        raise KeyError("no such device")

    assert others_ms("torch", lambda: 5.0) == 5 and others_ms("ONNX Runtime", fail) == 0
    assert "ONNX Runtime: 'no such device'" in capsys.readouterr().err
    found = Measured("tiny", "GPU", 10**9, 1000.0, {1: 2.0, 4: 3.0}, 0.1, 5.0, 6.0)
    assert found.lines()[-2:] == [
        "| against torch, bfloat16, compiled | 2.50× |",
        "| against ONNX Runtime, float16 | 3.00× |",
    ]
    alone = replace(found, torch_ms=0.0, onnxruntime_ms=0.0).lines()
    assert alone == found.lines()[:-2] and "T(4)/T(1) | 1.50" in "".join(alone)
