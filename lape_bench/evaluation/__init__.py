"""Plan, run, score and record cells."""
