"""The EmailBison API as one client's workspace sees it."""
