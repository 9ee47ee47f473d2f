"""Hypothesis as the suite uses it: the same examples in every run, and no deadline. Import it from here."""

from hypothesis import HealthCheck, example, given, settings, strategies
from hypothesis.internal.conjecture import providers

__all__ = ["example", "given", "settings", "strategies"]

settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")
# Hypothesis mixes constants from all modules that happen to be loaded into its examples. These would then depend on
# which tests the same process ran before, and there is no public setting against it.
providers._get_local_constants = lambda: providers._local_constants
