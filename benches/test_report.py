"""Medians, ideals and verdicts of the benchmark's report."""

import unittest

from driver.judge import interval, parts, to_best, verdict
from driver.report import digits, goal_text, main_table, spread, summarise
from driver.rows import PEERS, ROWS, Goal, Row, takes_part
from driver.plot import STYLES


def row(goal=Goal(of_best=1), **more):
    return Row("name", "title", "µs", 1e3, goal, **more)


class Summary(unittest.TestCase):
    def test_medians_decide(self):
        summary = summarise(row(), {"ours": [9, 1, 2], "rayon": [4, 4, 400], "chili": [5], "serial": [8]}, cpus=2)
        self.assertEqual(summary["median_ns"], {"ours": 2, "rayon": 4, "chili": 5, "serial": 8})
        self.assertEqual(summary["best_peer"], "rayon")
        self.assertEqual(summary["to_ours"]["chili"], 2.5)

    def test_the_plain_loop_is_no_peer(self):
        self.assertIsNone(summarise(row(), {"ours": [2], "serial": [1]}, cpus=2)["best_peer"])

    def test_ours_in_a_phase_is_no_peer_and_has_a_goal_and_a_line_of_its_own(self):
        hot = row(variants={"ours-phase": Goal(of_best=1)})
        summary = summarise(hot, {"ours": [9], "ours-phase": [4], "rayon": [5]}, cpus=2)
        self.assertEqual(summary["best_peer"], "rayon")
        lines = main_table([hot], {"name": summary})
        self.assertEqual([line[0] for line in lines[1:]], ["title", "title, in a phase"])
        self.assertEqual([line[-1] for line in lines[1:]], ["no", "yes"])

    def test_it_is_measured_for_latency_but_not_where_the_peers_should_sleep(self):
        phase = next(peer for peer in PEERS if peer.name == "ours-phase")
        rows = {r.name for r in ROWS if takes_part(phase, r)}
        self.assertEqual(rows, {"empty", "tasks-1us", "gap-100us", "gap-2ms"})

    def test_a_peer_that_failed_has_no_figure(self):
        summary = summarise(row(), {"ours": [2], "rayon": [], "chili": [3]}, cpus=2)
        self.assertEqual(summary["best_peer"], "chili")
        self.assertNotIn("rayon", summary["to_ours"])

    def test_ideal_spreads_the_plain_loop_over_the_cpus(self):
        values = {"ours": [60], "serial": [160]}
        self.assertEqual(summarise(row(), values, cpus=16)["ideal_ns"], 10)
        self.assertEqual(summarise(row(serial_cpus=4), values, cpus=16)["ideal_ns"], 40)
        self.assertEqual(summarise(row(serial_cpus=4), values, cpus=2)["ideal_ns"], 160)
        self.assertEqual(summarise(row(fill=True), values, cpus=16)["ideal_ns"], 160)
        self.assertIsNone(summarise(row(serial_cpus=0), values, cpus=16)["ideal_ns"])

    def test_spread_needs_three_rounds(self):
        self.assertIsNone(spread([1, 2]))
        self.assertEqual(spread([8, 9, 10, 11, 12]), 0.1)


class Goals(unittest.TestCase):
    def check(self, goal, at, fails_at):
        values = {"serial": [200.0], "rayon": [100.0], "chili": [120.0]}
        self.assertEqual(verdict(goal, {**values, "ours": [at]}, ideal_share=0.45), "yes")
        self.assertEqual(verdict(goal, {**values, "ours": [fails_at]}, ideal_share=0.45), "no")

    def test_each_kind(self):
        self.check(Goal(at_most_ns=50), 50, 51)
        self.check(Goal(of_best=0.9), 90, 91)
        self.check(Goal(of_ideal=0.9), 99, 101)
        self.check(Goal(of_serial=1.05), 210, 211)
        self.check(Goal(above_ideal_ns=30), 120, 121)
        self.check(Goal(ahead_of=("chili",)), 120, 121)

    def test_all_parts_must_hold(self):
        self.check(Goal(at_most_ns=1000, of_best=1), 100, 101)

    def test_what_was_not_measured_is_not_decided(self):
        self.assertEqual(verdict(Goal(of_best=1), {"ours": [1.0]}, None), "?")
        self.assertEqual(verdict(Goal(ahead_of=("onetbb",)), {"ours": [1.0]}, None), "?")
        self.assertEqual(verdict(Goal(at_most_ns=1), {}, None), "?")
        self.assertEqual(verdict(Goal(of_ideal=1), {"ours": [1.0], "serial": [1.0]}, None), "?")

    def test_figures_of_one_round_are_compared(self):
        # The machine is half as fast in three rounds of five; ours is the slower one in each.
        values = {"ours": [11, 22, 11, 22, 22], "rayon": [10, 20, 10, 20, 20]}
        self.assertEqual(to_best(values), [1.1] * 5)
        self.assertEqual(verdict(Goal(of_best=1), values, None), "no")

    def test_a_peer_is_not_the_best_by_the_luck_of_the_round_that_it_is_compared_in(self):
        values = {"ours": [10] * 4, "rayon": [5, 11, 11, 11], "chili": [10] * 4}
        self.assertEqual(to_best(values), [1] * 4)

    def test_the_best_peer_of_one_round_is_that_round_s(self):
        self.assertEqual(to_best({"ours": [3], "rayon": [2], "chili": [4], "serial": [1]}), [1.5])

    def test_a_median_just_above_the_goal_may_be_there_by_noise(self):
        goal, rayon = Goal(of_best=1), [100.0] * 7
        self.assertEqual(verdict(goal, {"ours": [99, 98, 101, 99, 102, 99, 103], "rayon": rayon}, None), "yes")
        self.assertEqual(verdict(goal, {"ours": [101, 98, 101, 99, 102, 102, 103], "rayon": rayon}, None), "within noise")
        self.assertEqual(verdict(goal, {"ours": [101, 104, 101, 105, 102, 102, 103], "rayon": rayon}, None), "no")
        self.assertEqual(verdict(goal, {"ours": [99, 101, 101], "rayon": rayon[:3]}, None), "no")

    def test_the_worst_part_is_the_verdict(self):
        values = {"ours": [101, 98, 101, 99, 102, 102, 103], "rayon": [100.0] * 7}
        self.assertEqual(verdict(Goal(of_best=1, at_most_ns=50), values, None), "no")
        self.assertEqual(len(parts(Goal(of_best=1, at_most_ns=50), values, None)), 2)

    def test_where_a_median_lies_by_the_sign_test(self):
        self.assertIsNone(interval([1, 2, 3, 4]))
        self.assertEqual(interval([5, 4, 3, 2, 1]), (1, 5))  # 2/32 are outside
        self.assertEqual(interval(list(range(8))), (1, 6))  # 2 (1 + 8)/256
        self.assertEqual(interval(list(range(12))), (2, 9))  # 2 (1 + 12 + 66)/4096

    def test_text(self):
        self.assertEqual(goal_text(Goal(at_most_ns=200)), "≤ 0.2 µs")
        self.assertEqual(goal_text(Goal(of_best=1, of_ideal=0.97)), "≤ best; ≥ 97% of ideal")

    def test_three_digits(self):
        self.assertEqual([digits(x) for x in (0.01234, 0.1234, 1.234, 12.34, 1234.5)], ["0.012", "0.12", "1.23", "12.3", "1,234"])


class Tables(unittest.TestCase):
    def test_names_are_unique_and_goals_name_peers(self):
        names = [r.name for r in ROWS] + [p.name for p in PEERS]
        self.assertEqual(len(names), len(set(names)))
        for r in ROWS:
            self.assertLessEqual(set(r.goal.ahead_of), {p.name for p in PEERS})

    def test_the_picture_shows_every_peer(self):
        self.assertEqual(set(STYLES), {p.name for p in PEERS} - {"ours"})


if __name__ == "__main__":
    unittest.main()
