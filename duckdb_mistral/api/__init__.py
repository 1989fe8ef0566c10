"""The Batch API over HTTP."""
