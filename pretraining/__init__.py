"""How the shipped encoder is made: the corpus of free sounds, the teacher's answers to it.

    sources      which Debian packages, and what is decided about each by hand
    debian       packages: fetched, looked up, streamed
    licenses     names of licenses, which of them are accepted, and `--licenses`
    copyright    debian/copyright: whose a file is, and under which license
    archives     the sounds in a package, also those packed inside archives of games
    labels       weak labels from paths
    clips        loudness, trimming and cutting into clips
    duplicates   fingerprints, and what is nearly the same
    judged       recordings that must never train
    midi         notes and phrases as MIDI files      texts       sentences for voices
    rendering    instruments and voices, through fluidsynth, espeak-ng, flite and festival
    manifest     one row for each clip, and what the tables say
    mixtures     clips mixed at random levels, without limit
    corpus       the command that builds all of it
    teacher      the AudioSet tagger that the student learns from, and its answers

    python -m pretraining.corpus -o CORPUS
    python -m pretraining.teacher CORPUS --weights WEIGHTS -o ANSWERS

It is no part of the package: nothing in `src` imports it.
"""
