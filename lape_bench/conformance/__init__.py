"""The claims of a system's contract, and what they are held against."""
