"""What a neuron does with its pre-activation: linear, gated ReLU and ReLU, one class per file."""

from convexnn_bench.activations.base import BaseActivation
from convexnn_bench.activations.gated_relu import GatedReLU
from convexnn_bench.activations.linear import Linear
from convexnn_bench.activations.relu import ReLU
