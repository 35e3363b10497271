"""Events that webhooks lost, from the log that EmailBison keeps."""
