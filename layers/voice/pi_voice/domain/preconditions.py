"""If-Match: a change is made only to the version that the caller has seen (RFC 9110, section 13.1.1)."""

import re
from typing import Final

from pi_voice.domain.errors import AgentVersionConflict, ErrorDetail, InvalidRequest

IF_MATCH: Final = "If-Match"

_OPAQUE: Final = r"[\x21\x23-\x7e\x80-\xff]*"
_TAG: Final = rf'(?:W/)?"{_OPAQUE}"'
_TAGS: Final = rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*"
_STRONG_TAG: Final = rf'(?<!W/)"({_OPAQUE})"'


def check_if_match(header: str | None, version: int) -> None:
    """Check a current version against the entity tags of a header, which are versions in quotes.

    `*` matches any version, a weak tag (`W/"3"`) none. Without the header any version will do. Raises InvalidRequest
    for a malformed header, and AgentVersionConflict if no tag is the version.
    """
    if header is None or header.strip() == "*":
        return
    if not re.fullmatch(_TAGS, header):
        message = 'Should be a version in double quotes, such as "3", or *.'
        raise InvalidRequest(details=[ErrorDetail(IF_MATCH, message)])
    if str(version) not in re.findall(_STRONG_TAG, header):
        raise AgentVersionConflict(version)
