"""The compact issuance core: store of record, issuers, issue, revoke, and the registers of the Act.

Everything here speaks the law's nouns (register, record, ground); the crossing to the RFC's
wire nouns happens in ``certstatus``, which this package may import and which never imports it.
"""
