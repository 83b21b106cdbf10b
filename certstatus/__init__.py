"""The language that issuance, publisher and responder share.

Wire formats (DER, OCSP, CRL), the status index, the feed, entitlements, counters,
keys, configuration, clock and errors.  Nothing in here imports the other packages,
except the command line (``certstatus.cli``) and the supervisor, which sit on top.
"""

__version__ = "0.1.0"
