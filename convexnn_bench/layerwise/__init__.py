"""Convolutional networks trained stage by stage, each a convex problem.

Each stage has a certificate (Sahiner et al., 2024).
"""

from convexnn_bench.layerwise.experiment import BASELINES, DEFAULT_STAGES, Plan, run_layerwise, stage_plan
from convexnn_bench.layerwise.network import LayerwiseNetwork
from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.result import LayerwiseResult
from convexnn_bench.layerwise.run import train_layerwise
from convexnn_bench.layerwise.stage import Stage
from convexnn_bench.layerwise.streamed import certify_stage
from convexnn_bench.layerwise.training import StageTraining
