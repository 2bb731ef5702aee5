"""Runs the dependency rule on this checkout, and on planted violations it must see."""

import os
import pathlib
import subprocess
import sys
import unittest

from dependency_rule import check_links, check_needed, check_sources

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".deps", "build", "runs"}
WITHOUT_TORCH = ["temper-orchestrator", "temper-reward-server"]


def files_of(*patterns):
    """Path from the root -> text, of all our files that match one of the patterns."""
    found = {}
    for entry in sorted(ROOT.iterdir()):
        if entry.is_dir() and entry.name not in NOT_OURS:
            for pattern in patterns:
                for path in entry.rglob(pattern):
                    found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    return found


class TheTree(unittest.TestCase):
    def test_includes_follow_the_rule(self):
        files = files_of("*.h", "*.cc", "*.cu", "*.cuh")
        self.assertGreater(len(files), 50, "the sources were not found")
        violations = check_sources(files)
        self.assertEqual(violations, [], "\n" + "\n".join(violations))

    def test_link_lists_follow_the_rule(self):
        lists = files_of("CMakeLists.txt")
        self.assertGreater(len(lists), 5, "the lists were not found")
        violations = check_links(lists)
        self.assertEqual(violations, [], "\n" + "\n".join(violations))

    def test_orchestrator_and_reward_server_load_no_libtorch(self):
        programs = pathlib.Path(os.environ.get("TEMPER_BIN_DIR", ROOT / "build/release/bin"))
        for name in WITHOUT_TORCH:
            program = programs / name
            if not program.exists():
                self.skipTest(f"needs {program}")
            listing = subprocess.run(["ldd", program], check=True, capture_output=True, text=True, timeout=60)
            libraries = [line.split()[0].rsplit("/", 1)[-1] for line in listing.stdout.splitlines()]
            self.assertTrue(any(library.startswith("libgrpc") for library in libraries), libraries)
            self.assertEqual(check_needed(name, libraries), [])


class PlantedViolations(unittest.TestCase):
    def assert_seen(self, violations, *words):
        self.assertEqual(len(violations), 1, violations)
        for word in words:
            self.assertIn(word, violations[0])

    def test_sideways_include(self):
        seen = check_sources({"learner/batch.cc": '\n#include "orchestrator/ledger.h"\n'})
        self.assert_seen(seen, "learner/batch.cc:2", "orchestrator")

    def test_include_that_points_up(self):
        self.assert_seen(check_sources({"services/base/log.cc": '#include "services/rpc/client.h"'}), "services/rpc")
        self.assert_seen(check_sources({"orchestrator/a.cc": '#include "cli/commands.h"'}), "cli")

    def test_libtorch_in_the_wrong_room(self):
        self.assert_seen(check_sources({"reward_server/a.cc": "#include <ATen/core/Tensor.h>"}), "LibTorch")
        self.assert_seen(check_sources({"model/io/a.cc": "#include <c10/core/Device.h>"}), "LibTorch")
        self.assert_seen(check_sources({"model/a.h": "#include <torch/torch.h>"}), "narrow")

    def test_grpc_outside_of_its_files(self):
        self.assert_seen(check_sources({"learner/step.cc": '#include "grpcpp/channel.h"'}), "gRPC")
        self.assert_seen(check_sources({"learner/step.h": '#include "temper/v1/learner.grpc.pb.h"'}), "gRPC")

    def test_relative_include(self):
        self.assert_seen(check_sources({"learner/a.cc": '#include "../learner/b.h"'}), "from the root")

    def test_room_without_a_line(self):
        self.assert_seen(check_sources({"helpers/a.cc": ""}), "helpers/a.cc")

    def test_link_that_points_up_or_to_libtorch(self):
        lists = {
            "services/base/CMakeLists.txt": "temper_library(base SOURCES a.cc\n  DEPS temper_rpc)",
            "services/rpc/CMakeLists.txt": "temper_library(rpc SOURCES b.cc DEPS temper_base)",
        }
        self.assert_seen(check_links(lists), "temper_base links temper_rpc")
        lists = {"orchestrator/CMakeLists.txt": "temper_binary(temper-orchestrator SOURCES main.cc DEPS temper_torch)"}
        self.assert_seen(check_links(lists), "LibTorch")

    def test_libtorch_at_run_time(self):
        self.assert_seen(check_needed("temper-orchestrator", ["libgrpc.so.29", "libc10.so"]), "libc10.so")

    def test_what_is_allowed_is_silent(self):
        allowed = {
            "learner/learner_service.cc": '#include "temper/v1/learner.grpc.pb.h"\n#include "model/forward.h"',
            "rollout_worker/main.cc": '#include "grpcpp/server.h"\n#include "services/config/run_config.h"',
            "tests/unit/learner/a_test.cc": '#include "orchestrator/ledger.h"\n#include "learner/batch.h"',
            "numerics/a.cc": '#include "numerics/b.h"\n#include <immintrin.h>',
        }
        self.assertEqual(check_sources(allowed), [])


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main(verbosity=2)
