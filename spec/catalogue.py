"""The operations that opspec knows. Nothing else lists them."""

from . import attention, conv2d, dense, lstm, maxpool2d, mse, multihead_attention, rnn, softmax

OPERATIONS = {
    module.OPERATION.name: module.OPERATION
    for module in (dense, mse, softmax, conv2d, maxpool2d, rnn, lstm, attention, multihead_attention)
}
