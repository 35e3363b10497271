"""What people use today to get a location's contacts, as small programs of their own that are measured as processes.

Each reads where to ask from the environment (`asked.py`), only reads, and prints how many answers held a contact.
"""
