"""From sound files to spectrograms and back; imports nothing of the algorithm."""
