"""Makes the folders beside it: tiny random decoders, exported by optimum itself.

Run in an environment of its own, since optimum-onnx wants an older transformers than forerun's tests:

    python -m venv optimum && optimum/bin/pip install torch==2.13.0
    optimum/bin/pip install optimum-onnx==0.1.0 onnxruntime==1.31.1 transformers==4.57.6
    optimum/bin/python tests/onnx_files/make_models.py

Each folder is what `optimum-cli export onnx --task text-generation-with-past -m FOLDER` wrote, and expected.json: token
ids and the logits that transformers gives for them in one call. The models differ in what their files take: llama has
position_ids, gemma3 none (and a sliding window), gpt2 has other names in its config.json.
"""

import json
import tempfile
from pathlib import Path

import torch
from optimum.exporters.onnx import main_export
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

TOKENS = ("<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789")
TEMPLATE = "<s>{% for message in messages %}{{ message.role[0] }}{{ message.content }}{% endfor %}a"
CONTEXT = 128
COMMON = {"vocab_size": len(TOKENS), "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "max_position_embeddings": CONTEXT,
}
CONFIGS = {
    "llama": LlamaConfig(**COMMON, **SIZES),
    "gemma3": Gemma3TextConfig(
        **COMMON,
        **SIZES,
        query_pre_attn_scalar=8,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gpt2": GPT2Config(**COMMON, n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        models.BPE(vocab={token: index for index, token in enumerate(TOKENS)}, merges=[], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in TOKENS[:3]])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    return fast


def make(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[-1] ** -0.5)
    ids = torch.randint(3, len(TOKENS), (40,)).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    with tempfile.TemporaryDirectory() as source:
        model.save_pretrained(source)
        make_tokenizer().save_pretrained(source)
        main_export(source, folder, task="text-generation-with-past", do_validation=True)
    expected = {"ids": ids, "logits": [[round(value, 6) for value in row] for row in logits[::8].tolist()]}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


if __name__ == "__main__":
    for name in CONFIGS:
        make(name, Path(__file__).parent / name)
