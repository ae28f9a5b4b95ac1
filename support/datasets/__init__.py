"""File formats, downloads, scikit-learn's digits, and pictures of digits turned into 28x28."""
