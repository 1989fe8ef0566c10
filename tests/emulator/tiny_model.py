"""A language model of 140 kilobytes with random weights, in the format of llama.cpp: it answers nonsense in ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 32
HEADS = 4
INNER = 64
CONTEXT = 2048
TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
#: What is never said: bytes that are no text by themselves, and the tokens that are not for speaking.
UNSPOKEN = -200.0
END = 1
FIRST_BYTE = 2


def write_model(path: Path, *, seed: int = 1) -> None:
    """Write a llama of one layer, with a token for each printable character and for each byte."""
    import gguf
    import numpy as np

    # As GPT-2 has it: a byte that cannot be printed is named by a character after the first 256.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    names = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    tokens = ["<s>", "</s>", *(names[byte] for byte in range(256)), 2 * names[ord(" ")]]

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * FIRST_BYTE + [gguf.TokenType.NORMAL] * (len(tokens) - FIRST_BYTE))
    writer.add_token_merges([f"{names[ord(' ')]} {names[ord(' ')]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(END)
    writer.add_chat_template(TEMPLATE)

    dice = np.random.default_rng(seed)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output": (len(tokens), WIDTH),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")},
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    weights = {
        name: dice.standard_normal(shape, dtype=np.float32) / np.float32(shape[1] ** 0.5)
        for name, shape in shapes.items()
    }
    # The first dimension is 1 for every token and stays so through the layer; with it, some tokens are made impossible.
    weights["token_embd"][:, 0] = 1
    weights["blk.0.attn_output"][0] = weights["blk.0.ffn_down"][0] = 0
    spoken = [END, *(FIRST_BYTE + byte for byte in range(32, 127))]
    weights["output"][[token for token in range(len(tokens)) if token not in spoken], 0] = UNSPOKEN
    weights["output"][END, 0] = 1
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        weights[name] = np.ones(WIDTH, dtype=np.float32)
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
