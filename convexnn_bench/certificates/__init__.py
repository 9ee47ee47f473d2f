"""Certificates: the only place with duality in it."""

from convexnn_bench.certificates.bounds import certify, lower_bound
from convexnn_bench.certificates.certificate import Certificate

__all__ = ["Certificate", "certify", "lower_bound"]
