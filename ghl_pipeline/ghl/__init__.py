"""The GHL API: client, throttle, search grammar, payloads, errors, phone and id rules. Knows nothing of leads."""
