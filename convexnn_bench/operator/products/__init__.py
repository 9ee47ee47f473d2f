"""Ways to multiply with A.

They are a linear map, the mask matrix, hidden units, and pooled rows.
"""

from convexnn_bench.operator.products.base import ColumnProducts, Products
from convexnn_bench.operator.products.hidden_units import HiddenUnits
from convexnn_bench.operator.products.linear_map import LinearMap
from convexnn_bench.operator.products.mask_matrix import MaskMatrix
from convexnn_bench.operator.products.pooled import PooledRows, pooled_rows
