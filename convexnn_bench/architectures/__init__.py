"""The two maps of the data that a network applies, one class per file.

There are MLP, CNN and self-attention.
"""

from convexnn_bench.architectures._integers import Integers, as_integers
from convexnn_bench.architectures._with_bias import WithBias, centre_of
from convexnn_bench.architectures.attention import Attention
from convexnn_bench.architectures.base import BaseArchitecture, check_rank
from convexnn_bench.architectures.cnn import CNN
from convexnn_bench.architectures.mlp import MLP
