"""Prediction of many files, without torch.

options      the one table of options of every command line
predict      `predict_files`
folders      audio files to tables in a folder: resumable, in bounded memory
items        texts and images, which are predicted whole
store        the results of a job, a part for each file
workers      processes that share the files
cluster      the same on Ray Data
command      what the command lines do with the options
printing     predictions on the screen
live         standard input and the microphone
progress     a bar for a person who watches
"""
