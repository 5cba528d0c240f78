"""The parts around audiocnn.py: one subject a file; README.md in this folder says which file may import which."""

import os

# How often a thread of OpenMP looks for work before the thread sleeps. By default it looks 300,000 times, and where
# another program keeps one of two cores busy, 5 s of texture took 144 s; with 5,000 they take 16 s, and on two idle
# cores 9 s both ways (by hand). PyTorch reads the variable when it is imported, so a script imports this package first.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
