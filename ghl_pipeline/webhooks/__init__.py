"""Events from outside: the receiver, the inbox, and what each event does."""
