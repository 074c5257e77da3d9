"""The assets, a module per stage: which files, which versions, what is reported."""
