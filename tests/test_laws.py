"""Every law is proved, for the spec over the reals, and has a mutant: a correct implementation with one change, which
the law must catch with the examples that the default profile gives it.
"""

import itertools
import re

import numpy as np
import pytest
from hypothesis import Phase, given, seed, settings

from opspec import OPERATIONS
from opspec.impls import load
from opspec.tests.identities import Given
from opspec.tests.laws import LAWS, Law, residuals
from opspec.tests.planted import Planted, backend, judge
from opspec.tests.plugin import DEFAULT_PROFILE, PROFILES
from opspec.tests.variants import VARIANTS
from opspec.tests.variants.products import phi

correct = load("numpy").module
MUTANTS: list = []
ALL = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
BITS = 256


def mutant(label):
    """The function replaces the operation's, or its gradient where the law is one of the vjp, in a correct backend."""

    def plant(function):
        MUTANTS.append(pytest.param(LAWS[label], function, id=f"{label}-{function.__name__}"))
        return function

    return plant


def in_eight_bits(a):
    """Quantised, the largest number of the whole array being 127."""
    scale = np.max(np.abs(a)) / np.float32(127)
    return np.rint(a / scale) * scale


def clipped(a):
    return np.clip(a, -1, 1)


@ALL
def test_the_law_is_proved(law: Law, suite):
    """On small cases, of every parameter: the residual's ball contains 0 and nothing that any format could tell from it."""
    proved = []

    @seed(suite.seed)
    @settings(max_examples=8, phases=[Phase.generate], deadline=None, database=None)
    @given(law.cases(law.operation.parameters))
    def prove(case):
        given = Given.of(case, "float32")
        if law.exact:  # of stored numbers, which float64 holds: nothing is rounded
            for name, left, right in law.sides(lambda *a, **p: law.spec(None)(*a, **p), given):
                proved.append(name)
                np.testing.assert_array_equal(left, right)
            return
        for name, residual in residuals(law, given, BITS):
            proved.append(name)
            assert all(0 in ball for ball in residual.values.flat), name
            assert np.max(residual.ball().radius) < 2.0**-100, name

    prove()
    assert len(proved) >= 8


def with_exp_off_by(ulps):
    """An LSTM whose exp is always too large, or too small, by so much."""

    def sigmoid(z):
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-z) * np.float32(1 + ulps * 2.0**-24))

    def lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
        h, c, states = h0, c0, []
        for x_t in x:
            hx = np.concatenate([h, x_t], axis=1)
            c = sigmoid(hx @ W_f.T + b_f) * c + sigmoid(hx @ W_i.T + b_i) * phi(hx @ W_c.T + b_c, "tanh")
            h = sigmoid(hx @ W_o.T + b_o) * phi(c, "tanh")
            states.append(h)
        return np.stack(states), c

    return lstm


def function_of(variant: Planted):
    return getattr(variant.make().module, variant.operation + ("_vjp" if variant.direction == "gradient" else ""))


PATHS = [
    (v.operation, v.direction, [function_of(v)], v.name)
    for v in VARIANTS
    if v.dtype == "float32" and not hasattr(v.make().module, "arithmetic")
]
PATHS.append(("lstm", "forward", [with_exp_off_by(2), with_exp_off_by(-2)], "with_exp_off_by_two_ulps_each_way"))


@pytest.mark.parametrize(
    ("operation", "property_", "others"), [p[:3] for p in PATHS], ids=[f"{p[0]}-{p[3]}" for p in PATHS]
)
def test_an_implementation_may_go_another_way_at_every_call(operation, property_, others, suite):
    """As it may for every shape: the calls that a law compares have errors of their own, systematic ones, too."""
    name = operation if property_ == "forward" else operation + "_vjp"
    ways = itertools.cycle([*others, getattr(correct, name)])
    planted = backend(**{name: lambda *arrays, **parameters: next(ways)(*arrays, **parameters)})
    for law in LAWS.values():
        if law.operation.name == operation and law.gradient == (property_ == "gradient"):
            result = judge(planted, operation, f"law:{law.name}", suite.seed)
            assert result.verdict == "pass", result


@ALL
def test_the_label_stands_in_the_specs_docstring_with_what_it_says(law: Law):
    text = (law.operation.vjp if law.gradient else law.operation.function).__doc__ or ""
    assert re.search(rf"^ +(Laws: )?{re.escape(law.label)}  +\S", text, re.M)


def test_no_docstring_lists_a_law_that_is_none():
    listed = [
        f"{name}.{label}"
        for name, op in OPERATIONS.items()
        for function in (op.function, op.vjp)
        for label in re.findall(rf"\b{name}\.(\w+)", function.__doc__)
    ]
    assert sorted(listed) == sorted(LAWS)


@mutant("softmax.rows_sum_to_one")
def the_tail_is_not_in_the_sum(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e[:, : x.shape[1] // 4 * 4].sum(-1, keepdims=True)


@mutant("softmax.ignores_shifts")
def the_maximum_starts_at_zero(x):
    e = np.exp(x - np.maximum(x.max(-1, keepdims=True), 0))
    return e / e.sum(-1, keepdims=True)


@mutant("softmax.batch_is_independent")
def the_sum_is_of_the_row_before(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / np.roll(e.sum(-1, keepdims=True), 1, axis=0)


@mutant("softmax.vjp_is_linear")
def the_cotangent_is_clipped(x, dp):
    return correct.softmax_vjp(x, clipped(dp))


@mutant("dense.batch_is_independent")
def the_batch_is_centred(x, W, b, **activation):
    return correct.dense(x - x.mean(0), W, b, **activation)


@mutant("dense.vjp_is_linear")
def small_cotangents_are_skipped(x, W, b, dy, **activation):
    return correct.dense_vjp(x, W, b, np.where(np.abs(dy) < 0.1, np.float32(0), dy), **activation)


@mutant("mse.batch_is_independent")
def a_mean_in_place_of_the_sum(y_hat, y):
    return np.asarray(correct.mse(y_hat, y) / np.float32(len(y)))


@mutant("mse.vjp_is_linear")
def the_cotangent_is_ignored(y_hat, y, dL):
    return correct.mse_vjp(y_hat, y, np.ones_like(dL))


@mutant("conv2d.linear_in_x")
def a_bias(x, w, **parameters):
    return correct.conv2d(x, w, **parameters) + np.float32(0.01)


@mutant("conv2d.linear_in_x")
def relu_inside(x, w, **parameters):
    return np.maximum(correct.conv2d(x, w, **parameters), 0)


@mutant("conv2d.linear_in_w")
def weights_in_eight_bits(x, w, **parameters):
    return correct.conv2d(x, in_eight_bits(w), **parameters)


@mutant("conv2d.moves_with_x")
def every_other_pixel_is_off(x, w, **parameters):
    y = correct.conv2d(x, w, **parameters)
    y[:, ::2, ::2] *= np.float32(1.001)
    return y


@mutant("conv2d.batch_is_independent")
def images_in_eight_bits_of_the_batch(x, w, **parameters):
    return correct.conv2d(in_eight_bits(x), w, **parameters)


@mutant("conv2d.vjp_is_linear")
def negative_cotangents_are_lost(x, w, dy, **parameters):
    return correct.conv2d_vjp(x, w, np.maximum(dy, 0), **parameters)


@mutant("maxpool2d.commutes_with_monotone_maps")
def pool_starts_at_zero(x, **parameters):
    """pytorch#109586"""
    return np.maximum(correct.maxpool2d(x, **parameters), 0)


@mutant("maxpool2d.commutes_with_nan")
def pool_swallows_nan(x, **parameters):
    """pytorch#39846"""
    return correct.maxpool2d(np.where(np.isnan(x), np.float32(-np.inf), x), **parameters)


@mutant("maxpool2d.batch_is_independent")
def the_maximum_is_not_reset_between_images(x, **parameters):
    return np.maximum.accumulate(correct.maxpool2d(x, **parameters), axis=0)


@mutant("maxpool2d.vjp_is_linear")
def the_cotangent_is_in_float16(x, dy, **parameters):
    return correct.maxpool2d_vjp(x, dy.astype(np.float16).astype(np.float32), **parameters)


@mutant("rnn.steps_chain")
def h0_is_ignored(x, h0, *weights, **activation):
    return correct.rnn(x, np.zeros_like(h0), *weights, **activation)


@mutant("rnn.steps_chain")
def the_state_is_lost_every_four_steps(x, h0, *weights, **activation):
    parts = [
        correct.rnn(x[t : t + 4], h0 if t == 0 else np.zeros_like(h0), *weights, **activation)
        for t in range(0, len(x), 4)
    ]
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


@mutant("rnn.batch_is_independent")
def the_batch_is_centred_at_each_step(x, h0, *weights, **activation):
    return correct.rnn(x - x.mean(1, keepdims=True), h0, *weights, **activation)


@mutant("rnn.vjp_is_linear")
def the_gradient_is_clipped(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, **activation):
    return correct.rnn_vjp(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, clipped(dh), **activation)


@mutant("lstm.steps_chain")
def the_last_cell_is_the_one_before_it(x, h0, c0, *weights):
    h, _ = correct.lstm(x, h0, c0, *weights)
    return h, correct.lstm(x[:-1], h0, c0, *weights)[1] if len(x) > 1 else c0.copy()


@mutant("lstm.batch_is_independent")
def the_first_rows_state_is_everyones(x, h0, c0, *weights):
    return correct.lstm(x, np.repeat(h0[:1], len(h0), axis=0), c0, *weights)


@mutant("lstm.vjp_is_linear")
def the_cells_cotangent_is_clipped(*arrays):
    return correct.lstm_vjp(*arrays[:-1], clipped(arrays[-1]))


@mutant("attention.permutes_with_queries")
def queries_have_positions(q, k, v, **parameters):
    return correct.attention(q + np.float32(0.01) * np.arange(q.shape[2], dtype="f")[:, None], k, v, **parameters)


@mutant("attention.ignores_the_order_of_keys")
def keys_have_positions(q, k, v, **parameters):
    return correct.attention(q, k + np.float32(0.01) * np.arange(k.shape[2], dtype="f")[:, None], v, **parameters)


@mutant("attention.one_key_returns_its_value")
def one_is_added_to_the_sum(q, k, v, mask=None):
    """As by a key and a value of zeros."""
    k, v = (np.pad(a, ((0, 0), (0, 0), (0, 1), (0, 0))) for a in (k, v))
    mask = mask if mask is None else np.pad(mask, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=True)
    return correct.attention(q, k, v, mask=mask)


@mutant("attention.causal_is_a_mask")
def causal_drops_the_mask(q, k, v, mask=None, causal=False):
    return correct.attention(q, k, v, mask=None if causal else mask, causal=causal)


@mutant("attention.batch_is_independent")
def keys_of_the_first_serve_all(q, k, v, **parameters):
    return correct.attention(q, np.repeat(k[:1], len(k), axis=0), v, **parameters)


@mutant("attention.vjp_is_linear")
def the_cotangent_is_in_eight_bits(q, k, v, dy, **parameters):
    return correct.attention_vjp(q, k, v, in_eight_bits(dy), **parameters)


@mutant("multihead_attention.one_head_is_attention")
def scores_are_scaled_twice(q, k, v, W_q, W_k, W_v, W_o, **parameters):
    return correct.multihead_attention(q, k, v, W_q / np.float32(W_q.shape[2] ** 0.5), W_k, W_v, W_o, **parameters)


@mutant("multihead_attention.batch_is_independent")
def of_two_at_a_time_the_odd_one_is_left_out(q, *arrays, **parameters):
    y = correct.multihead_attention(q, *arrays, **parameters)
    y[len(y) // 2 * 2 :] = 0
    return y


@mutant("multihead_attention.vjp_is_linear")
def dW_o_from_the_cotangents_size(*arrays, **parameters):
    gradients = correct.multihead_attention_vjp(*arrays, **parameters)
    return (*gradients[:-1], correct.multihead_attention_vjp(*arrays[:-1], np.abs(arrays[-1]), **parameters)[-1])


@pytest.mark.parametrize(("law", "function"), MUTANTS)
def test_the_law_catches_its_mutant(law: Law, function, suite):
    name = law.operation.name
    planted = backend(**{name + "_vjp" if law.gradient else name: function})
    result = judge(planted, name, f"law:{law.name}", suite.seed, examples=PROFILES[DEFAULT_PROFILE])
    assert result.verdict == "fail" and law.label in result.reason, result


def test_every_law_has_a_mutant():
    assert {m.values[0].label for m in MUTANTS} == set(LAWS)
