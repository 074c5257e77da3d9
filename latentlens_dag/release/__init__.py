"""What a release is, and taking one from the Hub."""
