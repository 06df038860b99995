"""Converted models against the library that models are published for: `record.py` has the way to make the goldens."""
