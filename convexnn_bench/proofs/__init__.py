"""Proofs of bounds, in exact integers, that anybody can check by verify_proof.py."""

from convexnn_bench.proofs.checker import check_proof, verify_files
from convexnn_bench.proofs.proof import Proof
from convexnn_bench.proofs.prover import prove, prove_network
from convexnn_bench.proofs.verified import certify, check_verifiable, verify
