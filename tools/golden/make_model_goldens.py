#!/usr/bin/env python3
"""Writes the golden models and the values the C++ transformer and learner are compared with.

    python tools/golden/make_model_goldens.py [--smollm2 FILE.gguf] [--out tests/golden]

    tiny_{qwen2,qwen3,llama}/   random Hugging Face models (2 layers, width 32) with a tokenizer,
                                and expected.json: ids, logits, log-probs, greedy continuation
    dapo_step.json              one DAPO loss, one sft loss and one AdamW step on tiny_qwen2
    smollm2_logprobs.json       log-probs of three prompts (only with --smollm2)

Needs torch, transformers 5, tokenizers, safetensors; for --smollm2 also gguf. The values come from
transformers' models and PyTorch's autograd in float32 (the losses are written out below from their
definition), nothing comes from Temper's own code.
"""

import argparse
import json
import math
import pathlib
import random
import sys

import torch
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from corpus import CORPUS  # noqa: E402
from make_quickstart_tokenizer import train  # noqa: E402

VOCAB = 288
COMMON = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
              max_position_embeddings=256, bos_token_id=0, eos_token_id=2, pad_token_id=0)
TINY = {
    "tiny_qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(
        **COMMON, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
        rope_theta=10000.0, tie_word_embeddings=True)),
    "tiny_qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(
        **COMMON, num_attention_heads=4, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-6,
        rope_theta=1000000.0, tie_word_embeddings=True)),
    "tiny_llama": lambda: LlamaForCausalLM(LlamaConfig(
        **COMMON, num_attention_heads=4, num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-5,
        rope_theta=100000.0, tie_word_embeddings=False)),
}


def rounded(values):
    """Nested lists of floats with nine significant digits, enough for every float32."""
    if isinstance(values, list):
        return [rounded(v) for v in values]
    return float(f"{values:.9g}")


def randomize(model, seed):
    """Weights large enough that logits, gates and biases all matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1.0 + 0.2 * noise)
            elif name.endswith(".bias"):
                parameter.copy_(0.3 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(1.2 * noise / math.sqrt(parameter.shape[1]))


def token_logprobs(model, ids):
    """[T - 1]: log-prob of each token after the first, float32."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    logprobs = torch.log_softmax(logits[:-1], dim=-1)
    return logprobs.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)


def greedy(model, ids, count):
    ids = list(ids)
    for _ in range(count):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        ids.append(int(torch.argmax(logits)))
    return ids[-count:]


def make_tiny(out):
    tokenizer = train(CORPUS, VOCAB)
    for seed, (name, make) in enumerate(TINY.items()):
        model = make().float().eval()
        randomize(model, seed + 1)
        directory = out / name
        model.save_pretrained(directory)
        (directory / "tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
        draw = random.Random(seed)
        sequences = []
        for length in (12, 7):
            ids = [draw.randrange(VOCAB) for _ in range(length)]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
                sequences.append({
                    "ids": ids,
                    "logits": rounded(logits.tolist()),
                    "logprobs": rounded(token_logprobs(model, ids).tolist()),
                    "greedy": greedy(model, ids, 16),
                })
        (directory / "expected.json").write_text(json.dumps({"sequences": sequences}) + "\n")


def advantages(rewards):
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [0.0 if std == 0 else (r - mean) / (std + 1e-6) for r in rewards]


DAPO = dict(clip_ratio_low=0.2, clip_ratio_high=0.28, dual_clip=10.0, tis_cap=2.0,
            importance="token", aggregation="token_mean")
ADAMW = dict(learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.1,
             max_grad_norm=1.0)


def dapo_loss(model, samples, old_logprob):
    """Sum of w m l over sum of m, over all samples. Returns loss and per-token pieces."""
    total, count = torch.zeros(()), 0
    pieces = []
    for sample in samples:
        ids = sample["prompt_ids"] + sample["completion_ids"]
        n = len(sample["completion_ids"])
        logprobs = token_logprobs(model, ids)[-n:]
        if old_logprob == "recorded_below":
            old = torch.tensor(sample["old_logprobs"])
        else:
            old = logprobs.detach()
        roll = torch.tensor(sample["rollout_logprobs"])
        mask = torch.tensor(sample["loss_mask"], dtype=torch.float32)
        a = sample["advantage"]
        ratio = torch.exp(torch.clamp(logprobs - old, -20, 20))
        clipped = torch.clamp(ratio, 1 - DAPO["clip_ratio_low"], 1 + DAPO["clip_ratio_high"])
        loss = torch.maximum(-a * ratio, -a * clipped)
        if a < 0:
            loss = torch.clamp(loss, max=-a * DAPO["dual_clip"])
        weight = torch.clamp(torch.exp(torch.clamp(old - roll, -20, 20)), max=DAPO["tis_cap"])
        total = total + (weight * mask * loss).sum()
        count += int(mask.sum())
        pieces.append({"logprobs": rounded(logprobs.tolist()), "ratio": rounded(ratio.tolist()),
                       "token_loss": rounded(loss.tolist()), "tis_weight": rounded(weight.tolist())})
    return total / count, pieces


def sft_loss(model, samples):
    """Mean of -log-prob over completion tokens, ignoring loss_mask and rewards."""
    total, count = torch.zeros(()), 0
    for sample in samples:
        n = len(sample["completion_ids"])
        total = total - token_logprobs(model, sample["prompt_ids"] + sample["completion_ids"])[-n:].sum()
        count += n
    return total / count


def gradient_record(model, loss):
    model.zero_grad()
    loss.backward()
    gradients, square = {}, 0.0
    for name, parameter in model.named_parameters():
        flat = parameter.grad.flatten()
        square += float((flat.double() ** 2).sum())
        top = [int(i) for i in torch.topk(flat.abs(), 4).indices]
        spread = [int(i * (flat.numel() - 1) / 5) for i in range(6)]
        indices = sorted(set(top + spread))
        gradients[name] = {"norm": rounded(float(flat.double().norm())),
                           "indices": indices, "values": rounded([float(flat[i]) for i in indices])}
    return {"loss": rounded(float(loss)), "grad_norm": rounded(math.sqrt(square)),
            "gradients": gradients}


def adamw_record(model, record):
    """The first AdamW step (bias-corrected, decoupled decay) after clipping, on the record's gradient."""
    scale = min(1.0, ADAMW["max_grad_norm"] / (record["grad_norm"] + 1e-6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=ADAMW["learning_rate"],
                                  betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["epsilon"],
                                  weight_decay=ADAMW["weight_decay"])
    for parameter in model.parameters():
        parameter.grad.mul_(scale)
    optimizer.step()
    after = {}
    for name, parameter in model.named_parameters():
        indices = record["gradients"][name]["indices"]
        flat = parameter.detach().flatten()
        after[name] = {"indices": indices, "values": rounded([float(flat[i]) for i in indices])}
    return {**ADAMW, "clip_scale": rounded(scale), "parameters_after": after}


def make_dapo(out):
    def load():
        return AutoModelForCausalLM.from_pretrained(out / "tiny_qwen2", dtype=torch.float32,
                                                    attn_implementation="eager")
    model = load()
    draw = random.Random(99)
    samples = []
    for group, rewards in enumerate(([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0])):
        prompt = [draw.randrange(VOCAB) for _ in range(5 + 2 * group)]
        for reward, advantage in zip(rewards, advantages(rewards)):
            completion = [draw.randrange(VOCAB) for _ in range(draw.randint(3, 8))]
            with torch.no_grad():
                current = token_logprobs(model, prompt + completion)[-len(completion):].tolist()
            # Shifts that reach the inside of the clip, both its sides, and the dual clip.
            old = [c + draw.choice([0.0, 0.05, -0.1, 0.4, -0.5, -3.0]) for c in current]
            roll = [o + draw.choice([0.0, 0.1, -0.2, -1.0]) for o in old]
            samples.append({"group": group, "prompt_ids": prompt, "completion_ids": completion,
                            "loss_mask": [1] * len(completion), "reward": reward,
                            "advantage": rounded(advantage), "old_logprobs": rounded(old),
                            "rollout_logprobs": rounded(roll)})
    samples[3]["loss_mask"] = [0] * len(samples[3]["completion_ids"])  # as a truncated sample
    for sample in samples:  # what is written is what is computed with
        sample["old_logprobs"] = torch.tensor(sample["old_logprobs"]).tolist()
        sample["rollout_logprobs"] = torch.tensor(sample["rollout_logprobs"]).tolist()

    loss, pieces = dapo_loss(model, samples, "recorded_below")
    recomputed = gradient_record(model, loss)
    recomputed["tokens"] = pieces
    recomputed["adamw"] = adamw_record(model, recomputed)
    model = load()
    loss, pieces = dapo_loss(model, samples, "current")
    current = gradient_record(model, loss)
    current["tokens"] = pieces
    model = load()
    sft = gradient_record(model, sft_loss(model, samples))
    record = {"model": "tiny_qwen2", "options": DAPO, "samples": samples,
              "old_logprob_given": recomputed, "old_logprob_current": current, "sft": sft}
    (out / "dapo_step.json").write_text(json.dumps(record, indent=1) + "\n")


PROMPTS = [
    "Mia has 12 pencils and buys 7 more. How many pencils does Mia have now?",
    "The capital of France is Paris, and the capital of Italy is",
    "A box holds 24 apples. Half of them are green.\nSo there are 24 / 2 = 12 green apples.\n#### 12",
]


def make_smollm2(out, gguf):
    from smollm2 import tokenizer_from_gguf  # imports gguf, which only this part needs
    tokenizer = tokenizer_from_gguf(gguf)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name,
                                                 dtype=torch.float32).eval()
    sequences = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        with torch.no_grad():
            sequences.append({"text": prompt, "ids": ids,
                              "logprobs": rounded(token_logprobs(model, ids).tolist()),
                              "greedy": greedy(model, ids, 8)})
    (out / "smollm2_logprobs.json").write_text(json.dumps({"sequences": sequences}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    make_tiny(args.out)
    make_dapo(args.out)
    if args.smollm2:
        make_smollm2(args.out, args.smollm2)


if __name__ == "__main__":
    main()
