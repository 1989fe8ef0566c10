"""What lies under `home`, and who may touch it."""
