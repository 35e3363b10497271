"""Free times of the clients' calendars, kept fresh."""
