"""What a job is: values only."""
