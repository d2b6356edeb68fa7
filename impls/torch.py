"""PyTorch's own operations, called and not rewritten: it is PyTorch that is judged.

The contract's layouts reach it as views (an image in NHWC order is what PyTorch calls channels_last; a weight is
transposed by its strides), so that nothing is copied that PyTorch does not copy itself.
"""

import warnings
from functools import wraps

import torch
from torch.nn import functional as F

from ..spec import Arithmetic
from . import tensors
from .validation import checked, validate

NAME = "torch"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtypes = ("float64", "float32", "float16", "bfloat16")
_NAN_QUERY = "pytorch#141128: on the CPU a NaN query gives 0, not NaN, where a vector register holds more than its keys"
KNOWN_DEFECTS: dict[tuple[str, ...], str] = (
    {
        **{(operation, "special"): _NAN_QUERY for operation in ("attention", "multihead_attention")},
        ("conv2d", "special", "bfloat16"): "oneDNN, not reported yet: an infinite pixel makes its neighbours NaN",
    }
    if DEVICE.type == "cpu"
    else {}
)

_ACTIVATIONS = {"identity": lambda z: z, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
_OF_PRODUCTS = ("dense", "rnn", "lstm", "multihead_attention")
_RECURRENCES = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


def _of_products(function):
    """A function that hands its arrays to oneDNN's products of matrices as they lie."""

    @wraps(function)
    def call(*arrays, **parameters):
        _refuse_odd_rows(*arrays)
        return function(*arrays, **parameters)

    return call


@checked
@_of_products
def dense(x, W, b, *, activation="identity"):
    """torch.nn.functional.linear, then torch.relu, sigmoid or tanh."""
    return _ACTIVATIONS[activation](F.linear(x, W.mT, b))


@checked
def mse(y_hat, y):
    """torch.nn.functional.mse_loss, halved before its sum, which float16 may not hold although it holds the half."""
    return (F.mse_loss(y_hat, y, reduction="none") / 2).sum()


@checked
def softmax(x):
    """torch.nn.functional.softmax over the last axis."""
    return F.softmax(x, dim=-1)


@checked
def conv2d(x, w, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """torch.nn.functional.conv2d on views in NCHW and OIHW order."""
    x, w = x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1)
    if reason := _defect_of_onednn(x, w, stride, padding, dilation):
        raise NotImplementedError(reason)
    if len(w) == 1:  # the stride of a lone channel makes the CPU's gradient fail: "grad_weight must be contiguous"
        w = w.contiguous()
    return F.conv2d(x, w, stride=stride, padding=padding, dilation=dilation).permute(0, 2, 3, 1)


@checked
def maxpool2d(x, *, window, stride=(1, 1)):
    """torch.nn.functional.max_pool2d on a view in NCHW order."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), window, stride).permute(0, 2, 3, 1)


@checked
@_of_products
def rnn(x, h0, W_hh, W_xh, b_h, W_yh, b_y, *, activation="tanh"):
    """torch.rnn_tanh or rnn_relu, which torch.nn.RNN calls, and linear for the outputs."""
    if activation not in _RECURRENCES:
        raise NotImplementedError(f"torch.nn.RNN knows {' and '.join(_RECURRENCES)} only, not {activation}")
    h, _ = _recur(_RECURRENCES[activation], x, _state(h0), W_xh, W_hh, b_h)
    return _ACTIVATIONS[activation](F.linear(h, W_yh, b_y)), h


@checked
@_of_products
def lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """torch.lstm, which torch.nn.LSTM calls; its gates come in the order i, f, c, o."""
    H = h0.shape[1]
    W, b = torch.cat((W_i, W_f, W_c, W_o)), torch.cat((b_i, b_f, b_c, b_o))
    h, _, c_T = _recur(torch.lstm, x, (_state(h0), _state(c0)), W[:, H:], W[:, :H], b)
    return h, c_T[0]


@checked
def attention(q, k, v, *, mask=None, causal=False):
    """torch.nn.functional.scaled_dot_product_attention, whose is_causal excludes a mask: both at once are one mask."""
    _refuse_blocks(q, q.shape[2], k.shape[2])
    if causal and mask is not None:
        mask, causal = mask.tril(), False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


@checked
@_of_products
def multihead_attention(q, k, v, W_q, W_k, W_v, W_o, *, mask=None, causal=False):
    """torch.nn.functional.multi_head_attention_forward, which torch.nn.MultiheadAttention calls, without the weights.

    It ties the widths to d_k = d_v = F / h; other widths go through linear, scaled_dot_product_attention and linear.
    """
    B, M, features = q.shape
    _refuse_blocks(q, M, k.shape[1])
    h = len(W_q)
    P_q, P_k, P_v = (W.mT.flatten(0, 1) for W in (W_q, W_k, W_v))  # [h·d,F]
    if not len(P_q) == len(P_v) == features:
        heads = [F.linear(x, P).unflatten(-1, (h, -1)).transpose(1, 2) for x, P in ((q, P_q), (k, P_k), (v, P_v))]
        return F.linear(attention(*heads, mask=mask, causal=causal).transpose(1, 2).flatten(2), W_o.mT)
    if mask is not None:
        forbidden = ~(mask.tril() if causal else mask).expand(B, h, -1, -1).flatten(0, 1)
    else:  # is_causal, which is but a hint, insists on a mask, which it then replaces
        forbidden = torch.ones(M, M, dtype=torch.bool, device=q.device).triu(1) if causal else None
    y, _ = F.multi_head_attention_forward(
        *(x.transpose(0, 1) for x in (q, k, v)),
        embed_dim_to_check=features,
        num_heads=h,
        in_proj_weight=None,
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=W_o.mT,
        out_proj_bias=None,
        need_weights=False,
        attn_mask=forbidden,
        use_separate_proj_weight=True,
        q_proj_weight=P_q,
        k_proj_weight=P_k,
        v_proj_weight=P_v,
        is_causal=causal and mask is None,
    )
    return y.transpose(0, 1)


def vjp(function, arrays, cotangents, **parameters):
    """One gradient per array, by torch.autograd.grad; zeros for an array that no output depends on."""
    validate(function.__name__, arrays, cotangents, **parameters)
    if function.__name__ in _OF_PRODUCTS:
        _refuse_odd_rows(*arrays, *cotangents)
    leaves = [array.detach().requires_grad_() for array in arrays]
    with torch.enable_grad():
        outputs = function(*leaves, **parameters)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.autograd.grad(outputs, leaves, cotangents, materialize_grads=True)


def from_numpy(array):
    """The same numbers, strides and alignment on the device."""
    tensor = tensors.from_numpy(array)
    if DEVICE.type == "cpu":
        return tensor
    from ..kernels.launch import copied  # which imports Triton

    return copied(tensor, DEVICE)


to_numpy = tensors.to_numpy


def arithmetic(operation, dtype, gradient=True):
    """The declaration that explains the errors measured on the CPU; for CUDA, what its sources say.

    gradient=False declares the values alone, which may be more exact. In 16 bits PyTorch stores what passes between two
    kernels: an activation's argument, gates, states, the softmax that its gradient reads. Attention keeps float32 inside
    and rounds what it multiplies. Sums are of 16 bits where a kernel adds to what is stored: in the gradients of pools
    and, without oneDNN, of convolutions, and where a recurrent cell adds its two products.
    """
    cuda, onednn = DEVICE.type == "cuda", _onednn(getattr(torch, dtype))
    # the processor's products of bfloat16 take subnormal numbers for 0
    flush = onednn and dtype == "bfloat16" and operation in (*_OF_PRODUCTS, "conv2d", "attention")
    rounding = "truncate" if cuda else "nearest"  # so do tensor cores
    if dtype in ("float64", "float32"):
        if cuda and dtype == "float32" and _tf32(operation):
            return Arithmetic(dtype, operands="tf32", rounding=rounding)
        return Arithmetic(dtype, flush=onednn and operation == "lstm")
    if operation in ("attention", "multihead_attention"):
        return Arithmetic(dtype, operands=dtype, rounding=rounding, flush=flush)
    if operation in ("conv2d", "maxpool2d"):
        adds_to_stored = gradient and not cuda and not (onednn and operation == "conv2d")
        return Arithmetic(dtype, accumulator=dtype if adds_to_stored else None, rounding=rounding, flush=flush)
    if operation == "softmax" and not gradient:
        return Arithmetic(dtype, rounding=rounding)
    accumulator = dtype if operation == "lstm" and not cuda and not (onednn and dtype == "bfloat16") else None
    return Arithmetic(
        dtype, intermediates=dtype, accumulator=accumulator, function_ulps=0.5, rounding=rounding, flush=flush
    )


def _defect_of_onednn(x, w, stride, padding, dilation):
    """Why this convolution cannot be judged: what oneDNN does to it on CPUs with AVX-512 or, in bfloat16, AMX."""
    if not _onednn(x.dtype):
        return None
    # per axis and tap: how many windows read the image there, and not its padding
    rows, columns = (
        [sum(0 <= start + d * tap < n for start in range(-p, n + p - d * (k - 1), s)) for tap in range(k)]
        for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    )
    output_width = (x.shape[3] + 2 * padding[1] - dilation[1] * (w.shape[3] - 1) - 1) // stride[1] + 1
    if output_width == 1 and stride[1] > 1 and (x.shape[1] == 1 or x.dtype == torch.bfloat16):
        return "as in pytorch#169688, output of width 1, stride over 1, one channel or bfloat16: its rows are mixed up"
    if x.dtype != torch.float32 and not all(columns):
        return "oneDNN#5942, a weight that meets only padding: its gradient is stray memory, or the process ends"
    if x.dtype != torch.float32 and not any(rows):
        return "oneDNN, not reported yet: where no window meets a row of the image the process ends"
    return None


def _refuse_odd_rows(*tensors):
    """Raises NotImplementedError for what oneDNN's bfloat16 products misread: rows are taken in pairs of numbers, and
    what lies behind an odd one, in a gap or in the next row, is multiplied by 0 and added."""
    if tensors[0].dtype != torch.bfloat16 or not _onednn(tensors[0].dtype):
        return
    rows = [(t, t.shape[t.stride().index(1)] if 1 in t.stride() else 0) for t in tensors]
    odd = [(t, row) for t, row in rows if row % 2]
    apart = any(n > 1 and stride > row for t, row in odd for n, stride in zip(t.shape, t.stride(), strict=True))
    if apart or (odd and not all(t.isfinite().all() for t in tensors)):
        raise NotImplementedError(
            "oneDNN, not reported yet: the number behind an odd row is read in bfloat16, and 0 times NaN is NaN"
        )


def _refuse_blocks(q, M, S):
    """Raises NotImplementedError where the CPU's gradients of attention are sums of blocks, of 32 queries or more and of
    512 keys, each added to what is stored in 16 bits (FlashAttentionKernel.cpp)."""
    if DEVICE.type == "cpu" and q.requires_grad and q.element_size() == 2 and (M > 32 or S > 512):
        raise NotImplementedError(
            "gradients are summed in 16 bits over blocks of queries and keys, which is not declared"
        )


def _state(h):
    """The state before the first step of one layer; cuDNN refuses one that is not contiguous."""
    return h[None].contiguous()


def _recur(function, x, state, W_ih, W_hh, b):
    """One layer in one direction, without dropout. PyTorch adds a second bias, which the equations do not have."""
    weights = [W_ih, W_hh, b, torch.zeros_like(b)]
    train = torch.is_grad_enabled() and any(w.requires_grad for w in weights)  # keep what the gradient needs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single")  # cuDNN, concerned about speed
        return function(x, state, weights, True, 1, 0.0, train, False, False)


def _tf32(operation):
    """Whether PyTorch's switches let tensor cores round float32 operands; by default cuDNN's are on, the others off."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    switches = {"conv2d": (cudnn.conv,), "rnn": (cudnn.rnn, matmul), "lstm": (cudnn.rnn,)}
    switches |= dict.fromkeys(("dense", "attention", "multihead_attention"), (matmul,))
    return any(switch.fp32_precision == "tf32" for switch in switches.get(operation, ()))


def _onednn(dtype):
    """Whether it is oneDNN that computes convolutions and, but for float16, LSTMs: in 16 bits, where processors can."""
    if DEVICE.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or (dtype == torch.float16 and torch.ops.mkldnn._is_mkldnn_fp16_supported())
