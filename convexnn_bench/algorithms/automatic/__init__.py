"""The solver "auto": predict the time of each solver on a problem, and hand a point on where its gap stops falling."""

from convexnn_bench.algorithms.automatic.choice import Candidate, Request, choose
from convexnn_bench.algorithms.automatic.features import FEATURES, features_of
from convexnn_bench.algorithms.automatic.model import MODEL_FILE, SolverModel, load_model
from convexnn_bench.algorithms.automatic.relay import Relay
