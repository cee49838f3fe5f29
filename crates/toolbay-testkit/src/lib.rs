//! Toolbay's test kit: a fake host, scripted models, transcripts.
