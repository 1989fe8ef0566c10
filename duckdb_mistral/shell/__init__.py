"""The functions in DuckDB clients without Python: an extension in their process, and a helper process behind it."""
