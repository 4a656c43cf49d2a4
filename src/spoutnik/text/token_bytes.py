"""The bytes of single tokens, which need not be whole characters, in any kind of tokenizer."""

import re

from spoutnik.text.alignment import token_bytes
from spoutnik.text.tokenizer import Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes of any token of one tokenizer: a byte-level one, or one of SentencePiece's kind, which writes spaces as U+2581."""

    def __init__(self, tokenizer: Tokenizer):
        self._backend, self._table = tokenizer.backend, token_bytes(tokenizer)

    def of(self, token_id: int) -> bytes:
        """The token's bytes as they stand in a text; none for an unknown token."""
        if self._table is not None:
            return self._table[token_id] if 0 <= token_id < len(self._table) else b""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        byte = BYTE_TOKEN.fullmatch(token)
        return str(token).replace("\u2581", " ").encode() if byte is None else bytes([int(byte[1], 16)])
