"""Estimators for scikit-learn, each fit with a certificate. Importing them imports scikit-learn."""

from convexnn_bench.estimators.classifier import ConvexMLPClassifier
from convexnn_bench.estimators.regressor import ConvexMLPRegressor
