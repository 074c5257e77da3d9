"""The tables of a home or a release, opened with SQL."""
