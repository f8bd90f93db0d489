"""`python -m lape_bench` is `bench`."""

from lape_bench.cli import main

if __name__ == "__main__":
    main()
