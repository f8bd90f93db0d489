"""`python -m lape_bench` is `bench`."""

from lape_bench.cli.app import main

if __name__ == "__main__":
    main()
