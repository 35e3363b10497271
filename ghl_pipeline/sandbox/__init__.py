"""A local server that answers like GHL, EmailBison, Calendly, OpenAI and Anthropic, to do without their accounts.

    what GHL answers    api, contact_writes, search, search_filters, search_fields, conversations, calendars, responses
    when it does not    server (token, limit, version, scope), limits, faults, transport
    EmailBison          emailbison, emailbison_senders (its API), emailbison_calls; emailbison_payloads,
                        sender_payloads; workspaces, mailboxes (who and what is in them)
    Calendly            calendly (its API), calendly_payloads, calendly_users; all calendars are of free_times
    language models     llm (their APIs), llm_answers, llm_providers (what they are told to do), llm_plans
    webhooks of both    webhook_orders (what can be sent), webhook_events, webhook_payloads, webhook_keys,
                        webhook_sender (on order), webhook_target (by themselves, on every change)
    the state           world, contacts; who lives in it: people, agency
    around it           control, webhook_control, replies_control (`/_sandbox/...`), statistics, process

It is built from the vendors' documents and from what was seen live, and knows nothing of the client it tests: no module
here imports another part of the package, save the root of the error tree.
"""
