"""POST /completions: text that is continued, scored, or filled in between a prefix and a suffix."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from spoutnik.engine.scoring import Given
from spoutnik.serve.answer import End, Text, Usage
from spoutnik.serve.auth import Principal
from spoutnik.serve.dialect import principal_of, request_id_of, service_of
from spoutnik.serve.errors import InvalidRequestError
from spoutnik.serve.openai.errors import error_body
from spoutnik.serve.openai.fim import with_gap
from spoutnik.serve.openai.head import Head
from spoutnik.serve.openai.legacy_logprobs import Logprobs
from spoutnik.serve.openai.prompts import Encoded, encode
from spoutnik.serve.openai.reading import read_sampling
from spoutnik.serve.openai.schema import CompletionRequest
from spoutnik.serve.openai.usage import total, usage_body
from spoutnik.serve.responses import DONE, Patient, Streamed, data
from spoutnik.serve.service import Answers, Served, Service
