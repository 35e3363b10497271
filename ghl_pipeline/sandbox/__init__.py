"""A local server that answers like GoHighLevel, to demonstrate and test against without an account.

    what is answered    api, contact_writes, search, search_filters, search_fields, responses
    when it is not      server (token, limit, version, scope), limits, faults
    the state           world, contacts; who lives in it: people, agency
    around it           control (`/_sandbox/...`), statistics, process

It is built from HighLevel's documents and from what was seen live, and knows nothing of the client it tests: no module
here imports another part of the package, save the root of the error tree.
"""
