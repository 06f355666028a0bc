"""The methods of a pool that have the API's own words: sound, pictures, moderation, stored files, models."""

from __future__ import annotations

import os
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from .._files import atomic_replace
from .._wire import MODELS_REQUEST, model_names_in
from .._wire.media import (
    FileLike,
    moderation_request,
    picture_request,
    pictures_in,
    results_in,
    speech,
    stored_file_path,
    stored_files_in,
    text_in,
    transcription,
    translation,
    upload_request,
)
from ..errors import APIResponseError, ConfigurationError
from ..types import ChatRequest
from .options import CallDefaults, body_fields

__all__ = ["ApiMethods", "StoredFiles"]

_CALL_KEYWORDS = ("timeout", "retry", "headers", "query", "priority", "wait_for_day", "when_down")
_MAX_PAGES = 10_000  # of a list of files


class ApiMethods:
    """The part of a pool that speaks of sound, pictures, moderation, files and models."""

    _defaults: CallDefaults

    def _perform(self, request: ChatRequest, options: Mapping[str, Any]) -> Any:
        """Return the answer to a request; ``options`` are keywords of :meth:`ChatPool.request`."""
        raise NotImplementedError

    def transcribe(self, audio: FileLike, *, response_format: str = "text", **params: Any) -> Any:
        """Return the text that is spoken in a sound.

        Args:
            audio: a path (a str too; read from the disk at each attempt), bytes, a binary file, or a tuple (filename,
                content).
            response_format: ``"text"`` for a str; ``"srt"`` or ``"vtt"`` for a str of subtitles; ``"json"``,
                ``"verbose_json"`` or ``"diarized_json"`` for the server's dict. A text is asked for as JSON, which all
                models have.
            params: fields of the form, for instance ``model="whisper-1"``, ``language="de"`` or
                ``timestamp_granularities=["word"]``; and ``timeout``, ``retry``, ``headers``, ``query``, ``priority``,
                ``wait_for_day`` and ``when_down`` as in :meth:`chat`.

        Raises:
            ConfigurationError: the file cannot be read.
            ChatPoolError: as :meth:`chat`.
        """
        return self._transcribed("transcribe", transcription, audio, response_format, params)

    def translate(self, audio: FileLike, *, response_format: str = "text", **params: Any) -> Any:
        """Return the English text of a sound; arguments and errors as for :meth:`transcribe`."""
        return self._transcribed("translate", translation, audio, response_format, params)

    def speak(
        self,
        text: str,
        *,
        to: Union[str, os.PathLike[str], None] = None,
        voice: Any = "alloy",
        response_format: Optional[str] = None,
        **params: Any,
    ) -> Any:
        """Return a sound in which a text is spoken.

        Args:
            text: the text.
            to: the file for it, which is replaced once the sound is whole. Default: its bytes are returned.
            voice: a name that the server knows.
            response_format: as for :func:`chatpool.speech`.
            params: body fields, for instance ``model="tts-1"``; and the keywords that :meth:`transcribe` takes.

        Returns:
            The path, or bytes.

        Raises:
            ConfigurationError: the file cannot be written.
            ChatPoolError: as :meth:`chat`.
        """
        options, fields = self._split("speak", params)
        request = speech(text, to=to, voice=voice, response_format=response_format, **fields)
        return self._perform(request, options)

    def images(
        self,
        prompt: str,
        *,
        to: Union[str, os.PathLike[str], None] = None,
        image: Any = None,
        mask: Any = None,
        **params: Any,
    ) -> List[Any]:
        """Return pictures for a prompt.

        Args:
            prompt: what they show, or what is changed in ``image``.
            to: the file for the picture; of several the second one gets the ending ``-2`` before its suffix.
                Default: their bytes are returned.
            image: a picture that is changed (a path, bytes, a binary file), or a list of them.
            mask: a picture whose transparent places say where.
            params: body fields, for instance ``model="gpt-image-1"``, ``n=2`` or ``size="1024x1024"``; and the keywords
                that :meth:`transcribe` takes.

        Returns:
            A list of paths, or of bytes. A picture of which the server gives only the address is a str: nothing is
            fetched from there, as it may be anybody's.

        Raises:
            APIResponseError: there is no picture in the answer, or with ``to`` only its address.
            ConfigurationError: a file cannot be read or written.
            ChatPoolError: as :meth:`chat`.
        """
        options, fields = self._split("images", params)
        pictures = pictures_in(self._perform(picture_request(prompt, image, mask, fields), options))
        return pictures if to is None else _saved_all(pictures, pathlib.Path(to))

    def moderate(self, text: Any, **params: Any) -> Any:
        """Return the moderation of a text: a dict with ``flagged``, ``categories`` and ``category_scores``.

        Args:
            text: a str; or a list of them, or of parts with images, for a list of dicts.
            params: body fields, for instance ``model="omni-moderation-latest"``; and the keywords that
                :meth:`transcribe` takes. The pool's own model is not sent.

        Raises:
            ChatPoolError: as :meth:`chat`.
        """
        options, fields = self._split("moderate", params, with_model=False)
        results = results_in(self._perform(moderation_request(text, fields), options))
        return results[0] if isinstance(text, str) else results

    @property
    def files(self) -> StoredFiles:
        """The files that are stored at the server."""
        return StoredFiles(self)

    def models(self, **options: Any) -> List[str]:
        """Return the names of the server's models.

        Args:
            options: ``timeout``, ``retry``, ``headers``, ``query``, ``priority``, ``wait_for_day`` and ``when_down`` as
                in :meth:`chat`.

        Raises:
            ChatPoolError: as :meth:`chat`.
        """
        answer = self._perform(MODELS_REQUEST, options)
        names = model_names_in(answer)
        if names is None:
            raise APIResponseError("the server's answer to GET /models is no list of models", body=answer)
        return names

    def _split(
        self, method: str, params: Mapping[str, Any], *, with_model: bool = True
    ) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """Return the options of a call, and the body fields, among its keywords."""
        fields = {name: value for name, value in params.items() if name not in _CALL_KEYWORDS}
        prompt = {"prompt": fields.pop("prompt")} if "prompt" in fields else {}  # a field here, and no option of a run
        fields = {**prompt, **body_fields(method, fields.pop("extra_body", None), fields)}
        if with_model and self._defaults.model is not None:
            fields.setdefault("model", self._defaults.model)
        return {name: params[name] for name in _CALL_KEYWORDS if name in params}, fields

    def _transcribed(
        self, method: str, make: Any, audio: FileLike, response_format: str, params: Mapping[str, Any]
    ) -> Any:
        options, fields = self._split(method, params)
        is_text = response_format == "text"
        request = make(audio, response_format="json" if is_text else response_format, **fields)
        answer = self._perform(request, options)
        return text_in(answer) if is_text else answer


class StoredFiles:
    """The files that are stored at the server; ``pool.files``.

    Every method takes ``timeout``, ``retry``, ``headers``, ``query``, ``priority``, ``wait_for_day`` and
    ``when_down`` as :meth:`ChatPool.chat` does, and raises what that raises.
    """

    def __init__(self, pool: ApiMethods) -> None:
        self._pool = pool

    def upload(self, file: Any, purpose: str, *, expires_after: Optional[int] = None, **options: Any) -> Dict[str, Any]:
        """Store a file, and return the server's dict of it, with its ``id``.

        An upload whose answer is lost is sent again: then the file may be there twice.

        Args:
            file: a path (a str too), which is streamed from the disk; bytes; a binary file; or a tuple (filename,
                content).
            purpose: ``"batch"``, ``"assistants"``, ``"fine-tune"``, ``"vision"``, ``"user_data"`` or ``"evals"``.
            expires_after: seconds until the server removes it. Default: the server's.
        """
        answer: Dict[str, Any] = self._pool._perform(upload_request(file, purpose, expires_after), options)
        return answer

    def list(self, *, purpose: Optional[str] = None, **options: Any) -> List[Dict[str, Any]]:
        """Return the dicts of all stored files, from all pages.

        Args:
            purpose: only those that were stored for it.
        """
        query = {**(options.pop("query", None) or {}), **({} if purpose is None else {"purpose": purpose})}
        found: List[Dict[str, Any]] = []
        for _ in range(_MAX_PAGES):
            page = self._pool._perform(_get("/files"), {**options, "query": query})
            files, last = stored_files_in(page)
            found += files
            if last is None or last == query.get("after"):
                break
            query = {**query, "after": last}
        return found

    def get(self, file_id: str, **options: Any) -> Dict[str, Any]:
        """Return the dict of a stored file."""
        answer: Dict[str, Any] = self._pool._perform(_get(stored_file_path(file_id)), options)
        return answer

    def content(self, file_id: str, to: Union[str, os.PathLike[str], None] = None, **options: Any) -> Any:
        """Return the content of a stored file.

        Args:
            file_id: its id.
            to: the file for it, which is replaced once the content is whole. Default: its bytes are returned.

        Returns:
            The path, or bytes.
        """
        response: Any = "bytes" if to is None else pathlib.Path(to)
        return self._pool._perform(_get(f"{stored_file_path(file_id)}/content", response), options)

    def delete(self, file_id: str, **options: Any) -> Dict[str, Any]:
        """Remove a stored file; return the server's dict."""
        answer: Dict[str, Any] = self._pool._perform(ChatRequest({}, stored_file_path(file_id), "DELETE"), options)
        return answer


def _get(path: str, response: Any = "json") -> ChatRequest:
    return ChatRequest({}, path, "GET", response=response)


def _saved_all(pictures: List[Union[bytes, str]], path: pathlib.Path) -> List[pathlib.Path]:
    saved = []
    for number, picture in enumerate(pictures, 1):
        if isinstance(picture, str):
            raise APIResponseError(
                "the server has given an address in the place of a picture; pass response_format='b64_json', or leave "
                "out to= and fetch it from there",
                body=picture,
            )
        saved.append(_saved(picture, path, number))
    return saved


def _saved(picture: bytes, path: pathlib.Path, number: int) -> pathlib.Path:
    target = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
    try:
        with atomic_replace(str(target)) as file:
            file.write(picture)
    except OSError as error:
        raise ConfigurationError(str(error.strerror or error)) from error
    return target
