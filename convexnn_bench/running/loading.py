"""Load results from files that `Result.save` has written."""

from pathlib import Path

from convexnn_bench.errors import InputError
from convexnn_bench.instance_file import instance_from
from convexnn_bench.problem import Problem
from convexnn_bench.running.result import Result
from convexnn_bench.running.result_file import PLAIN, certificate_from, point_from
from convexnn_bench.storage import read_archive


def load_result(path: str | Path) -> Result:
    """Load a result that `Result.save` has written.

    Nothing in the file is run as code.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Result
        It has the same problem, point, certificate, times and curve. ``certify(result.problem, result)`` proves the
        bound anew, from the data, the point and the multiplier in the file.

    Raises
    ------
    InputError
        The file holds no result, is damaged, or is of a later version of the package.
    UnknownNameError
        The file names an architecture, an activation or a loss that is not registered here.
    OSError
        The file cannot be opened.
    """
    tree = read_archive(path, "result")
    try:
        curve = [(seconds, objective, gap) for seconds, objective, gap in tree["curve"].tolist()]
        problem = instance_from(dict(tree["problem"]), Problem, path)
        return Result(
            problem,
            **{name: tree[name] for name in PLAIN},
            curve=curve,
            certificate=certificate_from(tree["certificate"]),
            point=point_from(tree["point"], problem),
            iterations=int(tree.get("iterations", 0)),  # files of earlier versions lack it
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} cannot be read as a saved result: {words}") from error
