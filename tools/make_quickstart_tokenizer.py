#!/usr/bin/env python3
"""Trains the embedded policy's tokenizer: byte-level BPE, digits one by one, a small vocabulary.

    python tools/make_quickstart_tokenizer.py CORPUS.txt OUT/tokenizer.json [--vocab-size 512]

Needs `tokenizers` (0.22 or newer). The result depends on the corpus and the vocabulary size alone:
special tokens first (ids 0, 1, 2), then the 256 bytes, then merges in the order they were learned.
The text is cut by the digit rule and by GPT-2's pattern, as SmolLM2 does it.
"""

import argparse
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train(text: str, vocab_size: int) -> Tokenizer:
    """Returns a tokenizer of at most `vocab_size` tokens trained on the lines of `text`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--vocab-size", type=int, default=512)
    args = parser.parse_args()
    tokenizer = train(args.corpus.read_text(encoding="utf-8"), args.vocab_size)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    print(f"{args.out}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
