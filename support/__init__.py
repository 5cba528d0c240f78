"""The parts around audiocnn.py: one subject a file; see "What is where" in README.md for the order of imports."""
