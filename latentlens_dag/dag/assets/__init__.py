"""The assets, one module per stage: their files, versions and metadata."""
