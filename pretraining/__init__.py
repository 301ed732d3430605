"""How the shipped encoder is made: the corpus of free sounds, and the training on it.

    sources      which Debian packages, and what is decided about each by hand
    debian       packages: fetched, looked up, streamed
    licenses     names of licenses, which of them are accepted, and `--licenses`
    copyright    debian/copyright: whose a file is, and under which license
    archives     the sounds in a package, also those packed inside archives of games
    labels       weak labels from paths
    clips        loudness, trimming and cutting into clips
    duplicates   fingerprints, and what is nearly the same
    judged       recordings that must never train    recall    how many copies of them are found
    midi         notes and phrases as MIDI files      texts       sentences for voices
    rendering    instruments and voices, through fluidsynth, espeak-ng, flite and festival
    manifest     one row for each clip, and what the tables say
    corpus       the command that builds all of it
    features     log-mel features of all of it, and a speech encoder's answers
    mixtures     clips mixed at random levels and changed, without limit
    teacher      the AudioSet tagger that the student learns from
    student      the network while it trains
    train        the command that trains it

    python -m pretraining.corpus -o CORPUS
    python -m pretraining.features CORPUS -o STORE --speech WHISPER
    python -m pretraining.train STORE --teacher MN04 -o RUN --steps N

It is no part of the package: nothing in `src` imports it.
"""
