"""The solver "auto": predict the times of solvers, and hand on a point."""

from convexnn_bench.algorithms.automatic.choice import Candidate, Request, choose
from convexnn_bench.algorithms.automatic.features import FEATURES, features_of
from convexnn_bench.algorithms.automatic.model import MODEL_FILE, SolverModel, load_model
from convexnn_bench.algorithms.automatic.relay import Relay
