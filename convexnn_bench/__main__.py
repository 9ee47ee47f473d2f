"""Run the command line: `python -m convexnn_bench`, or `convexnn-bench`."""

import signal

# While the command line is imported, nobody could answer Ctrl-C but with a traceback: it ends the process instead.
_HANDLER = signal.getsignal(signal.SIGINT)
if _HANDLER is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from convexnn_bench.cli import main  # noqa: E402

signal.signal(signal.SIGINT, _HANDLER)

if __name__ == "__main__":
    main()
