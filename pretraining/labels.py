"""Weak labels: what the name of a sound and the folders above it say. They check an encoder; they teach nothing.

`label` is the name in plain words; `topic` is one of a few coarse classes, where a word of the path tells. A probe on
topics of the validation part says whether an encoder learns, without a look at any set that judges it.
"""

import re
from pathlib import PurePosixPath

TOPICS = {
    "animal": "animal animals bird birds dog cat cow horse sheep goat pig duck goose chicken rooster hen wolf bear "
    "lion elephant monkey frog insect bee cricket seagull eagle owl crow pigeon parrot penguin whale dolphin snake "
    "bat rat mouse bark meow moo neigh bleat howl buffalo deer elk boar wings fauna turkey toad donkey seal mammals",
    "vehicle": "vehicle vehicles car cars train truck bus engine motor helicopter airplane plane aircraft jet boat "
    "ship motorcycle bike horn brake skid tractor locomotive tram engines hovercraft siren ambulance",
    "water": "water rain river sea ocean waves splash bubbles drip underwater swim waterfall fountain brook",
    "weather": "wind thunder storm lightning thunderstorm blizzard",
    "fire": "fire burn burning flame campfire",
    "weapon": "weapon weapons gun pistol rifle shotgun cannon missile rocket laser explosion explode bomb grenade "
    "mortar machinegun sword bow arrow axe mace dagger sabre club crossbow plasma railgun",
    "footstep": "footstep footsteps step steps walk walking",
    "impact": "hit impact crash break glass smash bounce metal wood thud knock bump dig",
    "door": "door doors gate hatch",
    "tool": "hammer saw drill chop chopping mine mining build building smith anvil shovel sawmill",
    "bell": "bell bells gong chime ding alarm ring ringtone ringtones phone",
    "interface": "click button beep menu select notification dialog login logout logon logoff error warning ui alert "
    "message keypress toggle popup bing",
    "pain": "pain die dying death scream hurt gasp fall groan grunt",
    "laughter": "laugh laughing laughter giggle taunt",
    "crowd": "crowd cheer applause clapping applaud",
    "music": "music song theme soundtrack melody jingle",
    "drum": "drum kick snare hihat tom cymbal percussion tabla djembe conga bongo clap rimshot",
    "magic": "magic spell heal teleport",
}
SPOKEN = frozenset("voice voices speech dialog dialogs dialogue dialogues desc spoken taunts".split())
WORD_TOPICS = {word: topic for topic, words in TOPICS.items() for word in words.split()}


def words_of(name: str) -> list[str]:
    """The words in a name, in lower case, also those that a capital begins; no numbers."""
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+", name)]


def weak_label(path: str) -> str:
    """The name of a sound in words; where it has none, the folder's.

    >>> weak_label("usr/share/x/sounds/doorOpen_02.wav")
    'door open'
    """
    parts = PurePosixPath(path.replace("!", "/")).with_suffix("").parts
    return next((" ".join(words) for part in reversed(parts) if (words := words_of(part))), "")


def topic_of(path: str, kind: str) -> str:
    """A coarse class from the words of a name, else of the folders from the nearest; speech and music by their source.

    >>> topic_of("usr/share/stamps/animals/birds/cardinal.ogg", "effects")
    'animal'
    """
    if kind in ("speech", "music"):
        return kind
    parts = PurePosixPath(path.replace("!", "/")).with_suffix("").parts[2:]
    if any(word in SPOKEN for part in parts for word in words_of(part)):
        return "speech"
    for part in reversed(parts):
        for word in words_of(part):
            topic = WORD_TOPICS.get(word) or WORD_TOPICS.get(word.rstrip("s"))
            if topic:
                return topic
    return ""
