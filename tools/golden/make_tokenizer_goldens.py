#!/usr/bin/env python3
"""Writes what Hugging Face `tokenizers` makes of many strings.

    python tools/golden/make_tokenizer_goldens.py [--smollm2 FILE.gguf] [--gsm8k DIR] [--out tests/golden]

    tiny_{smollm,qwen,llama3}_tokenizer.json   small tokenizers with those models' pre-tokenizers
    tiny_split_tokenizer.json                  one with the rarer ways to split
    tokenizer_strings.json                     ids and texts of corpus.STRINGS under each, and under
                                               SmolLM2's tokenizer (with --smollm2)
    smollm2_gsm8k_ids.json                     for GSM8K texts: where they stand, how many ids, and a
                                               hash of the ids (with --gsm8k); never the texts

Needs tokenizers; for --smollm2 also gguf.
"""

import argparse
import json
import pathlib
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from corpus import CORPUS, STRINGS  # noqa: E402
from make_quickstart_tokenizer import SPECIAL_TOKENS, train  # noqa: E402

GSM8K_QUESTIONS = 200
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def finish(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, min_frequency=2, special_tokens=SPECIAL_TOKENS,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    tokenizer.train_from_iterator(CORPUS.splitlines(keepends=True), trainer)
    tokenizer.add_tokens(["<tool_call>", "step by step"])  # added, not special; the second normalized
    return tokenizer


def train_rare() -> Tokenizer:
    """Split by a literal, digits in runs, and a pattern that drops what it does not match."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("-", "isolated"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex(r"[^\s#]+|\s\S?"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    return finish(tokenizer)


def train_split(digits: str, nfc: bool) -> Tokenizer:
    """A tokenizer with the pattern of Qwen2 (digits \\p{N}) or Llama 3 (\\p{N}{1,3})."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=not nfc))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CONTRACTIONS + digits + REST), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    return finish(tokenizer)


def record(tokenizer, strings):
    rows = []
    for text in strings:
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append({"text": text, "ids": ids, "ids_without_special": plain,
                     "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                     "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True),
                     "decoded_every_other": tokenizer.decode(ids[::2], skip_special_tokens=False)})
    tokenizer.encode_special_tokens = False
    return rows


def fnv1a(ids):
    """FNV-1a over the ids as little-endian 32-bit integers."""
    value = 0xcbf29ce484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return f"{value:016x}"


def record_gsm8k(tokenizer, directory):
    rows = []
    with open(directory / "test.jsonl", encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            if index == GSM8K_QUESTIONS:
                break
            problem = json.loads(line)
            for field in ("question", "answer"):
                ids = tokenizer.encode(problem[field], add_special_tokens=False).ids
                rows.append({"line": index, "field": field, "count": len(ids), "fnv1a": fnv1a(ids)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=pathlib.Path)
    parser.add_argument("--gsm8k", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden"))
    args = parser.parse_args()
    strings = {}
    tiny = {"tiny_smollm": train(CORPUS, 320), "tiny_qwen": train_split(r"\p{N}", nfc=True),
            "tiny_llama3": train_split(r"\p{N}{1,3}", nfc=False), "tiny_split": train_rare()}
    for name, tokenizer in tiny.items():
        (args.out / f"{name}_tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
        strings[name] = record(tokenizer, STRINGS)
    if args.smollm2:
        from smollm2 import tokenizer_from_gguf
        tokenizer = tokenizer_from_gguf(args.smollm2)
        strings["smollm2"] = record(tokenizer, STRINGS)
        if args.gsm8k:
            rows = record_gsm8k(tokenizer, args.gsm8k)
            (args.out / "smollm2_gsm8k_ids.json").write_text(
                "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    (args.out / "tokenizer_strings.json").write_text(json.dumps(strings, indent=None) + "\n")


if __name__ == "__main__":
    main()
