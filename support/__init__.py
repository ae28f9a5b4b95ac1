"""Everything that a paper on variational autoencoders does not mention; see support/README.md."""
