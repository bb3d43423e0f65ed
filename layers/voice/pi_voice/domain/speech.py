"""Types of what an agent says, shared by agents and by the overrides of a session."""

from typing import Annotated

from pydantic import StringConstraints

LanguageTag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35)]
"""A well-formed BCP 47 tag (RFC 5646, section 2.1), such as `de` or `pt-BR`."""

Words = Annotated[str, StringConstraints(max_length=1000)]
"""First or last words of an agent."""

Question = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"\S")]
