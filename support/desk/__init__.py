"""What surrounds a run: settings, steps, files, pictures, players, tables, sweeps."""
