"""Structured answers: ``parse=``, ``accept=``, ``max_reasks=`` and ``json_schema()``.  Nothing here knows a pool.

* ``validation``: the keywords; all that programs need that parse nothing.
* ``answer_review``: reviews answers: accepts them, parses them, or has them asked for again.
* ``parse``: makes one function from text to value of all that ``parse=`` takes.
* ``json_text``: JSON in the text of an answer, and errors in words that a model can use.
* ``annotations``: walks over the types that annotations name; ``from_json`` makes values of them that way, and
  ``json_schema`` JSON schemas.
* ``strict_schema``: the schemas that servers take in strict mode; ``pydantic_schema``: those of pydantic's types.
"""
