"""Messages of leads, imported from GHL."""
