"""What a score is worth."""
