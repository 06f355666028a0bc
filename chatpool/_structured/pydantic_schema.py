"""pydantic's JSON schemas in a form that can be made strict.  Importing this module imports pydantic."""

from __future__ import annotations

from typing import Any, Dict

from pydantic.json_schema import GenerateJsonSchema

from .strict_schema import NO_FORM

__all__ = ["Generator"]


class Generator(GenerateJsonSchema):
    """Like pydantic's own, but a NamedTuple is an object of its fields, and types without a form stay in their places.

    pydantic makes a NamedTuple of an object as well as of a list.
    """

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as it is declared there

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Dict[str, Any]:
        return {NO_FORM: error_info}

    def named_tuple_schema(self, schema: Any) -> Dict[str, Any]:
        """Return the schema of a NamedTuple; pydantic calls this from version 2.14 on."""
        parts = {field["name"]: field["schema"] for field in schema["fields"]}
        return {
            "type": "object",
            "properties": {name: self.generate_inner(part) for name, part in parts.items()},
            "required": [name for name, part in parts.items() if part["type"] != "default"],
            "additionalProperties": False,
        }

    def p_arguments_schema(self, arguments: Any, var_args_schema: Any) -> Dict[str, Any]:
        """Return the same; pydantic calls this before that version."""
        return self.kw_arguments_schema(arguments, None)
