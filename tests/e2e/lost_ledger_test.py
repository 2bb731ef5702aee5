"""A run whose ledger is lost goes on from the copy in its newest checkpoint, with equal results."""

from run_fixture import UNDISTURBED, Run, RunTestCase, main, temper

GARBAGE = b"these are not the pages you wrote\n" * 1000


class LostLedger(RunTestCase):
    def killed_in_the_middle(self, name):
        run = Run(name)
        self.addCleanup(run.kill_everything)
        run.start("local.rollout_workers=2")
        run.await_step(12)
        run.kill_everything()
        return run

    def check_resumes_equal(self, run, reason):
        run.start("--resume", "auto").finish()
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED))
        [restored] = run.events("ledger_restored")
        self.assertIn(reason, restored["reason"])
        self.assertTrue(restored["from"].endswith("/state/ledger.db"), restored)
        timelines = [event["timeline"] for event in run.events("timeline_begun")]
        self.assertEqual(timelines, [1, 2])
        lost = list(run.dir.glob("rewound/metrics.lost_ledger-*.jsonl"))
        self.assertEqual(len(lost), 1, "the lines of the ledger that is lost are kept")
        return restored

    def test_deleted_it_is_restored(self):
        run = self.killed_in_the_middle("deleted_ledger")
        for path in run.dir.glob("ledger.db*"):
            path.unlink()
        restored = self.check_resumes_equal(run, "there is no")
        self.assertEqual(restored["moved_aside"], "")

    def test_a_restart_by_the_supervisor_begins_nothing_in_its_place(self):
        run = Run("vanished_ledger")
        self.addCleanup(run.kill_everything)
        run.start("local.rollout_workers=2")
        run.await_step(12)
        for path in run.dir.glob("ledger.db*"):
            path.unlink()
        run.kill("orchestrator-0")
        run.finish(60, code=4)
        self.assertIn("--resume auto restores it", run.output.read_text())
        self.assertFalse((run.dir / "ledger.db").exists(), "nothing took its place")
        # A learner that stopped without an orchestrator wrote what it had committed, without a copy.
        for checkpoint in run.dir.glob("checkpoints/step_*"):
            if not (checkpoint / "state/ledger.db").exists():
                refused = temper("run", run.dir, "--resume", "auto")
                self.assertIn(f"{checkpoint} holds no copy", refused.stderr)
                checkpoint.rename(run.folder / checkpoint.name)
        self.check_resumes_equal(run, "there is no")

    def test_overwritten_it_is_moved_aside_and_restored(self):
        run = self.killed_in_the_middle("overwritten_ledger")
        for path in run.dir.glob("ledger.db*"):
            path.write_bytes(GARBAGE)
        restored = self.check_resumes_equal(run, "not a database")
        aside = run.dir / restored["moved_aside"].rsplit("/", 1)[1]
        self.assertIn("ledger.db.corrupt-", aside.name)
        self.assertEqual(aside.read_bytes(), GARBAGE)

    def test_a_copy_is_in_every_checkpoint_of_the_undisturbed_run(self):
        checkpoints = list((UNDISTURBED / "run/checkpoints").glob("step_*"))
        self.assertTrue(checkpoints)
        for checkpoint in checkpoints:
            ledger = (checkpoint / "state/ledger.db").read_bytes()
            self.assertTrue(ledger.startswith(b"SQLite format 3\0"), checkpoint)
            self.assertIn("state/ledger.db", (checkpoint / "MANIFEST.json").read_text())


if __name__ == "__main__":
    main()
