"""Messages that ask not to be written to in words of their own: "stop texting me", "take me off the list". Pure.

The carriers' keywords alone (`ghl.opt_outs`) opt a lead out, which blocks every message to it for good. This rule is
wider and only keeps drafts away: a draft that is missing costs an operator a minute, one that answers "leave me alone"
with free times costs a complaint. So it may be wrong on the safe side, and it changes nothing of the lead.
"""

import re
from typing import Final

from ghl_pipeline.ghl.opt_outs import opts_out

# So much of a message is read: what somebody asks for stands at its start, quotes and small print at its end.
LONGEST_READ: Final = 600

_SIGNATURE = re.compile(
    r"(?:--+|__+|sent (?:from|via|with) (?:my|the|an?|yahoo|mail|outlook|gmail|proton|samsung|blackberry)\b.*"
    r"|get (?:outlook|boxer|bluemail) for .*|von meinem .* gesendet|enviado desde mi .*|envoy. de(?:puis)? mon .*)",
    re.IGNORECASE,
)
# Below it stands what was written before, with the small print of our own e-mails.
_QUOTE = re.compile(r">|-{3,} ?original message|on .{5,200} wrote:$|from: ?\S|am .{5,200} schrieb .*:$", re.IGNORECASE)

_KIND = r"(?:text|messag|contact|email|e mail|mail|writ|send|call|spamm?|bother|harass|bugg?|reach)"
_TO = r"(?:contact|text|message|e ?mail|mail|write|send|bother|reach|spam|disturb|bug|harass)"
_GONE = r"(?:number|phone|e ?mail|name|info|data|contact|details|please|now|from|off|out)"
_LIST = r"(?:list|lists|database|system|records?|contacts?|campaign|texts?|e ?mails?)"
_AGAIN = r"(?:again|any ?more|ever|back)"
_PHRASES = re.compile(
    "|".join(
        (
            r"\bunsub(?:scribe)?\b|\bun subscribe\b|\bunsubscribed me\b",
            r"\bopt(?:ing)?(?: (?:me|us))? out\b",
            rf"\b(?:stop|quit|cease)(?: \w+)?? {_KIND}\w*ing\b",
            rf"\bstop (?:the|these|those|this|all|your|with the|sending)(?: \w+)?? ?{_KIND}\w*s\b",
            rf"\b(?:do not|don ?t|never|please no|no need to)(?: (?:ever|you|please|dare|try to))?? {_TO}\b",
            rf"\b(?:do not|don ?t|never) (?:\w+ )??call(?: me| us| back| this number)?(?: \w+)?? {_AGAIN}\b",
            r"\bno more (?:text|message|e ?mail|mail|call|contact)s?\b",
            rf"\b(?:remove|delete|erase) (?:me|us|my|our|this) ?(?:$|{_GONE})",
            rf"\b(?:take|get|drop) (?:me|us|(?:my|our) \w+)(?: \w+)?? (?:off|from|out of) (?:\w+ ){{0,3}}{_LIST}\b",
            r"\b(?:take|get) me off\b(?! (?:the|your) (?:schedule|calendar|road))",
            r"\bleave (?:me|us) (?:alone|be|in peace)\b",
            r"\bgo away\b|\b(?:fuck|piss|bugger) off\b|\b(?:lose|delete|forget|block) (?:my|this) number\b",
            r"\b(?:deja|deje|dejen|para|pare|paren) de \w+|\bno me \w+ m[a\u00e1]s\b|\bb[o\u00f3]rr[ae]n?me\b",
        )
    )
)
_POLITE = r"(?:please|pls|plz|just|ok|okay|hey|hi|hello|thanks|thank you|now|it|this|already|all|immediately|sir|and)"
_STOP = re.compile(rf"(?:{_POLITE} )*(?:stop|unsubscribe|opt ?out)(?: {_POLITE})*")


def opts_out_in_words(message_body: str) -> bool:
    """Whether what a lead wrote, without its signature and what it quotes, asks for no more messages.

    Args:
        message_body: of the message; the first `LONGEST_READ` letters are enough.
    """
    lines = _own_lines(message_body)
    if opts_out(" ".join(lines)):
        return True
    sentences = [_words(sentence) for line in lines for sentence in re.split(r"[.!?;]+(?=\s|$)", line)]
    if any(_STOP.fullmatch(sentence) for sentence in sentences):
        return True
    return _PHRASES.search(_words(" ".join(lines))) is not None


def _own_lines(body: str) -> list[str]:
    lines = []
    for line in body.splitlines():
        told = line.strip()
        if _QUOTE.match(told) or _SIGNATURE.fullmatch(told):
            break
        if told:
            lines.append(told)
    return lines


def _words(text: str) -> str:
    """Lower-case words with single spaces: apostrophes, hyphens and all other marks are one."""
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split())
