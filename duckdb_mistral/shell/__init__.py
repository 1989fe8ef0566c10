"""The functions in DuckDB clients that have no Python: an extension in their process, a helper process behind it."""
