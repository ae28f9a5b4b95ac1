"""The slow tests: kills, faults, fuzzing, two workers, real MNIST."""
