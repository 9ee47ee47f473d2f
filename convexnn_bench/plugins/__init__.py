"""Find plug-ins by scanning folders, check their parameters, and read specs."""

from convexnn_bench.plugins import registry
from convexnn_bench.plugins.parameters import (
    LIMIT,
    SEED,
    YES_OR_NO,
    Choice,
    Number,
    Whole,
    check_names,
    is_number,
    is_whole,
)
from convexnn_bench.plugins.registry import (
    ACTIVATIONS,
    ARCHITECTURES,
    DATASETS,
    EXECUTORS,
    KINDS,
    LOSSES,
    SOLVERS,
    Registry,
    add_plugins,
    importable,
    plugin_files,
    plugin_folders,
)
from convexnn_bench.plugins.specs import expand_grid, format_spec, parse_spec
