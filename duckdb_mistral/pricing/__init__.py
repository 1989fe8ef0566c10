"""What a batch will cost, and did."""
