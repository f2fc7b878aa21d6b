"""Forward passes, one file for each architecture."""
