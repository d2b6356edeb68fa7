"""Cases: how arrays lie in memory, which cases are directed, and that calls in turn are told apart."""

import re
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

from opspec import OPERATIONS, Arithmetic
from opspec.impls import load
from opspec.tests.calls import judge_call
from opspec.tests.cases import Case, at_most, cases
from opspec.tests.conformance import Cell, Runner
from opspec.tests.directed import directed
from opspec.tests.judge import Judgement
from opspec.tests.layouts import LAYOUTS, lay_out
from opspec.tests.planted import backend, plant
from opspec.tests.properties import PROPERTIES
from opspec.tests.values import VALUES

NUMPY = load("numpy")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_keeps_the_numbers_and_touches_nothing_beside_them(layout):
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (5,), (4, 3), (2, 1, 3), (3, 2, 4, 5)):
        array = rng.standard_normal(shape).astype(np.float32)
        laid = lay_out(array, layout, rng)
        assert laid.shape == shape and laid.dtype == array.dtype
        if layout != "broadcast":
            assert np.array_equal(laid, array)
        elif shape:
            assert 0 in laid.strides and np.isin(laid, array).all()
        whole = laid
        while whole.base is not None and isinstance(whole.base, np.ndarray):
            whole = whole.base
        alone = layout == "reversed" and whole.shape == laid.shape
        assert (np.isnan(whole).any() and not np.isnan(laid).any()) or layout == "broadcast" or alone


def test_a_reversed_array_has_a_base_of_its_shape_half_the_time():
    rng, array = np.random.default_rng(0), np.arange(6.0).reshape(2, 3)
    bases = [lay_out(array, "reversed", rng).base for _ in range(100)]
    alike = [np.array_equal(base, array[::-1, ::-1]) for base in bases]
    assert 30 < sum(alike) < 70


def test_mixed_layouts_differ_and_go_backwards_and_leave_gaps():
    rng = np.random.default_rng(0)
    array = np.ones((3, 4, 5))
    strides = {lay_out(array, "mixed", rng).strides for _ in range(50)}
    assert len(strides) > 40 and any(min(s) < 0 for s in strides)


def arrays_of(layout, seed):
    words = f"B=1 M=3 S=3 F=4 h=1 d_k=4 d_v=4 layout={layout} seed={seed}"
    drawn = Case.parse(OPERATIONS["multihead_attention"], words).draw("float32")
    return (*drawn.arrays, *drawn.cotangents)


def test_shared_arrays_are_one_or_two_of_a_shape():
    seen = set()
    for seed in range(100):
        q, k, v, *weights, dy = arrays_of("shared", seed)
        assert len({id(a) for a in (q, k, v, dy)}) <= 2 and all(w is not q for w in weights)
        seen.add((q is k, k is v, v is dy))
    assert len(seen) == 8


def test_packed_arrays_lie_beside_one_another():
    plain, packed = arrays_of("plain", 0), arrays_of("packed", 0)
    assert all(np.array_equal(a, b) for a, b in zip(plain, packed, strict=True))
    q, k, v, *_, dy = packed
    assert q.strides == k.strides == v.strides == dy.strides == (3 * 16 * 4, 16 * 4, 4)
    assert k.ctypes.data - q.ctypes.data == 4 * 4


@pytest.mark.parametrize("operation", OPERATIONS)
def test_directed_cases_are_valid_and_only_of_what_an_implementation_takes(operation):
    op = OPERATIONS[operation]
    everything = directed(operation, op.parameters)
    assert len(set(map(str, everything))) == len(everything) >= 20
    for case in everything:
        case.draw("float32")
        assert Case.parse(op, str(case)) == case
    least = directed(operation, op.required)
    assert 0 < len(least) <= len(everything) and all(case.departures <= set(op.required) for case in least)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_directed_case_is_drawn_again_and_so_are_simpler_ones(operation):
    case = directed(operation, OPERATIONS[operation].parameters)[-1]
    quick = settings(max_examples=100, database=None)
    assert find(at_most(case), lambda c: c == case, settings=quick) == case
    smallest = find(at_most(case), lambda c: True, settings=quick)
    assert set(smallest.sizes.values()) == {1} and not smallest.departures - set(case.operation.required)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_distribution_has_numbers_for_every_format(operation):
    op = OPERATIONS[operation]
    for case in directed(operation, op.parameters)[:3]:
        for values in VALUES:
            if values == "lowest" and operation not in ("softmax", "attention"):
                continue
            for dtype in ("bfloat16", "float16", "float32", "float64"):
                words = str(case).replace("values=normal", f"values={values}")
                drawn = Case.parse(op, words).draw(dtype)
                assert all(np.isfinite(a.astype(float)).all() for a in drawn.arrays + drawn.cotangents)


@pytest.mark.parametrize("proves_nothing", [False, True])
@pytest.mark.parametrize("examples", [20, 30, 100])
def test_half_of_the_examples_at_most_are_directed_and_others_are_made_up_for(monkeypatch, examples, proves_nothing):
    seen = []

    def judge(backend, dtype, case):
        seen.append(case)
        if case.seed % 3 or case in fixed or case.values == "normal":
            return Judgement("pass")
        if proves_nothing:
            return Judgement("inconclusive", reason="every third")
        raise NotImplementedError("every third")

    fixed = directed("attention", OPERATIONS["attention"].parameters)
    monkeypatch.setitem(PROPERTIES, "forward", replace(PROPERTIES["forward"], judge=judge))
    monkeypatch.setattr("opspec.tests.conformance.Tally._blind", lambda tally: "")  # no example refuses anything here
    result = Runner(0, examples=examples).run(Cell(NUMPY, OPERATIONS["attention"], "float32", "forward"))
    assert result.verdict == "pass" and 0.9 * examples <= result.examples <= examples
    assert result.inconclusive > 0 if proves_nothing else result.not_exercised == ("every third",)
    chosen = [case for case in seen if case in fixed]
    assert len(chosen) <= examples / 2 and (examples < 100 or chosen == list(fixed))


@pytest.mark.parametrize(
    "ordinary, others, verdict",
    [(0, 0.6, "pass"), (0, 0.9, "inconclusive"), (0.05, 0.1, "pass"), (0.4, 0, "inconclusive")],
)
def test_a_cell_where_many_examples_prove_nothing_is_inconclusive(monkeypatch, ordinary, others, verdict):
    """A share of those with ordinary numbers, and one of the others."""

    def judge(backend, dtype, case):
        share = ordinary if case.values == "normal" else others
        proves_nothing = crc32(str(case).encode()) / 2**32 < share
        return Judgement("inconclusive", reason="a share") if proves_nothing else Judgement("pass")

    monkeypatch.setitem(PROPERTIES, "forward", replace(PROPERTIES["forward"], judge=judge))
    monkeypatch.setattr("opspec.tests.conformance.Tally._blind", lambda tally: "")
    result = Runner(0, examples=100).run(Cell(NUMPY, OPERATIONS["mse"], "float32", "forward"))
    assert result.verdict == verdict, (result.reason, result.examples, result.inconclusive)


@pytest.mark.parametrize("seed", range(4))
def test_an_offset_weight_stays_away_from_powers_of_two(seed):
    """1.5 · 2²³ over √9 would be 2²²."""
    words = f"N=9 H=1 W=1 C=1 kH=3 kW=3 O=2 padding=1x1 values=offset seed={seed}"
    for array in Case.parse(OPERATIONS["conv2d"], words).draw("float32").arrays:
        mantissa = 2 * np.abs(np.frexp(array)[0])
        assert np.std(array) > 0.1 and (np.max(np.abs(array)) < 10 or np.all(np.abs(mantissa - 1.5) < 1e-3))


def test_what_the_declaration_takes_for_0_is_not_judged():
    case = Case.parse(OPERATIONS["dense"], "N=2 I=2 O=2 values=faint")
    flushing = backend(("float32",), lambda op, dtype: Arithmetic(dtype, flush=True))
    with pytest.raises(NotImplementedError, match="takes for 0"):
        judge_call(flushing, "float32", case, of_gradient=False)
    assert judge_call(NUMPY, "float32", case, of_gradient=False).verdict == "pass"


def test_window_parameters_keep_their_defaults_half_the_time():
    drawn: list[Case] = []

    @settings(max_examples=400, database=None, deadline=None, phases=[Phase.generate], derandomize=True)
    @given(cases("conv2d"))
    def collect(case):
        drawn.append(case)

    collect()
    for parameter in ("stride", "padding", "dilation"):
        assert 0.15 < np.mean([parameter in case.departures for case in drawn]) < 0.7
    assert np.mean([not case.departures for case in drawn]) > 0.05


def forward(x):
    return NUMPY.module.softmax(x)


def remembers_the_address():
    answers = {}

    def softmax(x):
        return answers.setdefault((x.ctypes.data, x.shape), forward(x))

    return softmax


def returns_one_of(buffers):
    memory, calls = {}, iter(range(10**9))

    def softmax(x):
        y = memory.setdefault((x.shape, next(calls) % buffers), np.empty_like(x, order="C"))
        y[...] = forward(x)
        return y

    return softmax


@pytest.mark.parametrize(
    "softmax, reason",
    [
        (remembers_the_address(), r"turn 2 \(B, in place\): value"),
        (returns_one_of(3), "later call changed"),
        (returns_one_of(6), "later call changed"),
        (forward, ""),
    ],
)
def test_an_answer_depends_on_its_arguments_alone(softmax, reason):
    backend = plant(softmax, "softmax").make()
    judgement = PROPERTIES["stateless"].judge(backend, "float32", Case.parse(OPERATIONS["softmax"], "N=3 M=4"))
    assert judgement.failed == bool(reason) and re.search(reason, judgement.reason)


def test_an_answer_may_be_a_view_of_an_argument():
    backend = plant(lambda x, window, stride=(1, 1): x, "maxpool2d").make()
    case = Case.parse(OPERATIONS["maxpool2d"], "N=2 H=3 W=3 C=2 window=1x1")
    for name in ("forward", "stateless"):
        assert PROPERTIES[name].judge(backend, "float32", case).verdict == "pass"
