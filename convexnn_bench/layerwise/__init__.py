"""Convolutional networks trained stage by stage, every stage a convex problem with a certificate (theory: Sahiner et
al., ICLR 2024, section 4.2 and appendix)."""

from convexnn_bench.layerwise.experiment import BASELINES, DEFAULT_STAGES, Plan, run_layerwise, stage_plan
from convexnn_bench.layerwise.network import LayerwiseNetwork
from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.run import LayerwiseResult, train_layerwise
from convexnn_bench.layerwise.stage import Stage
from convexnn_bench.layerwise.streamed import certify_stage
from convexnn_bench.layerwise.training import StageTraining
