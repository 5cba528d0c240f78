"""What surrounds a run: settings, steps, files, pictures, players, tables, sweeps."""

from support.desk.errors import speak_plainly

speak_plainly()
