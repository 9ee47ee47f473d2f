"""Estimators of scikit-learn whose training objective comes with a certificate; importing them imports scikit-learn."""

from convexnn_bench.estimators.classifier import ConvexMLPClassifier
from convexnn_bench.estimators.regressor import ConvexMLPRegressor
