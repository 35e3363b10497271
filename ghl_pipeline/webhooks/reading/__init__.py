"""From a body, as a provider sends it, to an event. Pure."""
