"""What events do, many of a location at once."""
