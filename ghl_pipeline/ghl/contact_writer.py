"""Creating and changing a contact. Handed to the interested-lead workflow alone; everything else searches and links."""
