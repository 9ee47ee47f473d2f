"""What a neuron does with its pre-activation, one class per file.

There are linear, gated ReLU and ReLU.
"""

from convexnn_bench.activations.base import BaseActivation
from convexnn_bench.activations.gated_relu import GatedReLU
from convexnn_bench.activations.linear import Linear
from convexnn_bench.activations.relu import ReLU
