"""Names of licenses as Debian's copyright files spell them, which are accepted, and the choice of `--licenses`.

A license that is not listed here is refused: a new one is read by a person first. In Debian's main section nothing is
non-commercial or without derivatives; such a name is refused by itself, whatever the list says.
"""

import fnmatch
import re

# Spelling in copyright files, lower case without spaces -> SPDX. The license must allow changed copies and any use.
ACCEPTED = {
    "agpl-3+": "AGPL-3.0-or-later",
    "agpl-3+-with-openssl-excemption": "AGPL-3.0-or-later",  # an exception only allows more
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0",
    "artistic-1.0": "Artistic-1.0",
    "artistic-2": "Artistic-2.0",
    "artistic-2.0": "Artistic-2.0",
    "bsd-2": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by": "CC-BY-3.0",
    "cc-by-1.0": "CC-BY-1.0",
    "cc-by-2.0": "CC-BY-2.0",
    "cc-by-2.5": "CC-BY-2.5",
    "cc-by-3": "CC-BY-3.0",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-3.0-us": "CC-BY-3.0-US",
    "cc-by-4": "CC-BY-4.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa": "CC-BY-SA-3.0",
    "cc-by-sa-1.0": "CC-BY-SA-1.0",
    "cc-by-sa-2.0": "CC-BY-SA-2.0",
    "cc-by-sa-2.5": "CC-BY-SA-2.5",
    "cc-by-sa-3": "CC-BY-SA-3.0",
    "cc-by-sa-3.0": "CC-BY-SA-3.0",
    "cc-by-sa-3.0+": "CC-BY-SA-3.0",
    "cc-by-sa-3.0-us": "CC-BY-SA-3.0-US",
    "cc-by-sa-4": "CC-BY-SA-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc-sa-by-3.0": "CC-BY-SA-3.0",
    "cc0": "CC0-1.0",
    "cc0-1.0": "CC0-1.0",
    "expat": "MIT",
    "fal-1.3": "FAL-1.3",
    "free-art": "FAL-1.3",
    "freedoom-license": "BSD-3-Clause",  # its text is the three clauses
    "gfdl-1.3": "GFDL-1.3-no-invariants-only",  # hedgewars-data: "with no Invariant Sections"
    "gpl": "GPL-1.0-or-later",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-2+-with-openssl-exception": "GPL-2.0-or-later",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-2.0+": "GPL-2.0-or-later",
    "gpl-2.0-only": "GPL-2.0-only",
    "gpl-2.0-or-later": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "gpl-3.0": "GPL-3.0-only",
    "gpl-3.0+": "GPL-3.0-or-later",
    "gpl-3.0-or-later": "GPL-3.0-or-later",
    "gpl-any": "GPL-1.0-or-later",
    "isc": "ISC",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-3": "LGPL-3.0-only",
    "lgpl-3+": "LGPL-3.0-or-later",
    "lgpl-3.0": "LGPL-3.0-only",
    "lgpl-3.0-or-later": "LGPL-3.0-or-later",
    "mit": "MIT",
    "public-domain": "public-domain",
    "unlicense": "Unlicense",
    "wtfpl": "WTFPL",
    "wtfpl-2": "WTFPL",
    "zlib": "Zlib",
    "zlib-license": "Zlib",
}
FORBIDDEN = re.compile(r"\bnc\b|\bnd\b|non-?commercial|no-?deriv|fair-use", re.I)
SPDX = frozenset(ACCEPTED.values())


def canonical(name: str) -> str | None:
    """The SPDX expression of a license as a copyright file names it; None where it is not accepted.

    Of alternatives those that are not accepted are dropped; of a union all must be.

    >>> canonical("GPL-2+ or CC-BY-SA-3.0"), canonical("GPL-2+ or CDDL"), canonical("MIT and CC-BY-NC-3.0")
    ('GPL-2.0-or-later OR CC-BY-SA-3.0', 'GPL-2.0-or-later', None)
    """
    parts = [union(part) for part in re.split(r",?\s+or\s+", name.strip(), flags=re.I)]
    return " OR ".join(dict.fromkeys(part for part in parts if part)) or None


def union(names: str) -> str | None:
    known = [spdx(name) for name in re.split(r",?\s+and\s+|\s*,\s*", names, flags=re.I)]
    return None if None in known else " AND ".join(dict.fromkeys(name for name in known if name))


def spdx(name: str) -> str | None:
    if FORBIDDEN.search(name):
        return None
    return name if name in SPDX else ACCEPTED.get(re.sub(r"\s+", "-", name.strip().lower()))


def allows(choice: list[str], expression: str) -> bool:
    """Whether `--licenses` keeps a clip: patterns of what is wanted, after `!` of what is not; the last one decides.

    Of alternatives (OR) one is enough, of a union (AND) all must be allowed. Without a pattern everything is.

    >>> allows(["!GPL-*"], "GPL-2.0-or-later OR CC-BY-SA-3.0"), allows(["CC0-1.0", "MIT"], "CC-BY-4.0")
    (True, False)
    """
    return any(all(one(choice, name) for name in part.split(" AND ")) for part in expression.split(" OR "))


def one(choice: list[str], name: str) -> bool:
    allowed = not choice or choice[0].startswith("!")
    for pattern in choice:
        if fnmatch.fnmatchcase(name.lower(), pattern.removeprefix("!").lower()):
            allowed = not pattern.startswith("!")
    return allowed
