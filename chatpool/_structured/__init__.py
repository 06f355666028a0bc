"""Typed answers: ``parse=``, ``json_schema()``, ``accept=`` and re-asking.  Knows no pool."""
