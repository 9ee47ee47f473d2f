"""The operator A(Z) = C(sum_k D_k Phi Z_k), its adjoint and its factored form."""

from convexnn_bench.operator.chunks import CHUNK_ELEMENTS
from convexnn_bench.operator.compact import CompactMatrix, DataArray, SparseMatrix, data_matrix, entries, with_entries
from convexnn_bench.operator.data import aligned_data, read_data
from convexnn_bench.operator.layers import Blocks, Predictions
from convexnn_bench.operator.lifted import Operator
from convexnn_bench.operator.rounding import (
    EPS,
    TINY,
    adjoint_rounding,
    is_moderate,
    multiplier_underflow,
    power_of_two,
    prediction_rounding,
    sum_rounding,
    underflow,
)
from convexnn_bench.operator.rows import Rows
from convexnn_bench.operator.shared import SharedOperator
