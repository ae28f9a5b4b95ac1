"""The benches: how fast, how good, and beside what (bench/README.md)."""
