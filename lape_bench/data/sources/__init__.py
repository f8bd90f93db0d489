"""Sources of recordings: archives, downloads and their checksums."""
