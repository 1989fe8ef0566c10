"""Clean up under `home`, and repair the ledger."""
