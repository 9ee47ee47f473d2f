"""A user's own torch network: read as a point of a training problem, and certified."""

from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.checkpoints import load_state, module_from_state
from convexnn_bench.modules.reading import Reading, read_module
from convexnn_bench.modules.torch_losses import TrainingLoss, training_loss
