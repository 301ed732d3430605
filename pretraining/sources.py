"""Which Debian 12 packages the corpus is made of, and what is decided about each by hand.

A package's licenses come from its machine-readable copyright file, file by file. Where that file is free text, a person
has read it: `license` and `authors` say what holds for the sounds, `reason` why. A stanza whose license is not in
`licenses.ACCEPTED` keeps its files out.

Left out after reading: flight-of-the-amazon-queen, beneath-a-steel-sky, drascula-*, lure-of-the-temptress (the game
may not be sold by itself), freedink-data (licenses of single sounds are in no readable form), freepats (patches that
only an old synthesizer plays), the kits of hydrogen-drumkits and the drums of Sonic Pi that `examples/drums` is made
of, and Sonic Pi's loops with them (the same people recorded them).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Source:
    """One package and how its sounds are taken."""

    package: str
    kind: str  # effects, speech, music, drums or mixed
    per_file: int = 3  # clips of one recording at most
    most: int = 1500  # clips of the package at most; of more, a seeded choice
    only: tuple[str, ...] = ()  # patterns of paths that are taken; without any, all
    skip: tuple[str, ...] = ()  # patterns of paths that are not
    license: str = ""  # decided by hand, for a copyright file of free text
    authors: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A synthetic voice; what it says is under the license of its own package, the strictest reading."""

    engine: str  # espeak-ng, flite or festival
    name: str
    language: str
    package: str
    license: str
    authors: str
    encoding: str = "utf-8"  # that festival wants its text in
    words: int = 0  # clips of words drawn from the list of `WORDS`


def sources(kind: str, *names: str, **options: Any) -> tuple[Source, ...]:
    return tuple(Source(package=name, kind=kind, **options) for name in names)


JUDGED_KITS = ("*/Audiophob/*", "*/rumpf_kit_z01*", "*/BJA_Pacific/*", "*/circAfrique*")

SOURCES: tuple[Source, ...] = (
    # --- speech ---
    *sources(
        "speech",
        "asterisk-core-sounds-en-g722",
        "asterisk-core-sounds-es-g722",
        "asterisk-core-sounds-fr-g722",
        "asterisk-core-sounds-it-g722",
        "asterisk-core-sounds-ru-g722",
        "asterisk-prompt-it-menardi-wav",
        "gcin-voice",
        "klettres-data",
        "pocketsphinx-testdata",
        "sound-icons",
    ),
    Source(
        package="asterisk-prompt-es-co",
        kind="speech",
        license="GPL-2.0-only",
        authors="Avatar Ltda.; July E. Jimenez",
        reason="'free software ... GNU General Public License ... version 2 dated June, 1991'",
    ),
    Source(
        package="asterisk-prompt-fr-armelle",
        kind="speech",
        license="BSD-3-Clause",
        authors="2006 Michel Gutierrez; voice: Armelle Desjardins",
        reason="redistribution and use in any form with the notice, no endorsement: the clauses of BSD but one",
    ),
    Source(
        package="fillets-ng-data-cs",
        kind="speech",
        license="GPL-2.0-only",
        authors="ALTAR interactive; Ivo and Pavel Danihelka and others",
        reason="'free software ... GNU General Public License ... version 2 dated June, 1991'",
    ),
    Source(
        package="fillets-ng-data-nl",
        kind="speech",
        license="GPL-2.0-only",
        authors="ALTAR interactive; Ivo and Pavel Danihelka and others",
        reason="as fillets-ng-data-cs",
    ),
    # --- spoken words and sounds, named ---
    *sources("mixed", "ktuberling-data", "tuxpaint-stamps-default", "gcompris-qt-data", "hedgewars-data", most=5000),
    *sources("mixed", "scratch", "tuxmath-data", "pysiogame", "khangman", "alsa-utils", "emacspeak"),
    Source(
        package="tuxtype-data",
        kind="mixed",
        license="GPL-2.0-only",
        authors="2001-2003 Tux4Kids; Sam Hart, Jesse D. Andrews, David Bruce and others",
        reason="'licensed under the GNU Public License version 2'; the rest is about images and fonts",
    ),
    # --- effects ---
    *sources(
        "effects",
        "armagetronad",
        "blinken",
        "bomber",
        "bzflag-data",
        "cinnamon-common",
        "colobot-common-sounds",
        "deepin-sound-theme",
        "eiskaltdcpp-sounds",
        "endless-sky-data",
        "extremetuxracer-data",
        "flare-game",
        "foobillardplus-data",
        "freecol",
        "freedoom",
        "freedroidrpg-data",
        "frozen-bubble-data",
        "gnome-control-center-data",
        "gnome-robots",
        "granatier",
        "iagno",
        "jami-daemon",
        "kapman",
        "kolf",
        "lincity-ng-data",
        "linphone-common",
        "lomiri-sounds",
        "lugaru-data",
        "marsshooter-data",
        "mate-media-common",
        "megaglest-data",
        "minetest-data",
        "minetest-mod-homedecor",
        "minetest-mod-mesecons",
        "minetest-mod-mobs-redo",
        "minetest-mod-nether",
        "minetest-mod-xdecor",
        "openarena-081-misc",
        "openarena-081-players",
        "openarena-085-data",
        "openarena-088-data",
        "openarena-data",
        "opencity-data",
        "oxygen-sounds",
        "pathological",
        "pidgin-data",
        "planetblupi-common",
        "pokerth-data",
        "powermanga-data",
        "psi-plus-sounds",
        "quadrapassel",
        "ri-li-data",
        "safeeyes",
        "scorched3d-data",
        "simutrans-pak64",
        "sound-theme-freedesktop",
        "starfighter-data",
        "supercollider-common",
        "supertux-data",
        "teeworlds-data",
        "triplea",
        "twinkle-common",
        "ufoai-sound",
        "unknown-horizons",
        "warzone2100-data",
        "widelands-data",
        "wordwarvi-sound",
        "workrave-data",
        "xboard",
        "xmoto-data",
        "yaru-theme-sound",
        "zaz-data",
        "7kaa-data",
        "brainparty-data",
        "tuxfootball",
        "trophy-data",
        "adonthell-data",
        "raincat-data",
        "pushover-data",
        "supertuxkart-data",
        "0ad-data",
    ),
    Source(
        package="openttd-opensfx",
        kind="effects",
        license="CC-BY-SA-3.0",
        authors="various authors, listed in opensfx.psfo of the source package",
        reason="the stanza of src/wav/*, of which the installed opensfx.cat is packed; its path tells nothing",
    ),
    Source(
        package="enigma-data",
        kind="effects",
        license="GPL-2.0-only",
        authors="Siegfried Fennig, Martin Hawlisch, Daniel Heck, Petr Machata, Jeremy Sawicki, Ralf Westram",
        reason="'free software ... version 2 dated June, 1991' for all but two fonts and three libraries",
    ),
    Source(
        package="fillets-ng-data",
        kind="mixed",
        license="GPL-2.0-only",
        authors="ALTAR interactive; Ivo and Pavel Danihelka and others",
        reason="as fillets-ng-data-cs",
    ),
    Source(
        package="lbreakout2-data",
        kind="effects",
        license="GPL-1.0-or-later",
        authors="2000 Michael Speck",
        reason="'License: GNU GPL', without a version",
    ),
    Source(
        package="pingus-data",
        kind="effects",
        license="GPL-2.0-or-later",
        authors="1999-2007 Ingo Ruhnke and others",
        reason="'either version 2 of the License, or (at your option) any later version'; the rest is about programs",
    ),
    Source(
        package="searchandrescue-data",
        kind="effects",
        license="GPL-1.0-or-later",
        authors="1999-2004 WolfPack Entertainment",
        reason="'free to distribute ... under the terms of the GNU General Public License', without a version",
    ),
    Source(
        package="warmux-data",
        kind="effects",
        license="GPL-2.0-or-later",
        authors="2001-2011 Anthony Carre, Matthieu Fertre, Victor Stinner and the WarMUX contributors",
        reason="'either version 2 of the License, or (at your option) any later version'; the rest is about programs",
    ),
    Source(
        package="wesnoth-1.16-data",
        kind="effects",
        license="GPL-2.0-or-later",
        authors="2003-2009 David White and the contributors of Battle for Wesnoth",
        reason="'version 2 or at your option any later version' for all but a library and fonts",
    ),
    Source(
        package="xblast-tnt-sounds",
        kind="effects",
        license="GPL-2.0-only",
        authors="2004 Oliver Vogel and others",
        reason="'version 2 dated June, 1991'",
    ),
    # --- music and drums ---
    *sources(
        "music",
        "asc-music",
        "hyperrogue-music",
        "planetblupi-music-ogg",
        "ufoai-music",
        "warzone2100-music",
        "wesnoth-1.16-music",
        per_file=5,
    ),
    Source(
        package="asterisk-moh-opsound-wav",
        kind="music",
        per_file=8,
        license="CC-BY-SA-3.0",
        authors="2009 Paul Shuler (Macroform); 2009 Manolo Camp; 2008 Reno Project",
        reason="'distributed under the Creative Commons Attribution-ShareAlike 3.0 license'",
    ),
    Source(
        package="fretsonfire-songs-muldjord",
        kind="music",
        per_file=6,
        license="CC-BY-SA-3.0",
        authors="2009 El Senator (Muldjord)",
        reason="'licensed under the terms of the Creative Commons Attribution ShareAlike license 3.0'",
    ),
    Source(
        package="fretsonfire-songs-sectoid",
        kind="music",
        per_file=6,
        license="MIT",
        authors="2006-2007 Carlos Viola Iborra",
        reason="the text is that of the MIT license",
    ),
    Source(
        package="nexuiz-music",
        kind="music",
        per_file=5,
        license="GPL-2.0-or-later",
        authors="2002-2009 Alientrap, Lee Vermeulen",
        reason="'either version 2 of the License, or (at your option) any later version'",
    ),
    Source(
        package="singularity-music",
        kind="music",
        per_file=5,
        license="CC-BY-SA-3.0",
        authors="2007-2008, 2012 Max McCracken",
        reason="the text is that of Attribution-ShareAlike 3.0 ('License Elements: Attribution, ShareAlike')",
    ),
    *sources("drums", "hydrogen-data", "hydrogen-drumkits-effects", "lmms-common", per_file=4),
    Source(package="hydrogen-drumkits", kind="drums", skip=JUDGED_KITS, most=600),
    Source(
        package="sonic-pi-samples",
        kind="mixed",
        only=("*/ambi_*", "*/bass_*", "*/glitch_*", "*/guit_*", "*/misc_*", "*/vinyl_*"),
    ),
)

SOUNDFONT = Source(
    package="fluid-soundfont-gm",
    kind="instruments",
    license="MIT",
    authors="2000-2002, 2008 Frank Wen; 2008 Toby Smithe",
    reason="'I hereby release Fluid under the MIT license'",
)
SOUNDFONT_PATH = "usr/share/sounds/sf2/FluidR3_GM.sf2"

TOOLS = ("fluidsynth", "espeak-ng", "flite", "festival", "festvox-kallpc16k")
VOICE_PACKAGES = (
    "festvox-kdlpc16k",
    "festvox-us-slt-hts",
    "festlex-ifd",
    "festvox-italp16k",
    "festvox-itapc16k",
    "festival-czech",
    "festvox-czech-dita",
    "festvox-czech-krb",
    "festvox-czech-machac",
    "festvox-czech-ph",
    "festvox-suopuhe-common",
    "festvox-suopuhe-lj",
    "festvox-suopuhe-mv",
    "wamerican-small",
)
WORDS = (
    "usr/share/dict/american-english-small"  # of wamerican-small, free to use; sounds alone have a license of a voice
)
ESPEAK_LANGUAGES = "en de fr es it pt nl pl cs ru sv fi tr el hu hi cmn".split()


def espeak(language: str) -> Voice:
    return Voice(
        engine="espeak-ng",
        name=language,
        language=language,
        package="espeak-ng-data",
        license="GPL-3.0-or-later",
        authors="Jonathan Duddington; Reece H. Dunn and the authors of eSpeak NG",
        words=1200 if language == "en" else 0,
    )


def flite(name: str) -> Voice:
    authors = "1999-2014 Carnegie Mellon University"
    return Voice(
        engine="flite",
        name=name,
        language="en",
        package="libflite1",
        license="MIT-Festival",
        authors=authors,
        words=400,
    )


def festival(package: str, name: str, language: str, license: str, authors: str, encoding: str = "utf-8") -> Voice:
    return Voice(
        engine="festival",
        name=name,
        language=language,
        package=package,
        license=license,
        authors=authors,
        encoding=encoding,
        words=200 if language == "en" else 0,
    )


BRAILCOM = "Brailcom, o.p.s."
VOICES: tuple[Voice, ...] = (
    *(espeak(language) for language in ESPEAK_LANGUAGES),
    *(flite(name) for name in ("awb", "kal16", "rms", "slt")),
    festival("festvox-kallpc16k", "kal_diphone", "en", "MIT-Festival", "Carnegie Mellon University; CSTR"),
    festival("festvox-kdlpc16k", "ked_diphone", "en", "MIT-Festival", "CSTR, University of Edinburgh; Kurt Dusterhoff"),
    festival("festvox-us-slt-hts", "cmu_us_slt_arctic_hts", "en", "MIT-Festival", "2003 Carnegie Mellon University"),
    festival("festvox-italp16k", "lp_diphone", "it", "GPL-2.0-or-later", "ISTC-SPFD CNR Padova", "iso-8859-1"),
    festival("festvox-itapc16k", "pc_diphone", "it", "GPL-2.0-or-later", "ISTC-SPFD CNR Padova", "iso-8859-1"),
    festival("festvox-czech-dita", "czech_dita", "cs", "GPL-3.0-or-later", BRAILCOM, "iso-8859-2"),
    festival("festvox-czech-krb", "czech_krb", "cs", "GPL-3.0-or-later", BRAILCOM, "iso-8859-2"),
    festival("festvox-czech-machac", "czech_machac", "cs", "GPL-3.0-or-later", BRAILCOM, "iso-8859-2"),
    festival("festvox-czech-ph", "czech_ph", "cs", "GPL-2.0-or-later", BRAILCOM, "iso-8859-2"),
    festival("festvox-suopuhe-lj", "suo_fi_lj_diphone", "fi", "LGPL-2.0-or-later", "Univ. of Helsinki", "iso-8859-1"),
    festival("festvox-suopuhe-mv", "hy_fi_mv_diphone", "fi", "LGPL-2.0-or-later", "Univ. of Helsinki", "iso-8859-1"),
)
