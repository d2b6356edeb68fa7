"""Plain NumPy, as a kernel author writes it: products through BLAS, temporaries reused in place.

float16 is widened to float32 on entry and rounded once on return. Inputs of any strides are read and never written.
"""

from functools import wraps

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..spec import Arithmetic
from .validation import checked

NAME = "numpy"
dtypes = ("float16", "float32", "float64")


def arithmetic(operation: str, dtype: str) -> Arithmetic:
    """float16 is storage only. NumPy documents 2.52 ulp for its float32 exp, the least accurate function called."""
    return Arithmetic(dtype, function_ulps=3.0)


def _kernel(function):
    """Validation, float16 by way of float32, and IEEE 754's silent overflow, around a function of the wider formats."""

    @wraps(function)
    def call(*arrays, **parameters):
        with np.errstate(all="ignore"):
            if arrays[0].dtype != np.float16:
                return function(*arrays, **parameters)
            result = function(*(a.astype(np.float32) for a in arrays), **parameters)
            if isinstance(result, tuple):
                return tuple(r.astype(np.float16) for r in result)
            return result.astype(np.float16)

    return checked(call)


@_kernel
def dense(x, W, b, *, activation="identity"):
    """y = φ(x W + b): x [N,I], W [I,O], b [O] → [N,O]."""
    return _activate(_project(x, W, b), activation)


@_kernel
def dense_vjp(x, W, b, dy, *, activation="identity"):
    """With δ = dy ⊙ φ′: δ Wᵀ, xᵀ δ, Σₙ δ. ReLU has derivative 0 at 0."""
    delta = dy
    if activation != "identity":
        delta = _through(dy.copy(), _activate(_project(x, W, b), activation), activation)
    return delta @ W.T, x.T @ delta, delta.sum(axis=0)


@_kernel
def mse(y_hat, y):
    """L = ½ Σ (ŷ − y)²: y_hat, y [N,O] → []."""
    d = (y_hat - y).ravel(order="K")
    return d @ d / 2


@_kernel
def mse_vjp(y_hat, y, dL):
    """dL (ŷ − y) and its negative."""
    d = y_hat - y
    d *= dL
    return d, -d


@_kernel
def softmax(x):
    """eˣ / Σ eˣ over the last axis: x [N,M] → [N,M]. A row with +∞, or with nothing but −∞, is NaN."""
    return _softmax(x)


@_kernel
def softmax_vjp(x, dp):
    """p ⊙ (dp − Σ p dp)."""
    return (_through_softmax(dp.copy(), _softmax(x)),)


@_kernel
def conv2d(x, w, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """Cross-correlation as one GEMM over the gathered windows: x [N,H,W,C], w [kH,kW,C,O] → [N,oH,oW,O]."""
    columns = _windows(_framed(x, padding), w.shape[:2], stride, dilation)
    rows = w.reshape(-1, w.shape[3])
    return (columns.reshape(-1, len(rows)) @ rows).reshape(*columns.shape[:3], -1)


@_kernel
def conv2d_vjp(x, w, dy, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """∂w: windowsᵀ dy, one GEMM. ∂x: dy wᵀ, tap by tap, added where the tap was read; pixels never read get 0."""
    image, delta = _framed(x, padding), dy.reshape(-1, dy.shape[3])
    columns = _windows(image, w.shape[:2], stride, dilation)
    dw = columns.reshape(len(delta), -1).T @ delta
    dx = np.zeros(image.shape, x.dtype)
    taps, product = _windows(dx, w.shape[:2], stride, dilation), np.empty((len(delta), x.shape[3]), x.dtype)
    for r, s in np.ndindex(w.shape[:2]):
        taps[:, :, :, r, s] += np.matmul(delta, w[r, s].T, out=product).reshape(*dy.shape[:3], -1)
    (top, left), (height, width) = padding, x.shape[1:3]
    return dx[:, top : top + height, left : left + width], dw.reshape(w.shape)


@_kernel
def maxpool2d(x, *, window, stride=(1, 1)):
    """The maximum of each window: x [N,H,W,C] → [N,oH,oW,C]. NaN in a window gives NaN."""
    return _maxima(x, window, stride)


@_kernel
def maxpool2d_vjp(x, dy, *, window, stride=(1, 1)):
    """dy goes to the first maximum of its window, row-major; a pixel that several windows chose gets the sum."""
    y, dx = _maxima(x, window, stride), np.zeros(x.shape, x.dtype)
    taps, dtaps = _windows(x, window, stride), _windows(dx, window, stride)
    pending, bits = np.ones(y.shape, dtype=bool), dy.view(f"i{dy.itemsize}")
    for r, s in np.ndindex(*window):
        chosen = taps[:, :, :, r, s] == y
        chosen &= pending
        pending ^= chosen
        dtaps[:, :, :, r, s] += (bits * chosen).view(dy.dtype)  # faster than where; 0 · NaN as floats would be NaN
    return (dx,)


@_kernel
def rnn(x, h0, W_hh, W_xh, b_h, W_yh, b_y, *, activation="tanh"):
    """h_t = φ(W_hh h_{t−1} + W_xh x_t + b_h), y_t = φ(W_yh h_t + b_y), in rows; x [T,N,I] → y [T,N,O], h [T,N,H]."""
    h = _rnn_states(x, h0, W_hh, W_xh, b_h, activation)[1:]
    return _activate(_project(h, W_yh.T, b_y), activation), h


@_kernel
def rnn_vjp(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, *, activation="tanh"):
    """Back through time: δ_t = (dh_t + δʸ_t W_yh + δ_{t+1} W_hh) ⊙ φ′(a_t); each weight's gradient is one GEMM."""
    h = _rnn_states(x, h0, W_hh, W_xh, b_h, activation)
    delta_y = _through(dy.copy(), _activate(_project(h[1:], W_yh.T, b_y), activation), activation)
    delta = _project(delta_y, W_yh)
    delta += dh
    carried = np.zeros(h0.shape, x.dtype)
    for t in reversed(range(len(x))):
        delta[t] += carried
        np.matmul(_through(delta[t], h[t + 1], activation), W_hh, out=carried)
    flat, flat_y = _flat(delta), _flat(delta_y)
    return (
        _project(delta, W_xh),
        carried,
        flat.T @ _flat(h[:-1]),
        flat.T @ _flat(x),
        flat.sum(axis=0),
        flat_y.T @ _flat(h[1:]),
        flat_y.sum(axis=0),
    )


@_kernel
def lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """f, i, o = σ(W [h,x] + b), c ← f ⊙ c + i ⊙ tanh(W_c [h,x] + b_c), h = o ⊙ tanh(c); x [T,N,I] → h [T,N,H], c_T."""
    _, h, c, _ = _lstm_states(x, h0, c0, (W_f, W_i, W_o, W_c), (b_f, b_i, b_o, b_c))
    return h[1:], c[-1]


@_kernel
def lstm_vjp(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o, dh, dc_T):
    """Back through time over the gates kept by the forward pass; the weights' gradients are two GEMMs at the end."""
    gates, h, c, W = _lstm_states(x, h0, c0, (W_f, W_i, W_o, W_c), (b_f, b_i, b_o, b_c))
    (N, H), delta = h0.shape, np.empty_like(gates)
    dh_t, dc = np.zeros((N, H), x.dtype), dc_T.copy()
    for t in reversed(range(len(x))):
        f, i, o, g = _gates(gates[t])
        df, di, do, dg = _gates(delta[t])
        tanh_c, sigmoids = np.tanh(c[t + 1]), gates[t, :, : 3 * H]
        dh_t += dh[t]
        dc += dh_t * o * (1 - tanh_c * tanh_c)
        np.multiply(sigmoids, 1 - sigmoids, out=delta[t, :, : 3 * H])
        np.multiply(i, 1 - g * g, out=dg)
        df *= dc * c[t]
        di *= dc * g
        do *= dh_t * tanh_c
        dg *= dc
        np.matmul(delta[t], W[:, :H], out=dh_t)
        dc *= f
    flat, dW = _flat(delta), np.empty(W.shape, x.dtype)
    np.matmul(flat.T, _flat(h[:-1]), out=dW[:, :H])
    np.matmul(flat.T, _flat(x), out=dW[:, H:])
    (dW_f, dW_i, dW_o, dW_c), (db_f, db_i, db_o, db_c) = np.split(dW, 4), np.split(flat.sum(axis=0), 4)
    return _project(delta, W[:, H:]), dh_t, dc, dW_f, db_f, dW_i, db_i, dW_c, db_c, dW_o, db_o


@_kernel
def attention(q, k, v, *, mask=None, causal=False):
    """softmax(q kᵀ / √D) v: q [B,H,M,D], k [B,H,S,D], v [B,H,S,E] → [B,H,M,E]. No key, no weight: 0."""
    allowed = _allowed(mask, causal, q.shape[2])
    return _product(_attend(_scale(q), k, allowed), v, allowed)


@_kernel
def attention_vjp(q, k, v, dy, *, mask=None, causal=False):
    """With P the weights, dP = dy vᵀ and dS = P ⊙ (dP − Σ P dP): dS k / √D, dSᵀ q / √D, Pᵀ dy."""
    q, allowed = _scale(q), _allowed(mask, causal, q.shape[2])
    return _through_attention(dy, q, k, v, _attend(q, k, allowed), allowed)


@_kernel
def multihead_attention(q, k, v, W_q, W_k, W_v, W_o, *, mask=None, causal=False):
    """Concat(Attention(q W_qᵢ, k W_kᵢ, v W_vᵢ)) W_o: q [B,M,F], k, v [B,S,F] → [B,M,F]."""
    (Q, K, V), allowed = _heads(q, k, v, W_q, W_k, W_v), _allowed(mask, causal, q.shape[1])
    return _project(_concat(_product(_attend(Q, K, allowed), V, allowed)), W_o)


@_kernel
def multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, dy, *, mask=None, causal=False):
    """The projections of all heads, and their gradients, are one GEMM each; between them attention's gradient."""
    (Q, K, V), allowed = _heads(q, k, v, W_q, W_k, W_v), _allowed(mask, causal, q.shape[1])
    P = _attend(Q, K, allowed)
    dW_o = _flat(_concat(_product(P, V, allowed))).T @ _flat(dy)
    dA = _split(_project(dy, W_o.T), len(W_v))
    inputs, weights = [], []
    for a, W, d in zip((q, k, v), (W_q, W_k, W_v), _through_attention(dA, Q, K, V, P, allowed), strict=True):
        d = _concat(d)
        inputs.append(_project(d, _side_by_side(W).T))
        weights.append((_flat(a).T @ _flat(d)).reshape(W.shape[1], len(W), -1).swapaxes(0, 1))
    return (*inputs, *weights, dW_o)


def _flat(x):
    return x.reshape(-1, x.shape[-1])


def _project(x, W, b=None):
    """x W + b over all leading axes of x, as one GEMM."""
    y = _flat(x) @ W
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], -1)


def _activate(z, activation):
    """φ(z), in place."""
    match activation:
        case "relu":
            np.maximum(z, 0, out=z)
        case "tanh":
            np.tanh(z, out=z)
        case "sigmoid":  # accurate in both tails; where e⁻ᶻ overflows, 1 / ∞ is the 0 that σ(z) all but is
            np.exp(np.negative(z, out=z), out=z)
            z += 1
            np.divide(1, z, out=z)
    return z


def _through(d, y, activation):
    """d ⊙ φ′(z) from y = φ(z), in place."""
    match activation:
        case "relu":
            d *= y > 0
        case "tanh":
            d *= 1 - y * y
        case "sigmoid":
            d *= y * (1 - y)
    return d


def _softmax(x, out=None, empty=False):
    """Over the last axis. Rows that are `empty`, all of them −∞, become 0."""
    largest = x.max(axis=-1, keepdims=True)
    np.copyto(largest, 0, where=empty)
    p = np.subtract(x, largest, out=out)
    np.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    total += empty
    p /= total
    return p


def _through_softmax(d, p):
    """p ⊙ (d − Σ p d), in place."""
    d -= np.vecdot(p, d)[..., None]
    d *= p
    return d


def _framed(x, padding):
    return np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0))) if any(padding) else x


def _windows(x, window, stride, dilation=(1, 1)):
    """[N,H,W,C] → [N,oH,oW,kH,kW,C], a view. The entries of one tap are distinct pixels, so it may be added to."""
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    views = sliding_window_view(x, reach, axis=(1, 2), writeable=True)
    return views[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]].transpose(0, 1, 2, 4, 5, 3)


def _maxima(x, window, stride):
    """Down the columns, then along the rows: kH + kW comparisons instead of kH · kW."""
    for axis, size, step in zip((1, 2), window, stride, strict=True):
        views = np.moveaxis(sliding_window_view(x, size, axis), (axis, -1), (0, 1))[::step]
        x = views[:, 0].copy(order="K") if size == 1 else np.maximum(views[:, 0], views[:, 1])
        for tap in range(2, size):
            np.maximum(x, views[:, tap], out=x)
        x = np.moveaxis(x, 0, axis)
    return x


def _states(first, T):
    """[T+1,N,H], of which the first is given."""
    states = np.empty((T + 1, *first.shape), first.dtype)
    states[0] = first
    return states


def _rnn_states(x, h0, W_hh, W_xh, b_h, activation):
    h = _states(h0, len(x))
    h[1:] = _project(x, W_xh.T, b_h)
    for t in range(len(x)):
        h[t + 1] += h[t] @ W_hh.T
        _activate(h[t + 1], activation)
    return h


def _lstm_states(x, h0, c0, weights, biases):
    """Gates f, i, o and candidate side by side [T,N,4H], h and c from step 0 on [T+1,N,H], stacked weights [4H,H+I]."""
    H, W = h0.shape[1], np.concatenate(weights)
    gates = _project(x, W[:, H:].T, np.concatenate(biases))
    h, c = _states(h0, len(x)), _states(c0, len(x))
    for t, z in enumerate(gates):
        z += h[t] @ W[:, :H].T
        _activate(z[:, : 3 * H], "sigmoid")
        _activate(z[:, 3 * H :], "tanh")
        f, i, o, g = _gates(z)
        np.multiply(f, c[t], out=c[t + 1])
        c[t + 1] += i * g
        np.multiply(o, np.tanh(c[t + 1]), out=h[t + 1])
    return gates, h, c, W


def _gates(z):
    """[N,4H] → [4,N,H], views."""
    return z.reshape(len(z), 4, -1).swapaxes(0, 1)


def _allowed(mask, causal, M):
    if not causal:
        return mask
    return np.tri(M, dtype=bool) if mask is None else mask & np.tri(M, dtype=bool)


def _scale(q):
    return q * q.shape[-1] ** -0.5


def _attend(q, k, allowed):
    """The weights softmax(q kᵀ) of a scaled q."""
    scores = q @ k.mT
    if allowed is None:
        return _softmax(scores, out=scores)
    np.copyto(scores, -np.inf, where=~allowed)
    return _softmax(scores, out=scores, empty=~allowed.any(axis=-1, keepdims=True))


def _product(p, v, allowed):
    """p v, where p is 0 unless allowed. NaN and ∞ reach only what may read them, although 0 · NaN is NaN."""
    y = p @ v
    if allowed is None or np.isfinite(y).all():
        return y
    p, finite = np.where(allowed, p, 0), np.isfinite(v)
    reads = allowed.astype(v.dtype) @ (~finite).astype(v.dtype) > 0
    return np.where(reads, p @ v, p @ np.where(finite, v, 0))


def _through_attention(dy, q, k, v, P, allowed):
    """The gradients of the unscaled q, of k and of v; q is given scaled."""
    dS = dy @ v.mT
    if allowed is not None:
        np.copyto(dS, 0, where=~allowed)
    _through_softmax(dS, P)
    by_key = None if allowed is None else allowed.mT
    return _scale(_product(dS, k, allowed)), _product(dS.mT, q, by_key), _product(P.mT, dy, by_key)


def _heads(q, k, v, W_q, W_k, W_v):
    """Every array's projections to all heads, one GEMM each, [B,h,L,d]; the queries scaled."""
    Q, K, V = (_split(_project(x, _side_by_side(W)), len(W)) for x, W in ((q, W_q), (k, W_k), (v, W_v)))
    return _scale(Q), K, V


def _side_by_side(W):
    """[h,F,d] → [F,h·d]."""
    return W.swapaxes(0, 1).reshape(W.shape[1], -1)


def _split(x, h):
    """[B,L,h·d] → [B,h,L,d]."""
    return x.reshape(*x.shape[:2], h, -1).swapaxes(1, 2)


def _concat(x):
    """[B,h,L,d] → [B,L,h·d], the heads side by side."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
