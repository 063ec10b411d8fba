"""What a user may write."""
