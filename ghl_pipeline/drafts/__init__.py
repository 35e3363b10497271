"""Replies written for an operator to send: when a lead answers, a draft is at hand. Nothing here sends anything."""
