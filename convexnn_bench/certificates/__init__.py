"""Certificates: the only place with duality in it."""

from convexnn_bench.certificates.bounds import best_dual, certify, concluded, lower_bound
from convexnn_bench.certificates.certificate import Certificate, relative_gap
from convexnn_bench.certificates.module_report import certify_module
from convexnn_bench.certificates.points import as_point

__all__ = [
    "Certificate",
    "as_point",
    "best_dual",
    "certify",
    "certify_module",
    "concluded",
    "lower_bound",
    "relative_gap",
]
