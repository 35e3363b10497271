"""A local server that answers like GoHighLevel and EmailBison, to demonstrate and test without an account.

    what GHL answers    api, contact_writes, search, search_filters, search_fields, conversations, responses
    when it does not    server (token, limit, version, scope), limits, faults, transport
    EmailBison          emailbison (its API), workspaces (who and what is in them), emailbison_payloads
    webhooks of both    webhook_orders (what can be sent), webhook_events, webhook_payloads, webhook_keys,
                        webhook_sender (on order), webhook_target (by themselves, on every change)
    the state           world, contacts; who lives in it: people, agency
    around it           control and webhook_control (`/_sandbox/...`), statistics, process

It is built from the vendors' documents and from what was seen live, and knows nothing of the client it tests: no module
here imports another part of the package, save the root of the error tree.
"""
