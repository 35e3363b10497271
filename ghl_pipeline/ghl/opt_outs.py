"""Which words of a text message are an opt-out."""

import re

# The keywords that carriers (CTIA's messaging principles) and the FCC's rule of 2025 on revoking consent define.
_OPT_OUTS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
LONGEST_OPT_OUT = 60  # with all the punctuation that anybody puts around it


def opts_out(message_body: str) -> bool:
    """Whether the whole message is one of the carriers' opt-out keywords, in any case, whatever is around it.

    "Please stop by at noon" is none: only the keyword alone counts, as it does for the carriers.
    """
    if len(message_body) > LONGEST_OPT_OUT:
        return False
    return re.sub(r"[\W_]+", "", message_body).upper() in _OPT_OUTS
