"""The parts around audiocnn.py: one subject a file; README.md in this folder says which file may import which."""
