"""The judge judged: every way in which checkers of others have been vacuous (or refused what was right) is tried on it."""

import types

import numpy as np
import pytest

from opspec import OPERATIONS, Arithmetic
from opspec.impls import Backend, load
from opspec.tests.cases import Case
from opspec.tests.conformance import Cell, Runner
from opspec.tests.judge import Judgement, Statistics, judge_all, sensitivity, tolerance_factor
from opspec.tests.oracle import expect, trivial_answers
from opspec.tests.properties import PROPERTIES
from opspec.tests.report import explain

NUMPY = load("numpy")
NOTHING_TRIVIAL = sensitivity([], {})


def expectations(operation, words, dtype="float32", **arithmetic):
    op = OPERATIONS[operation]
    drawn = Case.parse(op, words).draw(dtype)
    return drawn, expect(op.function, drawn.arrays, drawn.parameters, Arithmetic(dtype, **arithmetic), op.outputs)


def backend(**functions):
    """A plug-in with these functions, judged in float32."""
    module = types.ModuleType("planted")
    module.dtypes = ("float32",)
    for name, function in functions.items():
        setattr(module, name, function)
    return Backend(module, "planted.py")


def judge(property_, operation, words, **functions):
    return PROPERTIES[property_].judge(backend(**functions), "float32", Case.parse(OPERATIONS[operation], words))


def verdict(operation, property_, examples=40, **functions):
    return Runner(0, examples=examples).run(Cell(backend(**functions), OPERATIONS[operation], "float32", property_))


DENSE = "N=4 I=9 O=5 activation=tanh values=normal layout=plain seed=3"
SOFTMAX = "N=3 M=9 values=normal layout=plain seed=1"


def right(operation, words, dtype="float32"):
    drawn, expected = expectations(operation, words, dtype)
    return expected, [e.truth.high.astype(dtype) for e in expected]


def test_the_truth_rounded_to_storage_passes():
    expected, answer = right("dense", DENSE)
    assert judge_all(expected, answer, NOTHING_TRIVIAL).reason == "no trivial answer is wrong here"
    drawn, _ = expectations("dense", DENSE)
    op = OPERATIONS["dense"]
    trivial = trivial_answers(
        op, op.function, drawn.arrays, drawn.parameters, [e.truth.high for e in expected], 0.01, (0, 1)
    )
    judgement = judge_all(expected, answer, sensitivity(expected, trivial))
    assert judgement.verdict == "pass"
    assert set(judgement.refused) == {
        "zeros",
        "a constant",
        "a 1 % scale",
        *(k for k in trivial if k.startswith("ignoring")),
    }


def test_nan_where_a_number_is_expected_fails():
    expected, (y,) = right("dense", DENSE)
    y[2, 1] = np.nan
    judgement = judge_all(expected, [y], NOTHING_TRIVIAL)
    assert judgement.failed and judgement.index == (2, 1) and judgement.reason == "NaN, expected a finite number"


def test_a_number_where_nan_is_expected_fails():
    """A NaN in the reference accepts nothing but NaN."""
    op = OPERATIONS["dense"]
    drawn, _ = expectations("dense", DENSE)
    drawn.arrays[0][1, 0] = np.nan
    expected = expect(op.function, drawn.arrays, drawn.parameters, Arithmetic("float32"), op.outputs, certified=False)
    assert np.isnan(expected[0].truth.high[1]).all() and np.isfinite(expected[0].truth.high[0]).all()
    answer = expected[0].truth.high.astype(np.float32)
    assert not judge_all(expected, [answer], NOTHING_TRIVIAL).failed
    answer[1, 2] = 0
    assert judge_all(expected, [answer], NOTHING_TRIVIAL).reason == "a finite number, expected NaN"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: y[:1], "shape (1, 5), expected (4, 5)"),
        (lambda y: y[None], "shape (1, 4, 5), expected (4, 5)"),
        (lambda y: y.astype(np.float64), "dtype float64, expected float32"),
        (lambda y: y.tolist(), "returned list, expected an array"),
        (lambda y: None, "returned NoneType, expected an array"),
    ],
    ids=["broadcastable", "axis_more", "wider_dtype", "list", "none"],
)
def test_shape_and_dtype_come_before_values(change, reason):
    expected, (y,) = right("dense", DENSE)
    assert judge_all(expected, [change(y)], NOTHING_TRIVIAL).reason == reason


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_missing_or_surplus_output_fails(number):
    expected, answer = right("lstm", "T=2 N=1 I=2 H=3 values=normal layout=plain seed=0")
    assert judge_all(expected, (answer * 2)[:number], NOTHING_TRIVIAL).failed
    assert not judge_all(expected, answer, NOTHING_TRIVIAL).failed


@pytest.mark.parametrize("wrong", [0, 1])
def test_every_output_counts(wrong):
    """Not the last one's verdict alone."""
    expected, answer = right("lstm", "T=2 N=1 I=2 H=3 values=normal layout=plain seed=0")
    answer[wrong] = answer[wrong] * np.float32(1.001)
    judgement = judge_all(expected, answer, NOTHING_TRIVIAL)
    assert judgement.failed and judgement.output == ("h", "c_T")[wrong]


def test_one_ulp_too_many_is_seen_where_nothing_may_be_rounded():
    expected, (y,) = right("maxpool2d", "N=1 H=3 W=3 C=2 window=2x2 values=normal layout=plain seed=0")
    assert not judge_all(expected, [y], NOTHING_TRIVIAL).failed
    y[0, 1, 0, 1] = np.nextafter(y[0, 1, 0, 1], np.float32(9))
    assert judge_all(expected, [y], NOTHING_TRIVIAL).index == (0, 1, 0, 1)


def test_infinity_is_expected_where_the_format_ends():
    expected, (y,) = right("mse", "N=3 O=3 values=huge layout=plain seed=1", "float16")
    assert expected[0].truth.high < 65504
    drawn, _ = expectations("mse", "N=3 O=3 values=normal layout=plain seed=1", "float16")
    arrays = tuple((a.astype(np.float64) * 300).astype(np.float16) for a in drawn.arrays)
    op = OPERATIONS["mse"]
    expected = expect(op.function, arrays, {}, Arithmetic("float16"), op.outputs)
    assert expected[0].truth.high > 65520
    assert not judge_all(expected, [np.array(np.inf, np.float16)], NOTHING_TRIVIAL).failed
    assert judge_all(expected, [np.array(65504, np.float16)], NOTHING_TRIVIAL).failed
    assert judge_all(expected, [np.array(-np.inf, np.float16)], NOTHING_TRIVIAL).failed


def test_an_example_that_refuses_nothing_is_inconclusive():
    """An exp that may be wrong by 6 % leaves so wide a tolerance that 1 % more would pass, too."""
    drawn, expected = expectations("softmax", SOFTMAX, function_ulps=1e6)
    op = OPERATIONS["softmax"]
    truths = [e.truth.high for e in expected]
    trivial = trivial_answers(op, op.function, drawn.arrays, {}, truths, 0.01, (0,))
    judgement = judge_all(expected, [truths[0].astype(np.float32)], sensitivity(expected, trivial))
    assert (judgement.verdict, judgement.reason) == ("inconclusive", "a 1 % scale would pass")


def test_a_declaration_of_nonsense_makes_cells_inconclusive_and_red():
    module = backend(dense=NUMPY.module.dense, dense_vjp=NUMPY.module.dense_vjp).module
    module.arithmetic = lambda op, dtype: Arithmetic("float32", "bfloat16", accumulator="bfloat16", function_ulps=1000)
    cell = Cell(Backend(module, "loose.py"), OPERATIONS["dense"], "float32", "forward")
    result = Runner(0, examples=100).run(cell)
    assert result.verdict == "inconclusive" and "would pass" in result.reason


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [("N=64 I=8 O=8", "bias: the errors lean towards zero"), ("N=13 I=1 O=1", "RMS: the errors' root mean square")],
)
def test_a_failure_of_all_elements_together_blames_none(sizes, reason):
    """Every element an ulp or so too small, which is no element's fault."""
    short, dense = np.float32(1 - 2.0**-23), NUMPY.module.dense
    planted = backend(dense=lambda *arrays, **parameters: dense(*arrays, **parameters) * short)
    cell = Cell(planted, OPERATIONS["dense"], "float32", "forward")
    words = explain(Runner(0, f"{sizes} values=normal layout=plain seed=0").run(cell))
    assert "each element is within its tolerance, all together are not; the worst: y[" in words
    assert f"reason: {reason}" in words


def test_nothing_judged_is_not_a_pass():
    """all([]) is true; a cell without examples is not."""

    def never(*arrays, **parameters):
        raise NotImplementedError("not today")

    result = verdict("softmax", "forward", softmax=never)
    assert (result.verdict, result.reason, result.examples) == ("unsupported", "not today", 0)


def test_an_exception_is_an_error_with_its_trace():
    result = verdict("softmax", "forward", softmax=lambda x: 1 / 0)
    assert result.verdict == "error" and "ZeroDivisionError" in result.reason
    assert "test_judge.py" in result.counterexample["traceback"]


def test_a_gradient_that_is_none_fails():
    """Two gradients that are both missing are not equal."""
    result = verdict("softmax", "gradient", softmax=NUMPY.module.softmax, softmax_vjp=lambda x, dy: (None,))
    assert result.verdict == "fail" and "NoneType" in result.reason


def test_a_missing_gradient_is_unsupported():
    assert verdict("softmax", "gradient", softmax=NUMPY.module.softmax).verdict == "unsupported"


def test_inputs_that_are_modified_fail():
    def softmax(x):
        y = NUMPY.module.softmax(x)
        x *= 1
        x[...] = 0
        return y

    assert judge("forward", "softmax", SOFTMAX, softmax=softmax).reason == "input x was modified"


def test_an_in_place_kernel_that_is_right_otherwise_fails():
    """The reference run does not share its inputs with it."""

    def softmax(x):
        x[...] = NUMPY.module.softmax(x)
        return x

    assert judge("forward", "softmax", SOFTMAX, softmax=softmax).failed


def test_an_output_buffer_that_is_reused_fails():
    buffers = {}

    def softmax(x):
        y = buffers.setdefault(x.shape, np.empty_like(x))
        calls = buffers[x.shape, "calls"] = buffers.get((x.shape, "calls"), 0) + 1
        y[...] = NUMPY.module.softmax(x) if calls == 1 else np.nextafter(NUMPY.module.softmax(x), np.float32(9))
        return y

    assert (
        judge("forward", "softmax", SOFTMAX, softmax=softmax).reason
        == "a second call changed what the first had returned"
    )


def test_only_the_second_call_is_wrong():
    calls = []

    def softmax(x):
        calls.append(x)
        return NUMPY.module.softmax(x) * np.float32(1 if len(calls) % 2 else 1.01)

    assert judge("forward", "softmax", SOFTMAX, softmax=softmax).reason.startswith("second call")


def test_uninitialised_output_is_seen():
    def dense(x, W, b, activation="identity"):
        y = np.full((x.shape[0], W.shape[1]), np.nan, x.dtype)
        y[:-1] = NUMPY.module.dense(x, W, b, activation=activation)[:-1]
        return y

    assert judge("forward", "dense", DENSE, dense=dense).reason == "NaN, expected a finite number"


def test_reading_beyond_an_array_meets_nan():
    """Arrays lie between bands of NaN, so that what a stride ignored reads shows."""

    def softmax(x):
        flat = np.lib.stride_tricks.as_strided(x, x.shape, (x.shape[1] * x.itemsize, x.itemsize))
        return NUMPY.module.softmax(np.ascontiguousarray(flat))

    assert judge("forward", "softmax", SOFTMAX, softmax=softmax).verdict == "pass"
    result = judge("layout", "softmax", SOFTMAX.replace("plain", "sliced"), softmax=softmax)
    assert result.failed and "NaN" in result.reason


@pytest.mark.parametrize("operation", ["rnn", "lstm"])
def test_initial_states_are_never_zero(operation):
    op = OPERATIONS[operation]
    for seed in range(20):
        sizes = "T=2 N=2 I=2 H=2 " + ("O=2 " if operation == "rnn" else "")
        drawn = Case.parse(op, f"{sizes}values=normal layout=plain seed={seed}").draw("float32")
        assert np.all(drawn.arrays[1] != 0)


def test_tolerance_factor_is_students_quantile():
    """p = 10⁻⁹ two-sided with 31 degrees of freedom: 8.35 (Student), 6.11 (normal, many)."""
    assert tolerance_factor(1, 31) == pytest.approx(8.55, abs=0.2)
    assert tolerance_factor(1, 100_000) == pytest.approx(6.11, abs=0.02)
    assert tolerance_factor(10**6, 31) > tolerance_factor(10**3, 31) > tolerance_factor(1, 31)


def statistics(bias, rms, n=400, replicates=31, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((replicates + 1, n))
    z[0] = z[0] * rms + bias
    return Statistics(z.sum(axis=1), (z * z).sum(axis=1), n)


def test_bias_and_rms_see_what_no_element_shows():
    assert statistics(0, 1).verdict(4) == ""
    assert "bias" in statistics(1, 1).verdict(4)
    assert "bias" in statistics(-1, 1).verdict(4)
    assert "RMS" in statistics(0, 2).verdict(4)
    assert statistics(0, 0.01).verdict(4) == "", "errors smaller than expected are welcome"


def test_statistics_add_up_over_a_cell():
    """A bias too small for one example shows over two hundred."""
    one = [statistics(0.2, 1, n=40, seed=s) for s in range(200)]
    assert all(s.verdict(4) == "" for s in one)
    total = one[0]
    for s in one[1:]:
        total = total + s
    assert "bias" in total.verdict(4)


def test_the_last_failure_is_the_smallest():
    def dense(x, W, b, activation="identity"):
        y = NUMPY.module.dense(x, W, b, activation=activation)
        return y * np.float32(1.001) if x.shape[1] >= 3 else y

    result = verdict("dense", "forward", dense=dense)
    case = Case.parse(OPERATIONS["dense"], result.counterexample["case"])
    assert result.verdict == "fail" and case.sizes == {"N": 1, "I": 3, "O": 1} and not case.departures
    assert result.reproduce.startswith(
        "pytest --impl planted.py --op dense --dtype float32 --property forward --case 'N=1 I=3 O=1"
    )


def test_what_nothing_depends_on_may_be_ignored():
    """A linear layer's gradient does not depend on b, and its cell is no blind one."""

    def dense(x, W, b):
        return x @ W + b

    def dense_vjp(x, W, b, dy):
        return dy @ W.T, x.T @ dy, dy.sum(0)

    result = verdict("dense", "gradient", 70, dense=dense, dense_vjp=dense_vjp)
    assert result.verdict == "pass" and "ignoring b" not in result.refused and "ignoring W" in result.refused


def test_a_known_defect_is_strict():
    softmax = NUMPY.module.softmax
    for function, found in ((softmax, "fail"), (lambda x: softmax(x) * 2, "known")):
        module = backend(softmax=function).module
        module.KNOWN_DEFECTS = {("softmax", "forward"): "issue 1: twice the value"}
        result = Runner(0, examples=70).run(
            Cell(Backend(module, "known.py"), OPERATIONS["softmax"], "float32", "forward")
        )
        assert result.verdict == found
        assert "issue 1" in result.reason


def test_judgement_defaults_to_nothing_proved():
    assert Judgement("pass").worst == 0 and not Judgement("pass").failed


def test_a_sum_near_the_largest_number_keeps_its_noise():
    """As much as any other: a deviation in units of u overflows before the sum does."""
    spreads = []
    for values in ("brim", "normal"):
        _, (expected,) = expectations("mse", f"N=15 O=33 values={values} layout=plain seed=79", "float64")
        spreads.append(float(expected.population.spread() / expected.truth.high))
    assert 0.5 < spreads[0] / spreads[1] < 2


def test_judged_together_each_has_its_own_verdict_and_the_oracle_is_asked_once(monkeypatch):
    softmax, asked = NUMPY.module.softmax, []
    monkeypatch.setattr("opspec.tests.calls.expect", lambda *args: asked.append(args) or expect(*args))
    cells = [
        Cell(backend(softmax=function), OPERATIONS["softmax"], "float32", "forward")
        for function in (softmax, lambda x: softmax(x[:, ::-1])[:, ::-1], lambda x: softmax(x) * np.float32(1.001))
    ]
    assert [result.verdict for result in Runner(0, examples=40).run_together(cells)] == ["pass", "pass", "fail"]
    asked.clear()
    right, other = Runner(1, examples=40, directed=False).run_together(cells[:2])
    assert right.examples == other.examples >= 36
    assert 36 <= len(asked) <= 40


@pytest.mark.parametrize("seed", range(40))
def test_a_failure_at_a_long_size_shrinks_to_the_least(seed):
    def softmax(x):
        p = NUMPY.module.softmax(x)
        p[..., 3:] *= np.float32(1.001)
        return p

    cell = Cell(backend(softmax=softmax), OPERATIONS["softmax"], "float32", "forward")
    case = Runner(seed, examples=30).run(cell).counterexample["case"]
    assert case == "N=1 M=4 values=normal layout=plain seed=0"


def test_sums_kept_in_a_coarse_format_blur_what_a_case_can_tell():
    """1 rounds to 1 + 2⁻⁷ at a scale of 1.01, which a sum that is kept in bfloat16 may be off by, too."""
    assert Arithmetic("bfloat16", accumulator="bfloat16").blur == 32 * 2.0**-8
    assert Arithmetic("bfloat16").blur == 0.01


def test_stateless_asks_nothing_that_pytorchs_recurrent_layer_lacks():
    """The call in between has another activation, one of the two that it knows: else its cells would prove nothing."""
    result = Runner(0, examples=40).run(Cell(load("torch"), OPERATIONS["rnn"], "float32", "stateless"))
    assert result.verdict == "pass" and result.examples
