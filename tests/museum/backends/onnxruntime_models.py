"""ONNX Runtime's CPU provider: MaxPool, Softmax and, from opset 23 on, Attention, as models of one node each."""

from functools import lru_cache

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

NAME = f"onnxruntime {ort.__version__}"
dtypes = ("float32",)


def softmax(x):
    return _run("Softmax", 17, ("x",), {"x": x}, axis=-1)


def maxpool2d(x, window, stride=(1, 1)):
    image = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    y = _run("MaxPool", 17, ("x",), {"x": image}, kernel_shape=window, strides=stride)
    return np.ascontiguousarray(y.transpose(0, 2, 3, 1))


def attention(q, k, v, mask=None, causal=False):
    given = {"q": q, "k": k, "v": v}
    if mask is not None:
        given["mask"] = mask
    return _run("Attention", 23, tuple(given), given, is_causal=int(causal))


def _run(node, opset, names, given, **attributes):
    return _session(node, opset, names, tuple(attributes.items())).run(
        None, {name: np.ascontiguousarray(a) for name, a in given.items()}
    )[0]


@lru_cache(maxsize=256)
def _session(node, opset, names, attributes):
    kinds = {"mask": TensorProto.BOOL}
    inputs = [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in names]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(node, names, ["y"], **dict(attributes))], "one_node", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
