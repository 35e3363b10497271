"""Which channel a message of GHL came by, out of the many ways in which GHL says it."""

from ghl_pipeline.ghl.payloads import Scalar, clean_text

# Webhooks say "SMS" and "Live_Chat", the export "TYPE_CAMPAIGN_SMS"; older accounts "TYPE_CUSTOM_PROVIDER_SMS".
_PREFIXES = ("TYPE_", "CAMPAIGN_", "CUSTOM_", "PROVIDER_", "MANUAL_")
_CHANNELS = {
    "SMS": "sms",
    "SMS_REVIEW_REQUEST": "sms",
    "SMS_NO_SHOW_REQUEST": "sms",
    "RCS": "rcs",
    "EMAIL": "email",
    "WHATSAPP": "whatsapp",
    "FB": "facebook",
    "FACEBOOK": "facebook",
    "MESSENGER": "facebook",
    "IG": "instagram",
    "INSTAGRAM": "instagram",
    "GMB": "gmb",
    "TIKTOK": "tiktok",
    "LIVE_CHAT": "live_chat",
    "WEBCHAT": "live_chat",
    "CUSTOM": "custom",
    # `messageTypeId`: what webhooks and workflows send where they give no name.
    "2": "sms",
    "3": "email",
}


def channel_of(message_type: Scalar) -> str | None:
    """The channel of a GHL message type, lower-case; None for calls, voicemails, comments, reviews and activities.

    The names are those of the `messageType` enum of GHL's conversations API and of the samples of its webhooks.
    """
    name = (clean_text(message_type) or "").upper().replace(" ", "_").replace("-", "_")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix) if name != prefix.rstrip("_") else name
    return _CHANNELS.get(name)
