"""Read torch networks as points of training problems, and points as networks."""

from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.chain import chain_of
from convexnn_bench.modules.checkpoints import module_from_state
from convexnn_bench.modules.export import to_torch
from convexnn_bench.modules.folding import folded
from convexnn_bench.modules.gated import GatedAttention, GatedCNN, GatedMLP
from convexnn_bench.modules.heads import Head, head_of
from convexnn_bench.modules.lifted import ArchitectureNetwork
from convexnn_bench.modules.reader import read_module
from convexnn_bench.modules.reading import Reading
from convexnn_bench.modules.state_files import load_state
from convexnn_bench.modules.torch_losses import TrainingLoss, training_loss
from convexnn_bench.modules.weight_decay import Decay, read_weight_decay
from convexnn_bench.modules.wrappers import unwrapped
