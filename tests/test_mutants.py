"""Every mutant is refused, by the property that it names, at the profile in use; the correct backend is not."""

from collections import Counter

import numpy as np
import pytest

from opspec import OPERATIONS
from opspec.impls import load
from opspec.kernels import LANE
from opspec.tests.mutants import MUTANTS, kill_matrix
from opspec.tests.planted import Planted, backend, judge, plant, rewritten


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_is_killed(mutant: Planted, suite):
    if mutant.base == "triton" and LANE != "interpreter":
        pytest.skip("the planted kernels are sized for the interpreter")
    for seed in (suite.seed, suite.seed + 1):  # what one example in thirty shows, one run in sixty does not
        result = mutant.judge(seed, shrink=False)  # how small a case shows it, python -m opspec.tests.mutants tells
        if result.verdict in ("fail", "error"):
            return
    pytest.fail(f"{mutant} survived twice, the second time {result.examples} examples: {mutant.says}")


def test_the_correct_backend_passes_where_the_mutants_do_not(suite):
    for operation, property_, dtype in sorted({(m.operation, m.property, m.dtype) for m in MUTANTS}):
        if dtype != "bfloat16":  # in which there is no NumPy backend
            result = judge(backend((dtype,)), operation, property_, suite.seed, dtype, examples=20)
            assert result.verdict == "pass", (operation, property_, dtype, result.reason)


def test_every_operation_has_mutants_in_both_directions():
    counts = Counter((m.operation, m.direction) for m in MUTANTS)
    assert set(counts) == {(name, direction) for name in OPERATIONS for direction in ("forward", "gradient")}
    assert len(MUTANTS) >= 120


def test_mutants_have_names_of_their_own_and_say_what_they_are():
    assert max(Counter(map(str, MUTANTS)).values()) == 1
    assert all(m.says for m in MUTANTS)


def test_what_fails_only_now_and_then_is_refused(suite):
    calls = iter(range(10**6))

    def softmax(x):
        return load("numpy").module.softmax(x) * np.float32(1.5 if next(calls) == 37 else 1)

    result = plant(softmax, "softmax").judge(suite.seed)
    assert result.verdict == "fail" and "passed when it was repeated" in result.reason


def test_a_line_that_is_no_longer_there_is_an_error():
    with pytest.raises(ValueError, match="0 times, not once: 'no such line'"):
        rewritten(("no such line", ""))


def test_the_page_shows_what_was_judged_and_what_was_not():
    mutant = MUTANTS[0]
    kills = {n: {} for n in range(len(MUTANTS))} | {
        0: {mutant.property: kill_matrix.judge_one(0, mutant.property, 0, 1)}
    }
    row = next(line for line in kill_matrix.page(kills, 0, 1).splitlines() if line.startswith(f"| {mutant.name} "))
    assert row.count("**✗**") == 1 and "| ? |" in row and "`N=1 I=1 O=1 " in row
