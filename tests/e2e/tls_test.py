"""A run under TLS: every process shows its certificate, and who has none of the right kind stays out."""

import os
import shutil
import signal
import subprocess
import unittest

from run_fixture import BIN, UNDISTURBED, Run, RunTestCase, fresh_folder, main, temper


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Authority:
    """A certificate authority, and certificates of it that hold for server and client."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "2", "-subj", f"/CN={folder.name}", "-keyout", folder / "ca.key",
                "-out", folder / "ca.pem")

    def certificate(self, name, subject_alt_names="IP:127.0.0.1"):
        """network.tls_* of a process that shows a certificate of this authority."""
        stem = self.folder / name
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={subject_alt_names}\n")
        openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", self.folder / "ca.pem",
                "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", f"{stem}.ext", "-out", f"{stem}.pem")
        return {"tls_certificate": f"{stem}.pem", "tls_key": f"{stem}.key",
                "tls_ca": str(self.folder / "ca.pem")}


def flags(network):
    return [word for key, path in network.items() for word in ("--" + key.replace("_", "-"), path)]


class Tls(RunTestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("openssl") is None:
            raise unittest.SkipTest("there is no `openssl` command")
        cls.folder = fresh_folder("tls_certificates")
        cls.ours = Authority(cls.folder / "ours")
        cls.foreign = Authority(cls.folder / "foreign")

    def test_a_run_under_tls_gives_the_result_it_gives_without(self):
        with Run("tls", {"network": self.ours.certificate("every-role")}) as run:
            run.start()
            run.await_step(1)
            worker = run.await_member("rollout_worker-0")
            os.kill(worker, signal.SIGSTOP)  # the run waits for us
            status = temper("status", run.dir)
            self.assertEqual(status.returncode, 0, status.stderr)
            self.assertIn("learner-0", status.stdout)
            scaled = temper("scale", run.dir, "rollout_workers=2")
            self.assertEqual(scaled.returncode, 0, scaled.stderr)
            run.await_event("join", member="rollout_worker-1")
            os.kill(worker, signal.SIGCONT)
            run.finish()
            self.check_ended_clean(run)
            self.check_equal_results(run, Run.finished(UNDISTURBED), ("worker", "attempt"))
            samples = temper("samples", run.dir, "--step", 1)
            self.assertEqual(samples.returncode, 0, samples.stderr)

    def test_who_shows_no_certificate_of_the_runs_authority_stays_out(self):
        changes = {"network": self.ours.certificate("every-role"), "eval": {"enabled": False},
                   "local": {"rollout_workers": 0}}
        trusted = self.ours.certificate("trusted")
        bare = {"tls_ca": trusted["tls_ca"]}  # trusts the run, has nothing to show
        stranger = self.foreign.certificate("stranger") | bare
        distrustful = trusted | {"tls_ca": str(self.foreign.folder / "ca.pem")}
        with Run("tls_strangers", changes) as run:
            run.start()
            run.await_event("version_out", version=0)
            address = run.record()["address"]
            outside = {"plain": {}, "bare": bare, "stranger": stranger, "distrustful": distrustful}
            processes = {
                name: subprocess.Popen(
                    [BIN / "temper-rollout-worker", "--join", address, "--member-id", name,
                     "--log-file", run.folder / f"{name}.log",
                     *flags(network)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for name, network in outside.items()}
            for name, process in processes.items():
                _, said = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 1, f"{name}: {said}")
                self.assertIn(address.encode(), said, name)
                self.assertIn(b"TLS", said, name)
            joined = {event["member"] for event in run.events("join")}
            self.assertEqual(joined & set(outside), set())

            friend = subprocess.Popen(
                [BIN / "temper-rollout-worker", "--join", address, "--member-id", "trusted",
                 "--log-file", run.folder / "trusted.log", *flags(trusted)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(friend.kill)
            run.finish()
            self.assertEqual(friend.wait(20), 0)
            self.assertEqual(run.ledger("SELECT DISTINCT worker FROM attempts"), [("trusted",)])


if __name__ == "__main__":
    main()
