"""Certificates: proven bounds on how far a point is from the global optimum."""

from convexnn_bench.certificates.bounds import best_dual, lower_bound
from convexnn_bench.certificates.certificate import Certificate, relative_gap
from convexnn_bench.certificates.certification import certify
from convexnn_bench.certificates.conclusion import concluded, strengthened
from convexnn_bench.certificates.joint_bound import JointBound
from convexnn_bench.certificates.objective import check_conjugate, loss_upper_bound, objective_upper_bound
from convexnn_bench.certificates.other_betas import Line, Witness, line, mixed, witness
from convexnn_bench.certificates.picture import bar, certificate_html, enclosure_words, legend, rounded
from convexnn_bench.certificates.points import PointLike, as_point
