"""Which clients the agency has, where each one's GHL location is, and how it may be reached."""
