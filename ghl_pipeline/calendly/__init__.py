"""The Calendly API as one client's account sees it."""
