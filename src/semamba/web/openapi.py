"""What the OpenAPI document says about each operation."""

from __future__ import annotations

from typing import Any

from semamba.web.produce import FORMATS

DESCRIPTION = """\
Better speech from noisy recordings. Send a file to `POST /v1/enhance`; for sound as it comes there is a WebSocket,
`/v1/stream`: first a text message `{"rate": 48000, "channels": 1, "format": "float32"}` (also `pcm16`; `model`,
`options` with `mix`, `attenuation_limit` and `bandwidth`, and `token` where the server asks for one), answered by
`{"type": "ready", "latency_samples": ...}`; then binary messages with interleaved samples, each answered by as many
samples; at the end a text message `{"type": "end"}`, answered by the samples still due and
`{"type": "end", "samples": ...}`."""

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One line: what is wrong and what to do."}},
    "required": ["error"],
}
_MEANINGS = {
    400: "The body is malformed.",
    401: "The server needs a token.",
    403: "The host name is not known to the server, or the request comes from the page of another site.",
    404: "There is no such thing here.",
    408: "The file comes too slowly.",
    413: "The file is too large or the sound too long for this server.",
    415: "This is no sound that can be read.",
    422: "An option makes no sense, or the file is damaged.",
    429: "Too much work at once; Retry-After says when to come back.",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    answers: dict[int | str, dict[str, Any]] = {
        code: {"description": _MEANINGS[code], "content": {"application/json": {"schema": _ERROR}}} for code in codes
    }
    if 429 in answers:
        answers[429]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return answers


_FORM = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Sound or video in any format that can be read."},
        "model": {"type": "string", "description": "A name from GET /v1/models. Default: the first one there."},
        "mix": {"type": "number", "minimum": 0, "maximum": 1, "default": 1, "description": "Share of the result."},
        "attenuation_limit": {"type": "number", "minimum": 0, "description": "dB by which noise may fall at most."},
        "pcs": {"type": "boolean", "default": False, "description": "Perceptual contrast stretching."},
        "bandwidth": {"type": "string", "enum": ["full", "model"], "default": "full"},
        "format": {"type": "string", "enum": list(FORMATS), "default": "same", "description": "Format of the answer."},
        "stream": {"type": "boolean", "default": False, "description": "WAV, sent while it is being made."},
    },
}

ENHANCE: dict[str, Any] = {
    "summary": "Enhance a file",
    "responses": {
        200: {"description": "The sound.", "content": {"application/octet-stream": _BINARY, "audio/*": _BINARY}},
        **_errors(400, 401, 403, 408, 413, 415, 422, 429),
    },
    "openapi_extra": {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
}
MODELS: dict[str, Any] = {"summary": "The models on offer", "responses": _errors(401, 403)}
HEALTH: dict[str, Any] = {"summary": "Is the server well, and how busy", "responses": _errors(403)}
WEIGHTS: dict[str, Any] = {
    "summary": "model.safetensors or config.json of a model",
    "responses": {
        200: {"description": "The file.", "content": {"application/octet-stream": _BINARY, "application/json": {}}},
        **_errors(401, 403, 404),
    },
}
