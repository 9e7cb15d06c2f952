"""What the command line and the service share."""
