"""The accounts that clients' workspaces send by, and leads whose account cannot send any more."""
