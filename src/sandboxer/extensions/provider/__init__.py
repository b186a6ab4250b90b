"""What the adapters of providers share: extensions of somebody else's cloud, reached over the network.

words.py     commands whose bytes are not text, for protocols that carry nothing else
"""
