"""Points in the coordinates of the row space as points of the problem itself.

`Instance.in_row_space` makes these coordinates.
"""

import numpy as np
from jaxtyping import Float

from convexnn_bench.formulations import Point


def lifted(point: Point, Q: Float[np.ndarray, "p r"] | None) -> Point:
    """Return the convex point with blocks Q Z'; Q: an orthonormal basis, or None for the point itself.

    Vectors of the cones stay in their cones up to the rounding of the product, which certificates allow for.
    """
    if Q is None:
        return point
    split = None if point.split is None else Q @ point.split
    factors = None if point.cone_factors is None else (Q @ point.cone_factors[0], point.cone_factors[1])
    return Point(Q @ np.asarray(point.blocks), split=split, cone_factors=factors, dual=point.dual)
