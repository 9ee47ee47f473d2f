"""Hypothesis as the suite uses it: the same examples in every run, and no deadline. Import it from here."""

from hypothesis import HealthCheck, given, settings, strategies

__all__ = ["given", "settings", "strategies"]

settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")
