"""Thinking that a client carries for us between requests, in a field that it sends back as it came.

Nothing is kept here between requests, so where a client does not want to see the thinking, or drops all but such a field (Anthropic's
`signature`, OpenAI's `encrypted_content`), the field holds it. It is written in another alphabet, not kept secret: it is the caller's own.
"""

import base64
import binascii

MARK = "spoutnik.thinking."


def carry(thinking: str) -> str:
    """The field."""
    return MARK + base64.urlsafe_b64encode(thinking.encode()).decode()


def carried(field: str) -> str | None:
    """The thinking in a field; None where it is another server's."""
    if not field.startswith(MARK):
        return None
    try:
        return base64.urlsafe_b64decode(field.removeprefix(MARK)).decode()
    except (binascii.Error, ValueError):
        return None
