"""Whose a file is: stanzas of debian/copyright, names of licenses, the choice between them."""

import pytest
from pretraining.copyright import read_copyright, stanza_of
from pretraining.licenses import allows, canonical

TEXT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: game

Files: *
Copyright: 2010 The team
License: GPL-2+

Files: data/sounds/*
 data/voices/*.wav
Copyright: 2011 Ann Example
           2012 Bob Example
License: CC-BY-SA-3.0
Comment: recorded at home
 .
 with a telephone

Files: data/sounds/bell.wav
Copyright: 2013 Cem Example
License: CC0-1.0

Files: debian/*
Copyright: 2014 Packager
License: GPL-3+

License: GPL-2+
 This is free software: a line
 .
 and Files: nothing
"""


def license_of(path: str) -> str:
    stanza = stanza_of(read_copyright(TEXT), path)
    assert stanza is not None
    return stanza.license


def test_a_stanza_has_patterns_a_license_and_all_its_authors() -> None:
    stanzas = read_copyright(TEXT)
    assert [stanza.patterns[0] for stanza in stanzas] == ["*", "data/sounds/*", "data/sounds/bell.wav", "debian/*"]
    assert stanzas[1].patterns == ("data/sounds/*", "data/voices/*.wav")
    assert stanzas[1].authors == "2011 Ann Example; 2012 Bob Example"


def test_an_installed_file_is_found_by_the_end_of_its_path() -> None:
    assert license_of("usr/share/games/game/data/sounds/dog.ogg") == "CC-BY-SA-3.0"
    assert license_of("usr/share/games/game/sounds/dog.ogg") == "CC-BY-SA-3.0"
    assert license_of("usr/share/games/game/data/sounds/deep/dog.ogg") == "CC-BY-SA-3.0"
    assert license_of("usr/share/games/game/images/dog.ogg") == "GPL-2+"


def test_a_file_that_is_named_goes_before_its_folder() -> None:
    assert license_of("usr/share/game/data/sounds/bell.wav") == "CC0-1.0"


def test_a_sound_that_the_package_encoded_anew_keeps_its_stanza() -> None:
    assert license_of("usr/share/game/data/sounds/bell.ogg") == "CC0-1.0"
    assert license_of("usr/share/game/data/voices/ann.ogg") == "CC-BY-SA-3.0"


def test_a_pattern_of_the_packaging_says_nothing_about_sounds() -> None:
    assert license_of("usr/share/game/other/click.wav") == "GPL-2+"


def test_free_text_has_no_stanzas() -> None:
    assert read_copyright("This package was made by Ann.\n\nFiles: are free, License: GPL\n") == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Expat", "MIT"),
        ("cc0-1.0", "CC0-1.0"),
        ("GPL-1.0-or-later", "GPL-1.0-or-later"),
        ("GPL-2+ or CC-BY-SA-3.0", "GPL-2.0-or-later OR CC-BY-SA-3.0"),
        ("GPL-2+, and CC-BY-3", "GPL-2.0-or-later AND CC-BY-3.0"),
        ("GPL-2+ or CC-BY-NC-3.0", "GPL-2.0-or-later"),
    ],
)
def test_a_license_is_named_as_spdx_does(name: str, expected: str) -> None:
    assert canonical(name) == expected


@pytest.mark.parametrize("name", ["CC-BY-NC-SA-4.0", "CC-BY-ND-3.0", "non-commercial", "fair-use", "", "MIT and CDDL"])
def test_a_license_that_nobody_accepted_is_refused(name: str) -> None:
    assert canonical(name) is None


def test_a_choice_of_licenses_wants_or_does_not_want() -> None:
    assert allows([], "GPL-3.0-only")
    assert allows(["CC0-1.0", "MIT"], "MIT") and not allows(["CC0-1.0", "MIT"], "CC-BY-3.0")
    assert allows(["!GPL-*"], "CC-BY-3.0") and not allows(["!GPL-*"], "GPL-3.0-only")
    assert allows(["!GPL-*"], "GPL-3.0-only OR MIT") and not allows(["!GPL-*"], "GPL-3.0-only AND MIT")
