"""Everything that knows Dagster: components, the assets of each stage, versions, checks, the driver.

The work itself is in the core modules; here it is named, wired, versioned and reported.
"""
