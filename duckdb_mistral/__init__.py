"""The functions of Mistral's Batch API on a DuckDB connection."""
