"""What `python -m benchmarks.reproduce` runs."""

from benchmarks.reproduce.summary import main

if __name__ == "__main__":
    main()
