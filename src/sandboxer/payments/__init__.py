"""Money: what a sandbox costs (`prices`), the double-entry book (`ledger`), its file (`layout`), and the one writer of
that file (`purse`). Amounts inside are whole micro-dollars; outside they are decimal strings in US dollars."""
