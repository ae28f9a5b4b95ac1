"""The slow tests: kills, faults, fuzz, two workers, real MNIST."""
