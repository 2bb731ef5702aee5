"""Real runs for the tests of this folder: a tiny recipe, `temper run` as a process, what it left.

Every wait here has a deadline and names what did not happen. Every process a test starts dies with
the test: it is found by the run directory in its command line, so that a lost one is seen too.
Standard library only.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["TEMPER_BIN_DIR"])
WORK = pathlib.Path(os.environ["TEMPER_BUILD_DIR"]) / "e2e"

# Made once for all tests, by tiny_policy_test.py and undisturbed_run_test.py.
TINY_POLICY = WORK / "tiny_policy"
UNDISTURBED = WORK / "undisturbed"

# Files and fields that equal runs may differ in: who did it, and how long it took.
TIMES = ("_seconds", "_per_second")
# Of `groups` in metrics.jsonl: what failed meanwhile. Equal runs may differ in these.
DISTURBANCES = ("attempts_leased", "refused", "generation_failed", "reward_failed",
                "lease_expired", "superseded", "drained", "rewound")
TRAINED = 1  # number of this ending in the ledger
ROLES = ("orchestrator-0", "reward_server-0", "learner-0", "rollout_worker-0")

# Where a test strikes is drawn from this. A person may loop over it; a failure prints what was drawn.
SEED = os.environ.get("TEMPER_TEST_SEED", "1")


def wait_until(condition, seconds, what):
    """Waits until `condition()` is true and returns its value; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def pause(seconds):
    """Lets a run go on for a moment: for moments that are drawn, never to wait for something."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, seconds + 5, "time passes")


def fresh_folder(name):
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def temper(*arguments, stdin=b"", seconds=60, cwd=ROOT):
    """Runs `temper` to its end; the result has returncode, stdout and stderr as text."""
    done = subprocess.run([BIN / "temper", *map(str, arguments)], input=stdin, timeout=seconds,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, check=False)
    done.stdout = done.stdout.decode()
    done.stderr = done.stderr.decode()
    return done


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def merged(base, changes):
    """`base` with the nested values of `changes` put over it."""
    both = dict(base)
    for key, value in changes.items():
        both[key] = merged(both.get(key, {}), value) if isinstance(value, dict) else value
    return both


# One calculation with numbers to 5, so that a policy warm-started for seconds is sometimes right.
TINY_DATASET = {"name": "gsm-arith", "min_steps": 1, "max_steps": 1, "max_number": 5}
TINY_ROLLOUT = {"samples_per_group": 4, "groups_per_lease": 2, "max_prompt_tokens": 96,
                "max_completion_tokens": 40}

# A step takes some 50 ms: enough of them that a test can act in the middle of a run, also on a
# machine that keeps it waiting for a second or two.
STEPS = 80

TINY_RECIPE = {
    "model": {"path": str(TINY_POLICY)},
    "dataset": TINY_DATASET,
    "rollout": TINY_ROLLOUT,
    "reward": {"rule": "strict"},
    "trainer": {
        "total_updates": STEPS, "groups_per_step": 4, "threads": 1, "learner_noise": "same",
        "optimizer": {"learning_rate": 1e-3},
        "dapo": {"max_rounds": 3},
        "noisy_ops": {"enabled": True, "error_scale": 0.1},
        "noise_injection": {"enabled": True, "schedule": "global", "sigma_start": 0.05,
                            "sigma_end": 0.0005, "num_stages": 3},
    },
    "eval": {"questions": 8, "noise_seeds": 1, "questions_per_item": 4,
             "error_scales": [0.0, 0.1]},
    "orchestrator": {"heartbeat_seconds": 0.2, "member_timeout_seconds": 3.0,
                     "lease_seconds": 20.0, "retry_backoff_seconds": 0.1},
    "checkpoint": {"every": 5, "keep": 0},
}


def write_recipe(folder, changes=None, base=None):
    """Writes a recipe (JSON is YAML) and returns its path."""
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(merged(base or TINY_RECIPE, changes or {}), indent=2))
    return path


def command_of(pid):
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        return words.decode(errors="replace").split("\0")
    except OSError:  # it has ended
        return []


def processes_of(run_dir):
    """pid -> command line of every live process that names the run directory."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            command = command_of(entry)
            if any(str(run_dir) in word for word in command) and "temper" in command[0]:
                found[int(entry)] = command
    return found


class Run:
    """One `temper run` in a folder of its own. Use as a context: nothing of it survives the end."""

    def __init__(self, name, changes=None, overrides=()):
        self.folder = fresh_folder(name)
        self.dir = self.folder / "run"
        self.state_dir = self.dir  # of the ledger; another may be set before the start
        self.recipe = write_recipe(self.folder, changes)
        self.overrides = list(overrides)
        self.process = None
        self.starts = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill_everything()

    # -- processes

    def start(self, *more):
        """Starts `temper run`; `more` are further words (overrides, --resume auto)."""
        self.starts += 1
        self.output = self.folder / f"temper.{self.starts}.out"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [BIN / "temper", "run", "--verbose", self.recipe, f"run_dir={self.dir}",
                 f"orchestrator.state_dir={self.state_dir}", *self.overrides, *more],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=ROOT)
        return self

    def finish(self, seconds=90, code=0):
        """Waits for the end of `temper run` and checks its exit code."""
        try:
            ended = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"temper run did not end in {seconds} s{self.story()}") from None
        if ended != code:
            raise AssertionError(f"temper run ended with {ended}, not {code}{self.story()}")
        return self

    def story(self):
        """What a person would look at after a failure."""
        parts = [f"\n--- {self.output}\n{self.output.read_text()[-3000:]}"]
        parts += [f"--- {path}\n{path.read_text(errors='replace')[-1500:]}"
                  for path in sorted(self.dir.glob("logs/*")) if path.stat().st_size]
        return "\n".join(parts)

    def member(self, member_id):
        """pid of a live member, or None."""
        for pid, command in processes_of(self.dir).items():
            if member_id in command:
                return pid
        return None

    def await_member(self, member_id, seconds=30):
        return wait_until(lambda: self.member(member_id), seconds, f"{member_id} lives")

    def kill(self, *member_ids, apart=0.0):
        """kill -9 of members, `apart` seconds between one and the next."""
        pids = [self.await_member(member_id) for member_id in member_ids]
        for pid in pids:
            if pid != pids[0]:
                pause(apart)
            with contextlib.suppress(ProcessLookupError):  # it did not outlive the one before
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not set(pids) & set(processes_of(self.dir)), 10,
                   f"{member_ids} ({pids}) are gone")

    @contextlib.contextmanager
    def held(self):
        """While it lasts no step ends: what is sampled waits for a score."""
        pid = self.await_member("reward_server-0")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill_everything(self):
        """kill -9 of temper and all it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for pid in processes_of(self.dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.await_no_process()

    def await_no_process(self, seconds=10):
        wait_until(lambda: not processes_of(self.dir), seconds, f"no process of {self.dir} is left")

    # -- what it writes while it goes on

    def events(self, name=None):
        return [event for event in self.lines("events.jsonl") if name in (None, event["event"])]

    def lines(self, name):
        """The whole lines of a JSONL file that may still grow."""
        path = self.dir / name
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]

    def await_event(self, name, seconds=60, count=1, **fields):
        def seen():
            if self.process is not None and self.process.poll() not in (None, 0):
                raise AssertionError(f"temper run ended early{self.story()}")
            matching = [event for event in self.events(name)
                        if all(event.get(key) == value for key, value in fields.items())]
            return matching if len(matching) >= count else None
        return wait_until(seen, seconds, f"{count} x event {name} {fields} of {self.dir}")

    def await_step(self, step, seconds=60):
        return self.await_event("step_committed", seconds, step=step)

    def record(self):
        return json.loads((self.dir / "orchestrator.json").read_text())

    # -- what it left

    def metrics(self):
        return self.lines("metrics.jsonl")

    def summary(self):
        return json.loads((self.dir / "summary.json").read_text())

    def ledger(self, query):
        """Rows of a read-only query of the ledger."""
        with contextlib.closing(
                sqlite3.connect(f"file:{self.state_dir}/ledger.db?mode=ro", uri=True,
                                timeout=10)) as db:
            return db.execute(query).fetchall()

    @staticmethod
    def finished(folder):
        """A run that another test made and left."""
        run = Run.__new__(Run)
        run.folder, run.dir, run.process = folder, folder / "run", None
        run.state_dir = run.dir
        return run


def http_get(address, path, seconds=10):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=seconds) as answer:
        return answer.read().decode()


def file_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value, also=()):
    """A JSON value without the fields that equal runs may differ in."""
    if isinstance(value, dict):
        return {key: without_times(child, also) for key, child in value.items()
                if not key.endswith(TIMES) and key not in also}
    if isinstance(value, list):
        return [without_times(child, also) for child in value]
    return value


class RunTestCase(unittest.TestCase):
    """Checks that several tests make of a finished run."""

    maxDiff = 2000

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")

    def drawn(self, what, value):
        """Says what was drawn from self.random, so that a failure can be repeated; returns it."""
        print(f"TEMPER_TEST_SEED={SEED}: {what} {value}", file=sys.stderr, flush=True)
        return value

    def draw_step(self, low=1, high=STEPS // 2):
        """A step to strike after; enough are left that a slow test still strikes in the middle."""
        return self.drawn("step", self.random.randint(low, high))

    def check_accounting(self, run):
        """Attempts leased = endings + leased now + admitted; no group is trained twice."""
        [(leased,)] = run.ledger("SELECT value FROM numbers WHERE name = 'attempts_leased'")
        rows = run.ledger("SELECT state, ending, COUNT(*) FROM attempts GROUP BY state, ending")
        self.assertEqual(sum(count for _, _, count in rows), leased, f"attempts: {rows}")
        for state, ending, _ in rows:
            self.assertEqual(state == 3, ending != 0, f"an ended attempt has an ending: {rows}")
        twice = run.ledger(f"SELECT group_index FROM attempts WHERE ending = {TRAINED} "
                           "GROUP BY group_index HAVING COUNT(*) > 1")
        self.assertEqual(twice, [], "groups trained twice")

    def check_ended_clean(self, run):
        self.assertEqual(run.summary()["state"], "finished", run.summary())
        self.check_accounting(run)
        run.await_no_process()
        open_attempts = run.ledger("SELECT * FROM attempts WHERE state < 3")
        self.assertEqual(open_attempts, [], "attempts that never ended")

    def check_equal_results(self, run, other, ignored=("worker",), checkpoints=True):
        """Weights, optimizer state, samples and metrics: all but names of workers and times.

        checkpoints: both write them after the same steps.
        """
        mine, theirs = (sorted(path.name for path in (one.dir / "samples").iterdir())
                        for one in (run, other))
        self.assertEqual(mine, theirs)
        for name in mine:
            for one, two in zip(run.lines(f"samples/{name}"), other.lines(f"samples/{name}"),
                                strict=True):
                self.assertEqual(without_times(one, ignored), without_times(two, ignored), name)
        disturbed = ("timeline",) + DISTURBANCES + (() if checkpoints else ("quantization",))
        for one, two in zip(run.metrics(), other.metrics(), strict=True):
            self.assertEqual(without_times(one, disturbed), without_times(two, disturbed))
        last = f"checkpoints/step_{run.metrics()[-1]['step']}"
        for name in ("hf/model.safetensors", "state/optimizer.safetensors", "state/trainer.json"):
            self.assertEqual(file_hash(run.dir / last / name), file_hash(other.dir / last / name),
                             name)
        self.assertEqual(run.summary()["by_scale"], other.summary()["by_scale"])


class _Result(unittest.TextTestResult):
    """Prints skips the way GoogleTest does, so that one place counts the skips of all tests."""

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.stream.writeln(f"{sys.argv[0]}: Skipped\n{reason}\n[  SKIPPED ] {test.id()} (0 ms)")


def main():
    unittest.main(testRunner=unittest.TextTestRunner(verbosity=2, resultclass=_Result))
