"""Read records as tables, verify them, and merge folders of them."""
