"""What Python users call; `lape_bench` gives its names."""
