"""Rigorous bounds on the norms of blocks and on their dual norms, with and without cones."""

from convexnn_bench.norms.all_patterns import Adam, CompleteNorm, FreeBiasNorm, MovingBound, Rule, ascend
from convexnn_bench.norms.block_norms import max_dual_norm
from convexnn_bench.norms.cone_factors import Frame, Relaxation, cone_frames, extreme_rays, factor_block
from convexnn_bench.norms.conic_forms import NORM_FORMS, norm_cone, norm_cone_lmi, norm_form, unpack_answer
from convexnn_bench.norms.gauge import gauge_factors
from convexnn_bench.norms.spectral import EPS, MaxDualNorm, max_spectral_norm, spectral_norms
