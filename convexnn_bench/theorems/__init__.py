"""Theorems 3.3 to 3.5 of Sahiner et al. (ICLR 2024) as checks."""

from convexnn_bench.theorems.checks import check_full_rank, check_rank_deficient
from convexnn_bench.theorems.conditions import TheoremCheck
from convexnn_bench.theorems.curvature import Curvature, smallest_curvature
from convexnn_bench.theorems.figures import FLOOR, KINDS
from convexnn_bench.theorems.random_starts import SpuriousMinima, spurious_minima
from convexnn_bench.theorems.rank_staircase import Staircase, staircase
from convexnn_bench.theorems.trust_region import trust_region_newton
