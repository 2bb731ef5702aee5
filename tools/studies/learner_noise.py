#!/usr/bin/env python3
"""The learner's noise, three kinds of it, on the embedded policy: same, fresh, none.

Every arm is `temper run quickstart` with `trainer.learner_noise` and `trainer.noisy_ops.error_scale`
set; three kinds at two scales with five training seeds are 30 runs of a minute or two each. A run that
has ended is one line of RESULTS (JSONL); a study that is started again goes on with the runs that are
missing, and prints the table of what is there. --set adds an override to every run; runs under other
overrides are another study, even in one file.

    tools/studies/learner_noise.py results.jsonl
    tools/studies/learner_noise.py results.jsonl --set trainer.dapo.old_logprob=recorded
    tools/studies/learner_noise.py results.jsonl --table

Of a run: the gap is the mean over its steps of the mean |learner - sampler| log-probability per token;
the clipped share that of tokens cut at clip_ratio_low or high (0 by construction with old_logprob
`current`, whose ratio is 1: there the gap is carried by importance weights), the cut share that of
importance weights cut at their cap. Intervals: 95 %, Student's t over training seeds. Standard library
only.
"""

import argparse
import itertools
import json
import math
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("same", "fresh", "none")
# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the normal's is near enough.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262,
       10: 2.228, 14: 2.145, 19: 2.093, 29: 2.045}
COLUMNS = (("gap", "gap, nats", 1.0, 5), ("clipped", "clipped, %", 100.0, 3),
           ("cut", "weights cut, %", 100.0, 3), ("accuracy_error", "accuracy under error, %", 100.0, 1),
           ("accuracy_clean", "clean, %", 100.0, 1))


def key_of(arm):
    return (arm["learner_noise"], arm["error_scale"], arm["seed"], tuple(arm["set"]))


def results_in(path):
    """The runs that ended, by what they were; a line that a crash cut short is passed over."""
    done = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        done[key_of(result)] = result
    return done


def accuracy_at(summary, scale):
    """(before, after) training at an error scale, over all noise seeds."""
    cells = sorted((cell["version"], cell["accuracy"]) for cell in summary["by_scale"]
                   if math.isclose(cell["error_scale"], scale, abs_tol=1e-12))
    return (cells[0][1], cells[-1][1]) if cells else (None, None)


def result_of(arm, run_dir, seconds):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if not line["skipped"]]
    summary = json.loads((run_dir / "summary.json").read_text())

    def mean(*names):
        return statistics.fmean(sum(line[name] for name in names) for line in trained)

    before, after = accuracy_at(summary, arm["error_scale"])
    return {**arm, "steps": len(lines), "steps_trained": len(trained),
            "gap": mean("logprob_abs_diff_mean"),
            "clipped": mean("clip_fraction_low", "clip_fraction_high"),
            "cut": mean("importance_cut_ratio"),
            "achieved_error_scale": mean("achieved_error_scale"),
            "accuracy_error_before": before, "accuracy_error": after,
            "accuracy_clean": accuracy_at(summary, 0.0)[1],
            "config_fingerprint": summary["config_fingerprint"], "seconds": round(seconds, 1)}


def run(arm, temper, folder):
    """Runs one arm to its end; its result."""
    run_dir = folder / "run"
    command = [str(temper), "run", "quickstart", f"run_dir={run_dir}", f"seed={arm['seed']}",
               f"trainer.learner_noise={arm['learner_noise']}",
               f"trainer.noisy_ops.error_scale={arm['error_scale']}",
               f"eval.error_scales=[0, {arm['error_scale']}]", *arm["set"]]
    begun = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, check=False)
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {ended.returncode}:\n"
                 f"{ended.stdout.decode(errors='replace')[-3000:]}")
    return result_of(arm, run_dir, time.monotonic() - begun)


def interval(values):
    """Mean and half width; the half width is None with one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    t = T95.get(len(values) - 1) or next((T95[n] for n in sorted(T95) if n >= len(values) - 1), 1.96)
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def table(results):
    header = ["error", "learner noise", "runs", *(title for _, title, _, _ in COLUMNS)]
    rows = [header]
    arms = sorted({(r["error_scale"], KINDS.index(r["learner_noise"])) for r in results})
    for scale, kind in arms:
        own = [r for r in results
               if r["error_scale"] == scale and r["learner_noise"] == KINDS[kind]]
        row = [f"{100 * scale:g} %", KINDS[kind], str(len(own))]
        for name, _, factor, digits in COLUMNS:
            values = [factor * r[name] for r in own if r[name] is not None]
            if not values:
                row.append("-")
                continue
            mean, half = interval(values)
            row.append(f"{mean:.{digits}f}" + ("" if half is None else f" +- {half:.{digits}f}"))
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                     for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("results", type=pathlib.Path, help="JSONL, a line per run; made if missing")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.10, 0.15])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--temper", type=pathlib.Path, default=ROOT / "build/release/bin/temper")
    parser.add_argument("--folder", type=pathlib.Path, help="for run directories; default: temporary")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    arguments = parser.parse_args()

    overrides = sorted(arguments.overrides)
    # Seeds outside, so that a study that is cut off has whole comparisons.
    arms = [{"learner_noise": kind, "error_scale": scale, "seed": seed, "set": overrides}
            for seed, scale, kind in itertools.product(arguments.seeds, arguments.scales,
                                                       arguments.kinds)]
    done = results_in(arguments.results)
    missing = [] if arguments.table else [arm for arm in arms if key_of(arm) not in done]
    for number, arm in enumerate(missing, 1):
        print(f"run {number} of {len(missing)}: {arm['learner_noise']}, error "
              f"{arm['error_scale']:g}, seed {arm['seed']}", file=sys.stderr, flush=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="learner_noise-", dir=arguments.folder))
        try:
            done[key_of(arm)] = result = run(arm, arguments.temper, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        with open(arguments.results, "a", encoding="utf-8") as results:
            results.write(json.dumps(result) + "\n")
    found = [done[key_of(arm)] for arm in arms if key_of(arm) in done]
    print(table(found) if found else "no run has ended yet")


if __name__ == "__main__":
    main()
