"""tools/hopper_figures.py with a program in braid's place that writes what a bench writes."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

FAKE = """#!{python}
import json, sys
to, what = sys.argv[sys.argv.index("--json") + 1], sys.argv[2]
written = json.loads({written!r}).get(what)
if written is None:
    print("braid: no such luck")
    sys.exit(3)
with open(to, "w") as file:
    json.dump(written, file)
"""


def decode_rows(ms, ratio):
    return {"rows": [{"batch": batch, "adapters": adapters, "ms_per_step": ms, "ratio": ratio, "floor_ratio": 0.95}
                     for batch in (1, 16, 64) for adapters in (0, 1, 8)]}


class HopperFigures(unittest.TestCase):
    def run_tool(self, written, *options):
        with tempfile.TemporaryDirectory() as folder:
            braid = pathlib.Path(folder) / "braid"
            braid.write_text(FAKE.format(python=sys.executable, written=json.dumps(written)))
            braid.chmod(0o755)
            done = subprocess.run(
                [sys.executable, ROOT / "tools/hopper_figures.py", "--braid", braid, "--out", f"{folder}/out", *options],
                capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def test_what_is_fast_enough_passes(self):
        code, out, _ = self.run_tool({"decode": decode_rows(1.9, 0.945)}, "--only", "decode")
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"decode, batch 1 +1\.9 ms +<= 2\.3 +2 +aim\n")
        self.assertRegex(out, r"batch 64, 8 adapters, below what bytes allow +0\.5 points +<= 3\n")

    def test_what_misses_is_named(self):
        code, out, _ = self.run_tool({"decode": decode_rows(2.2, 0.91)}, "--only", "decode")
        self.assertEqual(code, 2, out)
        self.assertRegex(out, r"batch 16, 1 adapter, of base +91 % +>= 92 +94 +misses\n")
        self.assertRegex(out, r"batch 1, 1 adapter, of base +91 % +>= 88 +90 +aim\n")

    def test_a_swap_is_held_against_quiet_steps(self):
        steps = [{"beside": "alone", "p99_ms": 6.0}, {"beside": "while one is swapped in", "p99_ms": 9.0}]
        code, out, _ = self.run_tool({"swap": {"steps": steps}}, "--only", "swap")
        self.assertEqual(code, 2, out)
        self.assertRegex(out, r"1\.5 x +<= 1\.2 +misses\n")

    def test_a_bench_that_fails_is_said_and_the_others_go_on(self):
        code, out, err = self.run_tool({"decode": decode_rows(1.9, 0.945)}, "--only", "decode,prefill")
        self.assertEqual(code, 1)
        self.assertIn("prefill: exit status 3: braid: no such luck\n", err)
        self.assertIn("decode, batch 64", out)

    def test_nothing_measured(self):
        code, out, _ = self.run_tool({}, "--only", "decode")
        self.assertEqual((code, out), (1, "nothing was measured\n"))

    def test_what_has_no_bound_is_not_called_unmeasured(self):
        code, out, _ = self.run_tool({"linear": {"rows": [{"tokens": 1, "adapters": 0, "us": 4.7}]}}, "--only", "linear")
        self.assertEqual(code, 0)
        self.assertIn("nothing that was measured has a bound: its tables are in ", out)

    def test_unused_adapters_are_not_taken_for_used_ones(self):
        rows = [{"tokens": 8192, "adapters": n, "us": 1.0, "ratio": ratio, "tflops": 810, "bound_share": 0.8}
                for n, ratio in ((0, 1.0), (1, 0.91), (8, 0.89), (8, 0.97))]
        code, out, _ = self.run_tool({"layer": {"rows": rows}}, "--only", "large")
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"MoE 30b, T 8192, 8 adapters, below 1 +2 points +<= 3\n")

    def test_unknown_groups_are_refused(self):
        code, _, err = self.run_tool({}, "--only", "decode,speed")
        self.assertEqual(code, 2)
        self.assertIn("--only speed: need some of attention, decode", err)


if __name__ == "__main__":
    unittest.main()
