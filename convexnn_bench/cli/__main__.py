"""`python -m convexnn_bench.cli`, as under torchrun."""

from convexnn_bench.cli import main

if __name__ == "__main__":
    main()
