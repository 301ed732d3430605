"""UrbanSound8K as published (Salamon et al. 2014): metadata/UrbanSound8K.csv and audio/fold1/ to audio/fold10/."""

from ossicle.data.layout import PublishedTable

LAYOUT = PublishedTable("UrbanSound8K", table="metadata/UrbanSound8K.csv", folder="audio")
