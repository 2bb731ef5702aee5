#!/usr/bin/env python3
"""Writes small GGUF files with the reference writer, and the values they dequantize to.

    python tools/golden/make_gguf_goldens.py [--out tests/golden]

    tiny_llama.gguf     tiny_llama/ with Q and K in GGUF's row order, each tensor of another type,
                        and a gpt-2 tokenizer; tiny_llama_gguf.json: some dequantized values of each
                        tensor, in Hugging Face row order
    tiny_qwen2.gguf     tiny_qwen2/ in F32

Needs gguf, safetensors, numpy. Run after make_model_goldens.py.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TYPES = [gguf.GGMLQuantizationType[t] for t in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1")]


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return "output.weight"
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def permute(rows, heads):
    """Hugging Face's row order of Q and K -> GGUF's (pairs side by side)."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows, heads):
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def write(out, source, name, mixed):
    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    arch = config["model_type"]
    writer = gguf.GGUFWriter(out / f"{name}.gguf", arch)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    special = {t["content"] for t in tokenizer["added_tokens"]}
    writer.add_token_list([t for t, _ in tokens])
    writer.add_token_types([3 if t in special else 1 for t, _ in tokens])
    writer.add_token_merges([" ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    values = {}
    for index, (hf, tensor) in enumerate(sorted(load_file(source / "model.safetensors").items())):
        heads = 0
        if arch == "llama" and "q_proj" in hf:
            heads = config["num_attention_heads"]
        if arch == "llama" and "k_proj" in hf:
            heads = config["num_key_value_heads"]
        stored = np.ascontiguousarray(permute(tensor, heads) if heads else tensor)
        kind = gguf.GGMLQuantizationType.F32
        if mixed and tensor.ndim == 2:
            kind = TYPES[index % len(TYPES)]
            if tensor.shape[1] % 32 != 0:
                kind = TYPES[index % 2]
        if kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(hf), stored)
            back = stored
        else:
            packed = gguf.quantize(stored, kind)
            writer.add_tensor(gguf_name(hf), packed, raw_dtype=kind)
            back = gguf.dequantize(packed, kind)
        back = unpermute(back, heads) if heads else back
        flat = back.astype(np.float32).reshape(-1)
        indices = [int(i * (flat.size - 1) / 16) for i in range(17)]
        values[hf] = {"type": kind.name, "shape": list(tensor.shape), "indices": indices,
                      "values": [float(f"{flat[i]:.9g}") for i in indices]}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden"))
    out = parser.parse_args().out
    values = write(out, out / "tiny_llama", "tiny_llama", mixed=True)
    (out / "tiny_llama_gguf.json").write_text(json.dumps(values, indent=None) + "\n")
    write(out, out / "tiny_qwen2", "tiny_qwen2", mixed=False)


if __name__ == "__main__":
    main()
