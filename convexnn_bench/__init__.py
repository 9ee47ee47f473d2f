"""convexnn_bench: train two-layer networks in three forms, with certified gaps.

The public names stand in `__init__.pyi`. They are imported on first use, so that `import convexnn_bench` and the
command line's --help stay fast.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *_names]
