"""Everything that uses Dagster: components, the assets of each stage, versions, checks, the build.

The work itself is in the core modules; here it is named, wired, versioned and reported.
"""
