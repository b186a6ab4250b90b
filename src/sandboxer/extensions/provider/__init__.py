"""What the adapters of providers share: extensions of somebody else's cloud, reached over the network.

lost_create.py  what becomes of a create that was not answered with success: one table
account.py      what "not found" proves: whose key asks, and at which address
errors.py       why an account is refused; the errors for what is stopped or has ended
wait.py         pauses that end with the deadline
words.py        commands whose bytes are not text, for protocols that carry nothing else
"""
