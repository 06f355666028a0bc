"""Pictures at a :class:`FakeServer`: small squares of one colour, which depends on the prompt."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from typing import Any, Callable, Dict, Mapping, Optional

from .files import unix_time
from .received import ReceivedRequest
from .routing import Content, Routes, invalid_request, json_handler, not_found

__all__ = ["Images"]

_SIDE_PIXELS = 8
_MAX_COUNT = 10


class Images:
    """Answers the paths of ``/images``.

    Args:
        origin: returns the server's origin, of which the addresses of pictures are made.
    """

    def __init__(self, origin: Callable[[], str]) -> None:
        self._origin = origin
        self.routes: Routes = {
            ("POST", "/images/generations"): json_handler(self._generate),
            ("POST", "/images/edits"): self._edit,
            ("POST", "/images/variations"): self._vary,
            ("GET", "/images/{id}"): _picture,
        }

    def _generate(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        if not request.body.get("prompt"):
            return invalid_request("Missing required parameter: 'prompt'.", "prompt")
        return self._pictures(request.body, text or request.prompt)

    def _edit(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        fields = request.body if isinstance(request.body, dict) else request.form
        images = fields.get("images") or [part for part in request.files if part.name in ("image", "image[]")]
        if not images or not fields.get("prompt"):
            missing = "prompt" if images else "image"
            return invalid_request(f"Missing required parameter: '{missing}'.", missing)
        return self._pictures(fields, text or request.prompt)

    def _vary(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        contents = [part.content for part in request.files if part.name == "image"]
        if not contents:
            return invalid_request("Missing required parameter: 'image'.", "image")
        return self._pictures(request.form, text or hashlib.blake2b(contents[0]).hexdigest())

    def _pictures(self, fields: Mapping[str, Any], seed: str) -> Content:
        """Return pictures made of ``seed``; as many and in the form that the ``fields`` ask for."""
        count = str(fields.get("n") or 1)
        if not count.isdigit() or not 1 <= int(count) <= _MAX_COUNT:
            return invalid_request(f"Invalid value: '{count}'. Expected an integer from 1 to {_MAX_COUNT}.", "n")
        default = "url" if str(fields.get("model", "")).startswith("dall-e") else "b64_json"
        name = fields.get("response_format") or default
        if name not in ("url", "b64_json"):
            return invalid_request(f"Invalid value: '{name}'. Supported: 'url', 'b64_json'.", "response_format")
        colours = [_colour(f"{seed} {number}") for number in range(int(count))]
        data = [{name: self._url(colour) if name == "url" else _base64(colour)} for colour in colours]
        return Content(200, {"created": unix_time(), "data": data, "usage": _usage(seed, len(data))})

    def _url(self, colour: bytes) -> str:
        return f"{self._origin()}/v1/images/{colour.hex()}.png"


def _colour(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=3).digest()


def _base64(colour: bytes) -> str:
    return base64.b64encode(_png(colour)).decode()


def _picture(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
    """Answer the address of a picture: its name is its colour."""
    try:
        colour = bytes.fromhex(id_in_path[: -len(".png")])
    except ValueError:
        colour = b""
    if not id_in_path.endswith(".png") or len(colour) != 3:
        return not_found("picture", id_in_path)
    return Content(200, _png(colour), "image/png")


def _png(colour: bytes) -> bytes:
    """Return a picture of one colour (red, green, blue) in the form of the PNG specification."""
    rows = (b"\0" + colour * _SIDE_PIXELS) * _SIDE_PIXELS
    head = struct.pack(">IIBBBBB", _SIDE_PIXELS, _SIDE_PIXELS, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _usage(prompt: str, count: int) -> Dict[str, Any]:
    read = len(prompt.split())
    details = {"text_tokens": read, "image_tokens": 0}
    return {
        "input_tokens": read,
        "output_tokens": count,
        "total_tokens": read + count,
        "input_tokens_details": details,
    }
