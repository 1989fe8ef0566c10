"""DuckDB for our own work."""
