"""What was proven of which models: the table of `forerun list models`, and of the README."""

from dataclasses import dataclass

NOTHING = "–"


@dataclass(frozen=True)
class Evidence:
    """One kind of model: how files name it, and what ran of it.

    Of every kind a tiny random model in a Hugging Face folder equals transformers within 1e-4, with every setting in
    which members differ (`tests/models/test_llama.py`), and what is compiled equals ONNX Runtime. `real_weights` says
    what of the kind was also run with the weights that people use, `real_shapes` with random weights in a real
    model's shape.
    """

    name: str
    huggingface_type: str
    gguf_architecture: str
    real_weights: str = NOTHING
    real_shapes: str = NOTHING

    def described(self) -> str:
        """What was proven, in one line."""
        found = ["tiny random model equals transformers"]
        found += [] if self.real_weights == NOTHING else [self.real_weights]
        found += [] if self.real_shapes == NOTHING else [f"random weights in the shape of {self.real_shapes}"]
        return "; ".join(found)


EVIDENCE = (
    Evidence(
        "Llama",
        "llama",
        "llama",
        "SmolLM2-135M: eager equals transformers, every drafter gives the plain ids",
        "SmolLM-360M and TinyLlama-1.1B, q4",
    ),
    Evidence("Mistral", "mistral", "llama", real_shapes="Mistral-7B, q4: drafts give the plain ids"),
    Evidence(
        "Qwen2", "qwen2", "qwen2", real_shapes="Qwen2-1.5B, q4; Qwen2-0.5B, q4: drafts give the plain ids"
    ),
    Evidence("Qwen3", "qwen3", "qwen3", real_shapes="Qwen3-0.6B, q4: lookup gives the plain ids"),
    Evidence(
        "Gemma 3 (text)",
        "gemma3_text",
        "gemma3",
        "Gemma 3 270M: eager equals transformers, every drafter gives the plain ids",
    ),
    Evidence("Phi-3", "phi3", "phi3", real_shapes="Phi-3-mini, q4: drafts give the plain ids"),
    Evidence("SmolLM3", "smollm3", "smollm3", real_shapes="SmolLM3-3B, q4: drafts give the plain ids"),
    Evidence(
        "Granite (dense)", "granite", "granite", real_shapes="Granite-3.3-2B, q4: drafts give the plain ids"
    ),
)
