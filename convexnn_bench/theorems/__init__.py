"""Theorems 3.3 to 3.5 of Sahiner et al. (ICLR 2024) as checks that can be called and watched."""

from convexnn_bench.theorems.figures import FLOOR, KINDS
from convexnn_bench.theorems.trust_region import trust_region_newton

__all__ = ["FLOOR", "KINDS", "trust_region_newton"]
