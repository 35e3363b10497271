"""An interested lead is linked to its contact, and gets one when GHL has none."""
