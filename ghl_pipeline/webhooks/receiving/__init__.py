"""The receiver: who sent it, is it theirs to say, is it an event; then it is stored, then answered."""
