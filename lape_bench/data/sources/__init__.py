"""Where recordings come from: archives, downloads and their checksums."""
