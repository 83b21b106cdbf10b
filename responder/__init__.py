"""The responders: workers that answer, and beside them a host agent and operators' pages.

They hold the status of certificates in memory and know neither the store of record nor any CA key;
what they believe, a beat signed by the publisher vouches for.
"""
