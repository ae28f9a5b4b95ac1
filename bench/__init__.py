"""The benchmarks: how fast, how good, and compared with what (bench/README.md)."""
