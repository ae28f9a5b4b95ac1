"""Tests: run `python -m pytest` after each change, `python -m pytest -m slow` before a release."""
