"""DuckDB: which files are a table, and what a query may read."""
