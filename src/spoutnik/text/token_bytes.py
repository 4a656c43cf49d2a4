"""The bytes of single tokens, which need not be whole characters."""

import json
import re
from functools import lru_cache

from spoutnik.text.tokenizer import Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes of any token of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self._backend = tokenizer.backend
        content = json.loads(tokenizer.backend.to_str())
        decoder = content.get("decoder") or {}
        kinds = {part["type"] for part in (decoder, *decoder.get("decoders", ()))}
        self._byte_level, self._fallback = "ByteLevel" in kinds, "ByteFallback" in kinds
        self._whole = {token["id"] for token in content["added_tokens"]}

    def of(self, token_id: int) -> bytes:
        """The token's bytes as they stand in a text; none for an unknown token."""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._whole:
            return str(token).encode()
        if self._byte_level:
            return bytes(_bytes_of_characters()[character] for character in token)
        if self._fallback and (byte := BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        return str(token).replace("▁", " ").encode()


@lru_cache(maxsize=1)
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 characters are their own bytes, the other bytes follow from U+0100 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(rest)}
