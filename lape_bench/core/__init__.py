"""What every room rests on: errors, settings, paths, progress and seeds."""
