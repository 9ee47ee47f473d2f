"""Run the command line with `python -m convexnn_bench`."""

from convexnn_bench.cli import main

if __name__ == "__main__":
    main()
