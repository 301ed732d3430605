"""ESC-50 as published (Piczak 2015): meta/esc50.csv and audio/."""

from ossicle.data.layout import PublishedTable

LAYOUT = PublishedTable("ESC-50", table="meta/esc50.csv", folder="audio")
