#!/usr/bin/env python3
"""Writes the golden adapter, and opens Temper's adapters with PEFT.

    python tools/golden/make_lora_goldens.py [--out tests/golden]
        tiny_qwen2_lora/     an adapter on tiny_qwen2 as PEFT saves it (rank 4, alpha 6), and
                             expected.json: ids and their log-probs under it
    python tools/golden/make_lora_goldens.py --check ADAPTER FILE
        opens an adapter that Temper wrote, on the base it names, and compares with FILE: what
        `temper logprobs ADAPTER` printed for the ids of expected.json

Needs torch, transformers 5, peft, safetensors. Run it in the repository's root. The values come from
PEFT's own layers in float32; nothing comes from Temper's code.
"""

import argparse
import json
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

BASE = "tests/golden/tiny_qwen2"


def log_probs(model, ids):
    """log p(ids[i + 1] | ids[0 .. i]) for every i."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    table = torch.log_softmax(logits, dim=-1)
    return [table[i, ids[i + 1]].item() for i in range(len(ids) - 1)]


def make(out):
    torch.manual_seed(11)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"], bias="none",
        task_type="CAUSAL_LM", base_model_name_or_path=BASE))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape))
    model.eval()
    folder = pathlib.Path(out) / "tiny_qwen2_lora"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    generator = torch.Generator().manual_seed(5)
    sequences = []
    for length in (9, 24):
        ids = torch.randint(3, 288, (length,), generator=generator).tolist()
        sequences.append({"ids": ids, "logprobs": [float(f"{p:.9g}")
                                                   for p in log_probs(model, ids)]})
    (folder / "expected.json").write_text(json.dumps({"sequences": sequences}, indent=1) + "\n")


def check(adapter, printed):
    config = json.loads((pathlib.Path(adapter) / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"],
                                                dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter)
    model.eval()
    expected = json.loads(pathlib.Path("tests/golden/tiny_qwen2_lora/expected.json").read_text())
    worst = 0.0
    lines = pathlib.Path(printed).read_text().splitlines()
    for sequence, line in zip(expected["sequences"], lines, strict=True):
        theirs = log_probs(model, sequence["ids"])
        ours = json.loads(line)["logprobs"]
        worst = max(worst, max(abs(a - b) for a, b in zip(theirs, ours, strict=True)))
    merged = model.merge_and_unload()
    drift = max(abs(a - b) for sequence, line in zip(expected["sequences"], lines)
                for a, b in zip(log_probs(merged, sequence["ids"]), json.loads(line)["logprobs"]))
    print(f"largest difference {worst:.3g}, of the merged model {drift:.3g}")
    if max(worst, drift) > 1e-3:
        raise SystemExit("the log-probs differ")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/golden")
    parser.add_argument("--check", nargs=2, metavar=("ADAPTER", "FILE"))
    arguments = parser.parse_args()
    if arguments.check:
        check(*arguments.check)
    else:
        make(arguments.out)


if __name__ == "__main__":
    main()
