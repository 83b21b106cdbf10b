"""The publisher: the feed (changes and beats), snapshots, and complete and delta CRLs.

It reads the store of record (``issuance``) and writes what responders need into Valkey and into
files; it answers nobody.  The feed and the builder are separate processes, so that a long build
never holds up a beat.
"""
