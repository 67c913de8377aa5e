"""Licences of weights: what the Hub calls them, which forbid commercial use, and that none gets lost on the way."""

import re
from collections.abc import Iterable

# The Hub's own identifiers: huggingface.co/docs/hub/repositories-licenses
_IDENTIFIERS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown
"""
HUB_LICENCES = frozenset(_IDENTIFIERS.split())


def stated_parts(licence: str | None) -> list[str]:
    """Return the licences that hold all at once, as they are written; ``["unknown"]`` if none is stated.

    An ``OR`` that is not in brackets leaves a choice of all that stands around it, so that is one part.
    """
    text = (licence or "unknown").strip()
    if text.startswith("(") and _between(" ", text) == [text] and text.endswith(")"):
        return stated_parts(text[1:-1])
    parts = _between(" AND ", text)
    if len(parts) == 1 or len(_between(" OR ", text)) > 1:
        return [text]
    return [inner for part in parts for inner in stated_parts(part)]


def licence_parts(licence: str | None) -> tuple[str, ...]:
    """Return the licences that hold all at once, in lower case; ``("unknown",)`` if none is stated."""
    return tuple(sorted({part.lower() for part in stated_parts(licence)}))


def joint_licence(licences: Iterable[str | None]) -> str | None:
    """Return the licence of what is made of parts under these, None if none of them is stated (docs/format.md)."""
    distinct = {part.lower(): part for licence in licences for part in stated_parts(licence)}
    if list(distinct) in ([], ["unknown"]):
        return None
    several = len(distinct) > 1
    return " AND ".join(
        f"({part})" if several and len(_between(" OR ", part)) > 1 else part for part in sorted(distinct.values())
    )


def _between(word: str, licence: str) -> list[str]:
    """Split a licence at each ``word`` that is not in brackets."""
    parts, depth = [""], 0
    for piece in re.split(rf"({word}|[()])", licence):
        depth += (piece == "(") - (piece == ")")
        if piece == word and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def is_non_commercial(licence: str | None) -> bool:
    """Say whether a licence, or a part of a joint one, is marked as non-commercial by its name."""
    return any(re.search(r"(^|-)(nc|non-?commercial)(-|$)", _hyphened(part)) for part in licence_parts(licence))


def hub_front_matter(licence: str | None) -> dict[str, str]:
    """Return the card's front matter on the licence, as the Hub's documentation has it.

    The Hub knows single licences. Any other is ``other`` with a name and a file of the repository that says more.
    """
    parts = licence_parts(licence)
    if len(parts) == 1 and parts[0] in HUB_LICENCES:
        return {"license": parts[0]}
    name = _hyphened("-and-".join(parts)).strip("-.") or "unnamed"
    return {"license": "other", "license_name": name, "license_link": "LICENSE"}


def _hyphened(licence: str) -> str:
    """Return a licence in lower case with hyphens in the place of all else that parts words."""
    return re.sub(r"[^a-z0-9.]+", "-", licence)
