"""What `python -m benchmarks.reproduce.mahppo` runs."""

from benchmarks.reproduce.mahppo.page import main

if __name__ == "__main__":
    main()
