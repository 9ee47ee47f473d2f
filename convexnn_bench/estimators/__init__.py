"""Estimators for scikit-learn, each fit with a certificate.

Importing them imports scikit-learn.
"""

from convexnn_bench.estimators.classifier import ConvexMLPClassifier
from convexnn_bench.estimators.classifier_cv import ConvexMLPClassifierCV
from convexnn_bench.estimators.regressor import ConvexMLPRegressor
from convexnn_bench.estimators.regressor_cv import ConvexMLPRegressorCV
